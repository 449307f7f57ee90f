"""Precision as it is asked for, or said not to be; and a process left with the settings that it had."""

import subprocess
import sys
import threading

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from mgs import machine
from mgs.errors import explain_failure, is_out_of_memory
from mgs.machine import choose_precision, compile_or_not, environment, exact_products

CPU = torch.device("cpu")
REDUCED = {  # by each of torch's three ways to ask for TF32
    "new": "torch.backends.fp32_precision = 'tf32'",
    "old": "torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True",
    "one word": "torch.set_float32_matmul_precision('high')",
}
LOOK = "([part.fp32_precision for part in PARTS], old())"
SCRIPT = """if True:
    import torch
    from mgs.machine import environment, exact_products
    b = torch.backends
    PARTS = b.cuda.matmul, b.cudnn.conv, b.mkldnn.matmul, b.mkldnn.conv
    def old():
        try:
            return b.cuda.matmul.allow_tf32, b.cudnn.allow_tf32
        except RuntimeError:
            return "the host mixed the ways itself"
    {ask}
    before = {look}
    with exact_products:
        with exact_products:
            environment(torch.device("cpu"))
        assert all(part.fp32_precision in ("ieee", "none") for part in PARTS), [p.fp32_precision for p in PARTS]
    assert {look} == before, ({look}, before)
    if {follows}:  # what followed the process's own setting still does
        b.fp32_precision = "ieee"
        assert [part.fp32_precision for part in PARTS] == ["ieee"] * 4
"""


def test_a_precision_that_a_cpu_would_emulate_is_said_once_and_not_used(monkeypatch, capsys):
    monkeypatch.setattr(machine, "cpu_has_bf16", lambda: False)
    machine.say_once.cache_clear()
    for _ in range(2):
        assert choose_precision("bf16", CPU) == torch.float32
        assert choose_precision("fp16", CPU) == torch.float32
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["precision=bf16", "precision=fp16"]
    assert all(line.endswith("using float32") for line in lines)
    monkeypatch.setattr(machine, "cpu_has_bf16", lambda: True)
    assert choose_precision("bf16", CPU) == torch.bfloat16
    assert choose_precision("auto", CPU) == torch.float32


@pytest.mark.parametrize("ask", REDUCED)
def test_float32_means_float32_within_our_calls_and_what_the_host_asked_for_outside(ask):
    code = SCRIPT.format(ask=REDUCED[ask], look=LOOK, follows=ask == "new")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_last_thread_to_leave_restores_what_the_first_one_found():
    entered, leave = threading.Event(), threading.Event()
    torch.backends.cudnn.conv.fp32_precision = "tf32"

    def hold():
        with exact_products:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    with exact_products:
        thread.start()
        entered.wait()
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    leave.set()
    thread.join()
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_running_out_of_memory_is_known_by_all_its_names(text):
    assert is_out_of_memory(RuntimeError(text))
    assert explain_failure(RuntimeError(text)).startswith("out of memory")
    assert not is_out_of_memory(ValueError(text))


def test_the_record_of_the_machine_needs_no_setting_that_may_be_mixed():
    assert "tf32" not in environment(CPU)


class StubCompiler:
    """In place of torch.compile: gives the function itself, which on the calls named in `fails` raises that error."""

    def __init__(self, fails):
        self.fails, self.calls = fails, 0

    def __call__(self, function):
        def compiled(*args):
            self.calls += 1
            if self.calls in self.fails:
                raise self.fails[self.calls]
            return function(*args)

        return compiled


def scaled(factor, x):
    """Any function of the kind that is compiled."""
    return factor * x.sin()


@pytest.mark.parametrize("when", [1, 3])
def test_a_compiler_that_fails_on_the_first_call_or_a_later_one_is_left_with_one_warning(monkeypatch, capsys, when):
    stub = StubCompiler({when: TorchDynamoException("no compiler\nhere")})
    monkeypatch.setattr(torch, "compile", stub)
    function, x = compile_or_not(scaled), torch.randn(4, 3)
    for _ in range(5):
        assert torch.equal(function(2.0, x), scaled(2.0, x))
    assert stub.calls == when  # then it is not asked again
    assert capsys.readouterr().err.splitlines() == ["warning: torch.compile failed, continuing without it: no compiler"]


@pytest.mark.parametrize(
    "error", [ValueError("of the function's own"), torch.OutOfMemoryError("CUDA out of memory"), KeyboardInterrupt()]
)
def test_an_error_that_is_not_the_compilers_passes_and_the_compiled_function_stays(monkeypatch, capsys, error):
    stub = StubCompiler({2: error})
    monkeypatch.setattr(torch, "compile", stub)
    function, x = compile_or_not(scaled), torch.randn(4, 3)
    function(2.0, x)
    with pytest.raises(type(error)):
        function(2.0, x)
    function(2.0, x)
    assert stub.calls == 3
    assert capsys.readouterr().err == ""


def compile_with(backend, compiler=torch.compile):
    """torch.compile with one's own backend in place of the slow one."""
    return lambda function: compiler(function, backend=backend)


def test_what_the_compiler_compiles_serves_every_number_of_images(monkeypatch):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", compile_with(count))
    function, factor = compile_or_not(scaled), torch.tensor(2.0)
    for images in (12, 12, 7, 2, 120):
        x = torch.randn(images, 3)
        assert torch.equal(function(factor, x), scaled(factor, x))
    assert len(graphs) == 1
    x = torch.randn(1, 3)  # torch always compiles a length of one apart
    assert torch.equal(function(factor, x), scaled(factor, x))
    assert len(graphs) <= 2


def test_whatever_a_backend_raises_while_it_compiles_counts_as_the_compilers_error(monkeypatch, capsys):
    def refuse(graph, inputs):
        raise RuntimeError("no C++ compiler on this machine")

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", compile_with(refuse))
    function, factor, x = compile_or_not(scaled), torch.tensor(2.0), torch.randn(4, 3)
    for _ in range(2):
        assert torch.equal(function(factor, x), scaled(factor, x))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: torch.compile")]
    assert "no C++ compiler on this machine" in line

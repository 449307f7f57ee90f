"""Count what a GPU would be waited for, on a machine without one.

    with fake_cuda() as log:
        engine = fake_engine(config)
        log.clear()  # what building did
        engine.score(engine.stage(pictures, prompts))
    assert not log.waits, log.table()

Tensors on the CPU are real, so lengths and indices are the true ones; those on `cuda` have no numbers, and what is read
from them is 1 or True. `backward` leaves gradients without computing them. A `ThreadPoolExecutor` works in the caller's
thread, since a dispatch mode belongs to one. Streams do nothing, so a missing wait_stream or record_stream goes unseen.
"""

import contextlib
import sys
import warnings
from collections import Counter, namedtuple
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import torch
from torch._subclasses import fake_tensor as fake
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import mgs
from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.openai import openai_clip
from mgs.engine.engine import make_engine
from mgs.machine import Machine
from mgs.methods.table import make_method

VIT_B_16 = (512, 224, 12, 768, 16, 77, 49408, 512, 8, 12)  # the arguments of openai-clip's CLIP
PACKAGE = str(Path(mgs.__file__).parent)
WAITS = ("copy", "pageable", "read", "wait")
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
COPYING = {"_to_copy", "copy_", "_foreach_copy_", "index", "index_put", "index_put_", "_index_put_impl_"}  # to the GPU
SILENT = ("empty", "new_empty", "_unsafe_view", "detach", "_local_scalar")  # these launch nothing, nor do views
Entry = namedtuple("Entry", "kind line op shape")  # `line` is the innermost one in mgs/


class Log(TorchDispatchMode):
    """What happened: `entries`, and `launches`, how often each op ran on the GPU.

    Kinds that wait: `copy` to the GPU; `pageable`, a non-blocking one from memory that is not pinned, which may wait;
    `read`, of a value or a copy to the CPU; `wait`, a synchronize(). Others: `sent` and `fetched`, copies to and from
    the GPU that do not wait; `mixed`, a CPU tensor that an op on the GPU takes, as a rule for a number. `launches` is
    not exact: an op may be several kernels, and attention, never fused without a GPU, counts as about ten ops.
    """

    def __init__(self):
        super().__init__()
        self.pinned = {}  # address -> storage, held so that no other gets its address
        self.clear()

    def clear(self):
        self.entries, self.launches = [], Counter()

    @property
    def waits(self):
        return [entry for entry in self.entries if entry.kind in WAITS]

    def table(self):
        """How often each line did what, in the order of their first time."""
        counts = Counter(entry[:3] for entry in self.entries)
        return "\n".join(f"{n:4} {kind:8} {line:36} {op}" for (kind, line, op), n in counts.items())

    def note(self, kind, op, shape=()):
        frame = sys._getframe(1)
        while frame and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        line = f"mgs{frame.f_code.co_filename[len(PACKAGE) :]}:{frame.f_lineno}" if frame else "outside mgs"
        self.entries.append(Entry(kind, line, op, tuple(shape)))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func._schema.name.removeprefix("aten::")
        leaves = tree_leaves((args, kwargs))
        to_gpu = any(isinstance(x, torch.device) and x.type == "cuda" for x in leaves)
        real = [x for x in leaves if isinstance(x, torch.Tensor) and not isinstance(x, fake.FakeTensor)]
        if not to_gpu and not any(isinstance(x, fake.FakeTensor) for x in leaves):
            return self.run_on_cpu(func, name, args, kwargs)
        if name == "prim::device":  # what FakeTensor.device asks
            return func(*args)
        if torch.is_inference_mode_enabled() and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE):
            with self:  # in inference mode composite ops arrive whole
                return func._op_dk(COMPOSITE, *args, **kwargs)
        free = bool(kwargs.get("non_blocking")) or (name.endswith("copy_") and args[2:] == (True,))
        if name == "_to_copy" and not to_gpu and kwargs.get("device"):
            with self:  # torch pins, too, where it need not block
                here = torch.empty(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype, pin_memory=free)
                return here.copy_(args[0], free)
        if name == "copy_" and not isinstance(args[0], fake.FakeTensor):
            self.note("fetched" if free and self.is_pinned(args[0]) else "read", name, args[0].shape)
            return self.run_on_cpu(torch.Tensor.fill_, name, (args[0], 1), {})
        for x in real:
            kind = ("pageable", "sent")[self.is_pinned(x)] if free else "copy" if name in COPYING else "mixed"
            self.note(kind, name, x.shape)
        if not func.is_view and not name.startswith(SILENT):
            self.launches[name] += 1
        try:
            return func(*args, **kwargs)
        except (fake.DataDependentOutputException, fake.DynamicOutputShapeException):  # take all numbers for 1
            self.note("read", name, leaves[0].shape)
            with fake.unset_fake_temporarily():
                ones = tree_map_only(fake.FakeTensor, lambda x: torch.ones(x.shape, dtype=x.dtype), (args, kwargs))
                result = func(*ones[0], **ones[1])
            return tree_map_only(torch.Tensor, lambda x: torch.empty_like(x, device="cuda"), result)

    def is_pinned(self, tensor):
        return tensor.untyped_storage().data_ptr() in self.pinned

    def run_on_cpu(self, func, name, args, kwargs):
        """Run it for real, but for pinning memory, which is only noted."""
        if name == "is_pinned":
            return self.is_pinned(args[0])
        if name in ("pin_memory", "_pin_memory"):
            func, args, kwargs = torch.clone, args[:1], {"pin_memory": True}
        pin = kwargs.pop("pin_memory", None)
        with fake.unset_fake_temporarily():
            result = func(*args, **kwargs)
        if pin:
            self.pinned[result.untyped_storage().data_ptr()] = result.untyped_storage()
        return result


def submit(pool, function, /, *args, **options):
    """`ThreadPoolExecutor.submit` without a thread, yet with gradients and without inference mode, as in a new one."""
    future = Future()
    with torch.inference_mode(False), torch.enable_grad():
        future.set_result(function(*args, **options))
    return future


def backward(loss, *args, **options):
    """Give every leaf that the loss depends on a gradient of its shape."""
    nodes = [loss.grad_fn]
    for node in nodes:  # which grows meanwhile
        nodes += {following for following, _ in node.next_functions if following} - set(nodes)
        if hasattr(node, "variable"):
            node.variable.grad = torch.empty_like(node.variable)


@contextlib.contextmanager
def fake_cuda():
    """A context in which there seems to be one GPU; gives the `Log` of what it is asked to do."""
    log = Log()
    facts = {"is_available": True, "device_count": 1, "current_device": 0, "is_current_stream_capturing": False}
    facts |= {"get_device_name": "fake", "get_device_capability": (9, 0), "is_bf16_supported": True}
    facts |= {"mem_get_info": (64 << 30, 80 << 30)}
    idle = mock.MagicMock(**{"synchronize.side_effect": lambda: log.note("wait", "synchronize")})  # a stream or event
    facts |= dict.fromkeys(("Stream", "Event", "device", "stream", "current_stream", "default_stream"), idle)
    patches = {name: lambda *_, value=value, **__: value for name, value in facts.items()}
    with (
        mock.patch.multiple(torch.cuda, synchronize=lambda *_: idle.synchronize(), **patches),
        mock.patch.multiple(torch.Tensor, backward=backward, record_stream=lambda *_: None),
        mock.patch.multiple(fake.FakeTensor, tolist=lambda tensor: tensor.cpu().tolist()),
        mock.patch.multiple(fake.FakeTensorMode, avoid_device_init=True),  # by itself it asks whether there is a GPU
        mock.patch.multiple(ThreadPoolExecutor, submit=submit),
        mock.patch.multiple(torch.utils, swap_tensors=lambda old, new: setattr(old, "data", new.data)),  # Module.to
        fake.FakeTensorMode(allow_non_fake_inputs=True),
        log,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")  # 0, as good as another
        yield log


def fake_engine(config, shape=VIT_B_16):
    """The config's method on a ViT-B/16 on the fake GPU; call it inside `fake_cuda`."""
    with torch.device("cuda"):
        backbone = CLIPBackbone(openai_clip().model.CLIP(*shape).eval(), "fake")
        method = make_method(backbone, config)
    return make_engine(method, config, Machine.choose("cuda", config.precision))

"""What every room needs of the machine: seeds, device, precision, and errors that users see."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import platform
import random
import re
import signal
import sys
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import mgs
from mgs.interrupts import ended_by, interrupt
from mgs.showing import one_line, printable

USER_ERROR_EXIT = 2
SIGNALLED = 128  # plus the signal's number: the shell's convention
OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EFBIG)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


class UserError(Exception):
    """A mistake that the user can mend: one line of what is wrong, where, and the remedy; shown without traceback.

    What it quotes may be a stranger's, of any length and with line breaks.
    """

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


def exit_on_user_error(main: Callable[..., None], *args: Any) -> None:
    """Run a command's `main`; what a user can mend is one line on stderr and exit code 2, our own bugs a traceback.

    Ctrl-C and SIGTERM end it with a line too, and with the shell's exit codes for them, 130 and 143.
    """
    signal.signal(signal.SIGTERM, interrupt)
    threading.excepthook = leave_system_errors
    try:
        main(*args)
    except BrokenPipeError:  # whoever read our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(SIGNALLED + signal.SIGPIPE)
    except SystemExit:
        if ended_by:  # typer makes 130 of every signal
            sys.exit(SIGNALLED + ended_by[0])
        raise
    except KeyboardInterrupt as error:
        print(printable(str(error)) or "interrupted", file=sys.stderr)
        sys.exit(SIGNALLED + getattr(error, "number", signal.SIGINT))
    except Exception as error:
        reason = explain_failure(error)
        if reason is None:
            raise
        print(f"error: {printable(reason)}", file=sys.stderr)
        sys.exit(USER_ERROR_EXIT)


def leave_system_errors(failure: threading.ExceptHookArgs) -> None:
    """Print what a thread died of, but for the system's errors: TensorBoard raises those again in the main thread."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def explain_failure(error: Exception) -> str | None:
    """What went wrong and the remedy, for what users cause or can mend; None for our own bugs."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and (error.filename or error.errno in OF_THE_MACHINE):
        place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return f"{place}{error.strerror}; check the folder, its permissions and the disk"
    if is_out_of_memory(error):
        return f"out of memory ({text[:200]}); lower train.batch_size, or close what else uses the memory"
    if isinstance(error, RuntimeError) and re.match(r"DataLoader worker \(pid", text):
        return f"a process that decodes images died ({text[:200]}); free memory, or set data.workers=0"
    if isinstance(error, RuntimeError) and re.search("CUDA error|CUDNN_STATUS|CUBLAS_STATUS", text):
        return f"the GPU failed ({text[:200]}); look at nvidia-smi, and start again"
    return None


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - third-party code draws from the global generator
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The state of every library's random generator, as tensors and plain values."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.array(keys, np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Continue from what `random_state` gave; GPUs only where there are as many as then."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def compute_alike(device: torch.device) -> None:
    """On a CPU let the same work give the same bits: by default sums of gradients are taken in any thread's order."""
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # would fill every new tensor, for debugging


def choose_device(name: str) -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda` or `cuda:N`; asking for a GPU that is not there is a `UserError`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"device={name}: no such device; use auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name}: torch sees {torch.cuda.device_count()} CUDA device(s) here; "
            "use device=cpu, or check nvidia-smi and CUDA_VISIBLE_DEVICES"
        )
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype that matrix products run in; `auto` is bf16 where the GPU has it, else fp16, and fp32 on a CPU.

    Master weights stay float32 whatever this says.
    """
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Mixed precision for a forward pass; float32 turns it off."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def forbid_tf32() -> None:
    """Keep float32 products on a GPU in float32: by default PyTorch rounds convolutions' inputs to TF32's 10 bits."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next pass, instead of handing every large tensor's pages back and forth.

    Fresh pages cost a CPU about a twentieth of a forward pass. Elsewhere than under glibc it does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        glibc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def compile_or_not(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile` of a function; where that fails on its first call, a warning and the function as it is."""
    compiled, chosen = torch.compile(function), None

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        nonlocal chosen
        if chosen:
            return chosen(*args, **options)
        try:
            result = compiled(*args, **options)
        except Exception as error:  # the compiler's stages have no common base class for what they raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            tqdm.write(f"warning: torch.compile failed, going on without it: {reason}", file=sys.stderr)
            chosen = function
            return function(*args, **options)
        chosen = compiled  # from here on an error is the function's own
        return result

    return call


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's memory, or the machine's, did not suffice."""
    kinds = (MemoryError, torch.cuda.OutOfMemoryError)
    told = isinstance(error, RuntimeError) and re.search("can't allocate memory|out of memory", str(error))
    return isinstance(error, kinds) or bool(told)


def available_memory() -> int:
    """Bytes of RAM that this process may still take: the machine's, or its container's where that is less."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # where the system doesn't tell
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max", no limit
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
        available = min(available, max(limit - used, 0))
    return available


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, for the record beside every result."""
    packages = ("torchvision", "openai-clip", "numpy", "scipy", "pandas", "Pillow", "safetensors", "omegaconf")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
        "cuda": torch.version.cuda,
        "mgs": mgs.__version__,
        "packages": {"torch": str(torch.__version__), **{name: metadata.version(name) for name in packages}},
    }

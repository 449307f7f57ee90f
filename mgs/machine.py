"""What every room needs to know about the machine: device, precision, memory, versions."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import random
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._dynamo.exc import TorchDynamoException
from tqdm import tqdm

import mgs
from mgs.errors import UserError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EXACT = ("ieee", "none")  # torch's names for float32 products in full precision; none: no other was set
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


@dataclass(frozen=True)
class Machine:
    """Where and how to compute. Nothing of it changes scores but for their last digits."""

    device: torch.device
    dtype: torch.dtype  # of matrix products

    @classmethod
    def choose(cls, device: str = "auto", precision: str = "auto") -> Machine:
        """The machine for these options, as `choose_device` and `choose_precision` read them. Raises `UserError`."""
        chosen = choose_device(device)
        return cls(chosen, choose_precision(precision, chosen))


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - third-party code draws from the global generator
    torch.manual_seed(seed)


def compute_alike(device: torch.device) -> None:
    """On a CPU, make the same work give the same bits; by default, threads add up gradients in any order."""
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

    On a CPU, fp16 becomes fp32, and so does bf16 if the processor would have to emulate it; a line on stderr says so.
    Master weights are always float32.
    """
    if name not in ("auto", *PRECISIONS):
        raise UserError(f"precision={name}: no such precision; use auto, {', '.join(PRECISIONS)}")
    if device.type == "cuda":
        capable = torch.cuda.get_device_capability(device) >= (8, 0)
        own = torch.bfloat16 if capable else torch.float16
        return own if name == "auto" else PRECISIONS[name]
    if name == "fp16" or (name == "bf16" and not cpu_has_bf16()):
        reason = "has no fast fp16" if name == "fp16" else "has neither AVX512-BF16 nor AMX, and would emulate bf16"
        say_once(f"precision={name}: this CPU {reason} (about 100 times slower); using float32")
        return torch.float32
    return torch.float32 if name == "auto" else PRECISIONS[name]


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices itself: x86 with AVX512-BF16 or AMX, ARM with BF16."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@functools.cache
def say_once(text: str) -> None:
    """Print a line on stderr, but only the first time that it is given."""
    tqdm.write(text, file=sys.stderr)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Mixed precision for a forward pass; float32 turns it off."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


class ExactProducts:
    """A context in which float32 products are computed in float32; afterwards the settings are as before.

    By default PyTorch rounds a convolution's inputs to TF32's 10 bits on a GPU, and a host may have asked for TF32
    or bf16 elsewhere. The settings are the process's, so the first thread to enter saves them and the last to leave
    restores them; what is exact already is not touched.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.saved = threading.Lock(), 0, list[tuple[Any, str]]()

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                backends: Any = torch.backends  # whose types lack the newer settings
                parts = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
                self.saved = [(part, part.fp32_precision) for part in parts if part.fp32_precision not in EXACT]
                for part, _ in self.saved:
                    part.fp32_precision = "ieee"

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                for part, precision in self.saved:
                    part.fp32_precision = "none"  # as it was, if it has this from a setting for more than this part
                    if part.fp32_precision != precision:
                        part.fp32_precision = precision


exact_products = ExactProducts()


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next pass, instead of returning every large tensor's pages.

    Fresh pages cost a CPU about a twentieth of a forward pass. Without glibc it does nothing. It affects the
    whole process, so only our own programs call it.
    """
    with contextlib.suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        glibc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def compile_or_not(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile` of a function; once the compiler fails, it warns and calls the function without compiling.

    The first axis of the second argument may have any length: it is the number of images, which differs at an epoch's
    end.
    """
    compiled: Callable[..., Any] | None = torch.compile(function)

    @functools.wraps(function)
    def call(first: Any, x: torch.Tensor, *rest: Any) -> Any:
        nonlocal compiled
        if compiled is None:
            return function(first, x, *rest)
        if x.shape[0] > 1:  # torch always compiles a length of one apart
            torch._dynamo.mark_dynamic(x, 0)
        try:
            return compiled(first, x, *rest)
        except TorchDynamoException as error:  # of all of the compiler's stages, also when it compiles again
            cause = getattr(error, "inner_exception", error)  # the first line of one that wraps another says nothing
            reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
            tqdm.write(f"warning: torch.compile failed, continuing without it: {reason}", file=sys.stderr)
            compiled = None
            return function(first, x, *rest)

    return call


def available_memory() -> int:
    """Bytes of RAM that this process may still take: the machine's, or its container's where that is less."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # if the system does not say
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max", no limit
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
        available = min(available, max(limit - used, 0))
    return available


def device_name(device: torch.device) -> str:
    """The GPU's or the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError, StopIteration):  # only Linux has the file, and not every processor the line
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    return platform.processor() or "cpu"


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, for the record beside every result."""
    packages = ("torchvision", "openai-clip", "numpy", "scipy", "pandas", "Pillow", "safetensors", "omegaconf")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "mgs": mgs.__version__,
        "packages": {"torch": str(torch.__version__), **{name: metadata.version(name) for name in packages}},
    }

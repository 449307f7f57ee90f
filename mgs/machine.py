"""What every room needs to know of the machine: device, precision, memory, versions."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import random
import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import mgs
from mgs.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - third-party code draws from the global generator
    torch.manual_seed(seed)


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

"""Read tensors from untrusted files: no code in a file is run, and nothing but tensors is taken from it."""

from __future__ import annotations

import math
import pickle
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor

SCRIPT_CLASSES = "__torch__"  # TorchScript's names for its own classes begin with this
DTYPES = {"FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16}
DTYPES |= {"DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32}
DTYPES |= {"BoolStorage": torch.bool, "ByteStorage": torch.uint8, "CharStorage": torch.int8}
MOST_PARTS = 100_000
DEEPEST = 20  # modules within modules; CLIP has five


def read_weights(path: Path) -> Any:
    """What a weights file holds: a TorchScript archive's tensors by name, or the content of a `.safetensors` or `.pt`.

    Raises whatever the readers of these formats raise; none of them runs code from the file.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            read = [part for part in archive.infolist() if part.filename.split("/")[1:2] != ["code"]]
            if any(part.compress_type != zipfile.ZIP_STORED for part in read):
                raise ValueError("compressed parts, which torch does not write and which may unpack to any size")
    if is_torchscript(path):
        return read_torchscript(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def as_tensors(content: Any) -> dict[str, Tensor]:
    """The content as a dict of tensors that are what they claim to be; `ValueError` naming the first that is not."""
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise ValueError("not a dict of tensors by name")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}: a {type(value).__name__}, not a tensor")
        plain = value.layout == torch.strided and not value.is_nested and value.device.type == "cpu"
        if not plain or value.dtype not in DTYPES.values():
            raise ValueError(f"{name}: not an ordinary tensor")
        if value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{name}: shape {tuple(value.shape)} claims more numbers than the file holds")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name}: holds numbers that are not finite")
    return dict(content)


def is_torchscript(path: Path) -> bool:
    """Whether the file is TorchScript, which carries code beside its tensors, rather than a saved state dict."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive, as OpenAI ships its CLIPs, by their names in the state dict.

    Only the archive's data is read. Its code is not even opened, while `torch.jit.load` would run some of it.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("not in little-endian byte order")
        with archive.open(f"{root}data.pkl") as data:
            return dict(walk(ScriptReader(data, archive, f"{root}data/").load(), "", DEEPEST, iter(range(MOST_PARTS))))


class Module:
    """Replaces an object of any class in the archive's code: it has the object's data and none of its methods."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class ScriptReader(pickle._Unpickler):
    """Unpickles tensors, numbers, lists and dicts, and puts `Module` in place of classes; anything else is an error.

    It is the standard library's unpickler written in Python: the one in C allocates as much memory as a file claims.
    In Python the opcode BYTEARRAY8 does so too. So only the opcodes of protocol 2 are known, which TorchScript writes.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        ord(code.code): pickle._Unpickler.dispatch[ord(code.code)] for code in pickletools.opcodes if code.proto <= 2
    }

    def __init__(self, data: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(data)
        self.archive, self.folder = archive, folder
        self.storages: dict[str, Tensor] = {}

    def load_build(self) -> None:
        """Give an object its state. Only modules may have one: torch's tensors would allocate what a file claims."""
        if not isinstance(self.stack[-2], Module):  # type: ignore[attr-defined]
            raise pickle.UnpicklingError("a state for what is no module")
        super().load_build()  # type: ignore[misc]

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == SCRIPT_CLASSES:
            return Module
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) not in FUNCTIONS:
            raise pickle.UnpicklingError(f"{module}.{name} is not a tensor")
        return FUNCTIONS[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("not a storage of numbers")
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.folder}{key}"))
            self.storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self.storages[key]


def rebuild_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """A tensor as a part of a storage; torch refuses one that reaches beyond it."""
    if math.prod(size) > len(storage):
        raise pickle.UnpicklingError("a tensor of more numbers than its storage has")
    return storage.as_strided(tuple(size), tuple(stride), offset)


def keep_value(value: Any, *_: Any) -> Any:
    """The value, unchanged; used in place of TorchScript's helpers for typed lists and dicts."""
    return value


FUNCTIONS = {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("collections", "OrderedDict"): dict,
    **{("torch.jit._pickle", f"build_{kind}list"): keep_value for kind in ("int", "tensor", "double", "bool")},
    ("torch.jit._pickle", "restore_type_tag"): keep_value,
}


def walk(value: Any, name: str, depth: int, budget: Iterator[int]) -> Iterator[tuple[str, Tensor]]:
    """All tensors in a tree of modules, with their full names; each part that is visited takes one item of `budget`.

    A file of 2 KB can refer to one module from so many places that the walk would take years.
    """
    if next(budget, None) is None:
        raise ValueError(f"more than {MOST_PARTS:,} parts")
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Module) and isinstance(value.state, dict) and depth:
        for key, part in value.state.items():
            yield from walk(part, f"{name}.{key}".lstrip("."), depth - 1, budget)

"""Read pickled requests of plain data. No pickle of a stranger may run anything, or fill the memory."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Sequence
from typing import Any

from mgs.images.metadata import as_text
from mgs.serve.limits import Refused

PICKLE = b"\x80"  # how protocols 2 and later begin
PICKLED = "application/octet-stream"
MOST_STEPS = 20_000  # a list costs one byte of a pickle and sixty of memory; images and texts are one step each
DATA = {
    *("PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("EMPTY_LIST", "APPEND", "APPENDS"),
    *("EMPTY_DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
}
ARRAY = {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"}  # with these, numpy's arrays are written, and code is run
PLACES = {"LONG_BINPUT", "LONG_BINGET"}  # whose number is one of the memo, which has as many places


class DType:
    """Stands for numpy's `dtype`."""

    def __init__(self, kind: str, *_: Any) -> None:
        self.kind = kind

    def __setstate__(self, _: Any) -> None:
        return


class Array:
    """Stands for numpy's array of texts, which trainers make of their prompts by `np.array_split`."""

    texts: Sequence[Any] = ()

    def __init__(self, *_: Any) -> None:
        return

    def __setstate__(self, state: tuple[int, tuple[int, ...], DType, bool, Any]) -> None:
        """Read what numpy keeps of an array: texts of equal width, or a list of objects."""
        _, shape, dtype, _, data = state
        width = int(dtype.kind[1:]) if dtype.kind[0] == "U" and dtype.kind[1:].isdecimal() else 0
        if len(shape) != 1 or not (isinstance(data, list) or (width and isinstance(data, bytes))):
            raise ValueError("an array of other things than texts")
        self.texts = data if isinstance(data, list) else cut_texts(data, 4 * width)


def cut_texts(data: bytes, size: int) -> list[str]:
    """Texts of so many bytes each, in UTF-32, filled up with zeros, as numpy keeps them."""
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return [part.decode("utf-32-le", "replace").rstrip("\0") for part in parts]


def array_of_buffer(data: bytes | bytearray, dtype: DType, shape: tuple[int, ...], *_: Any) -> Array:
    """Stands for the function by which protocol 5 makes an array."""
    array = Array()
    array.__setstate__((1, shape, dtype, False, bytes(data)))
    return array


class PlainUnpickler(pickle.Unpickler):
    """Makes plain data alone. The names by which numpy writes arrays get the stand-ins above, other names nothing."""

    NAMES = {  # noqa: RUF012 - never changed
        ("numpy", "dtype"): DType,
        ("numpy", "ndarray"): Array,
        ("numpy.core.multiarray", "_reconstruct"): Array,
        ("numpy._core.multiarray", "_reconstruct"): Array,
        ("numpy.core.numeric", "_frombuffer"): array_of_buffer,
        ("numpy._core.numeric", "_frombuffer"): array_of_buffer,
    }

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in. Raises `Refused` for any other name."""
        if (module, name) not in self.NAMES:
            remedy = "send lists, dicts, text, numbers and bytes, by protocol 3 or later"
            raise Refused(422, f"the pickle: holds {as_text(module)}.{as_text(name)}; {remedy}")
        return self.NAMES[module, name]


def read_pickle(body: bytes) -> Any:
    """The lists, dicts, texts, numbers and bytes of a pickle, protocol 3 or later. Raises `Refused` for others."""
    try:
        for count, (step, value, _) in enumerate(pickletools.genops(body)):
            if step.name not in DATA | ARRAY:
                remedy = "send lists, dicts, text, numbers and bytes, by protocol 3 or later"
                raise Refused(422, f"the pickle: holds more than plain data ({step.name}); {remedy}")
            if count > MOST_STEPS or (step.name in PLACES and int(value or 0) > MOST_STEPS):
                raise Refused(413, f"the pickle: more than {MOST_STEPS:,} parts; send fewer images at once")
        return PlainUnpickler(io.BytesIO(body)).load()
    except Refused:
        raise
    except Exception as error:  # pickle and pickletools raise what they like on damage
        raise Refused(422, f"the body: not a whole pickle ({error}); send it again") from None

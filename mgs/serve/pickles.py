"""Read pickled requests of plain data. No pickle of a stranger may run anything, or fill the memory."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

from mgs.serve.limits import Refused

PICKLE = b"\x80"  # how protocols 2 and later begin
PICKLED = "application/octet-stream"
MOST_STEPS = 20_000  # a list costs one byte of a pickle and sixty of memory; images and texts are one step each
# no tuples: as keys of dicts, nested ones that share their parts take for ever to hash
DATA = {
    *("PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("EMPTY_LIST", "APPEND", "APPENDS"),
    *("EMPTY_DICT", "SETITEM", "SETITEMS"),
}
PLACES = {"LONG_BINPUT", "LONG_BINGET"}  # whose number is one of the memo, which has as many places


class PlainUnpickler(pickle.Unpickler):
    """Makes nothing but plain data, should a step that is not among `DATA` ever get here."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse any class and function."""
        raise pickle.UnpicklingError(f"{module}.{name}")


def read_pickle(body: bytes) -> Any:
    """The lists, dicts, texts, numbers and bytes of a pickle, protocol 3 or later. Raises `Refused` for others."""
    try:
        for count, (step, value, _) in enumerate(pickletools.genops(body)):
            if step.name not in DATA:
                remedy = "send lists, dicts, text, numbers and bytes, by protocol 3 or later"
                raise Refused(422, f"the pickle: holds more than plain data ({step.name}); {remedy}")
            if count > MOST_STEPS or (step.name in PLACES and int(value or 0) > MOST_STEPS):
                raise Refused(413, f"the pickle: more than {MOST_STEPS:,} parts; send fewer images at once")
        return PlainUnpickler(io.BytesIO(body)).load()
    except Refused:
        raise
    except Exception as error:  # pickle and pickletools raise what they like on damage
        raise Refused(422, f"the body: not a whole pickle ({error}); send it again") from None

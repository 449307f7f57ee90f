"""The texts that an image file holds beside its pixels, by the names of their places; no pixel is decoded.

Files come from strangers. So what is read, unpacked and kept is bounded, and damage costs a text, never an error.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

from PIL import Image

from mgs.images.decode import FORMATS, MAX_BYTES

MAX_TEXT = 1 << 22  # bytes of one text, unpacked; ComfyUI's graphs have up to a million
MAX_TEXTS = 64  # of one file, also those that say nothing
MAX_ALL = 2 * MAX_TEXT  # bytes of them together, after which no more are read
MAX_CHUNKS = 1 << 17  # of a PNG; the largest that is scored has some 70,000
MAX_TAGS = 512  # of an EXIF folder
PNG = b"\x89PNG\r\n\x1a\n"
XMP = "XML:com.adobe.xmp"  # what PNG calls it, and Pillow "xmp"
EXIF_TAGS = {  # the texts among them, as fields' names have them
    **{0x010D: "DocumentName", 0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software"},
    **{0x013B: "Artist", 0x8298: "Copyright", 0x9286: "UserComment", 0x927C: "MakerNote"},
}
EXIF_FOLDER = 0x8769  # the tag that says where the second folder of tags begins
TEXT_KINDS = (1, 2, 7)  # of EXIF's types, those with one byte to a value: byte, ASCII, undefined
XMP_NAMES = {"description": "xmp:description", "UserComment": "xmp:UserComment", "CreatorTool": "xmp:CreatorTool"}


def read_fields(file: Path | bytes) -> dict[str, str]:
    """The texts of an image file, or of its content: PNG's by their keywords, others as in "exif:UserComment".

    Empty for what is no image, or no file.
    """
    with contextlib.suppress(OSError, ValueError), open_regular(file) as stream:
        found = png_texts(stream) if stream.read(len(PNG)) == PNG else other_texts(stream)
        fields: dict[str, str] = {}
        size = 0
        for name, data in itertools.islice(found, MAX_TEXTS):
            for key, text in parse_exif(data) if name == "exif" else [(name, decode(data))]:
                if text := text.strip("\0 \r\n\t"):
                    fields.setdefault(key, text)
            size += len(data)
            if size > MAX_ALL:
                break
        return fields | parse_xmp(fields.get(XMP, ""))
    return {}


def open_regular(file: Path | bytes) -> BinaryIO:
    """A stream of a file's content. `OSError` for what is no file, such as a pipe, and for more than an image has."""
    if isinstance(file, bytes):
        return io.BytesIO(file)
    status = file.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
        raise OSError("no file that is read")
    return file.open("rb")


def png_texts(stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """The texts of a PNG that is read up to its chunks, also those behind the pixels."""
    for _ in range(MAX_CHUNKS):
        head = stream.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"comf") or length > MAX_TEXT:
            stream.seek(length + 4, io.SEEK_CUR)  # 4 bytes of checksum
            continue
        data = stream.read(length)
        stream.seek(4, io.SEEK_CUR)
        key, _, rest = data.partition(b"\0")
        if kind == b"eXIf":
            yield "exif", data
        elif kind in (b"tEXt", b"comf"):  # the latter is ComfyUI's own
            yield key.decode("latin-1"), rest
        elif kind == b"zTXt":
            yield key.decode("latin-1"), unpack(rest[1:])
        elif rest.count(b"\0", 2) >= 2:
            text = rest[2:].split(b"\0", 2)[2]  # past the language and the translated key
            yield key.decode("latin-1"), unpack(text) if rest[0] else text


def unpack(data: bytes) -> bytes:
    """What zlib packed; nothing if that is damaged, or above the limit."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, MAX_TEXT)
    except zlib.error:
        return b""
    return b"" if unpacker.unconsumed_tail else text


def other_texts(stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """The texts of the other formats, as far as Pillow finds them without decoding."""
    stream.seek(0)
    try:
        with Image.open(stream, formats=FORMATS) as picture:
            info = dict(picture.info)
    except Exception:  # parsers raise what they like on damage
        return
    for name, key in {"exif": "exif", "comment": "comment", "xmp": XMP}.items():
        data = info.get(name)
        if isinstance(data, bytes) and len(data) <= MAX_TEXT:
            yield key, data


def parse_exif(data: bytes) -> Iterator[tuple[str, str]]:
    """The texts of EXIF's first folder and of the one that it names.

    Pillow's reader would copy the whole once per tag, if every tag points to it.
    """
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return
    wanted = dict(EXIF_TAGS)  # each is read once, however often a folder has it
    folders = [struct.unpack_from(f"{order}I", data, 4)[0]]
    for start in folders:
        count = struct.unpack_from(f"{order}H", data, start)[0] if start + 2 <= len(data) else 0
        for at in range(start + 2, min(start + 2 + 12 * min(count, MAX_TAGS), len(data) - 11), 12):
            tag, kind, size = struct.unpack_from(f"{order}HHI", data, at)
            (place,) = struct.unpack_from(f"{order}I", data, at + 8)
            if tag == EXIF_FOLDER and len(folders) == 1:
                folders.append(place)
            elif tag in wanted and kind in TEXT_KINDS:
                value = data[at + 8 : at + 8 + size] if size <= 4 else data[place : place + size]
                yield f"exif:{wanted.pop(tag)}", decode_comment(value, order)


def decode_comment(value: bytes, order: str) -> str:
    """A text of EXIF; eight bytes before a comment name its encoding, but not the order of UTF-16's bytes."""
    name, text = value[:8], value[8:]
    if name in (b"ASCII\0\0\0", b"JIS\0\0\0\0\0", bytes(8)):
        return decode(text)
    if name != b"UNICODE\0":
        return decode(value)
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return text.decode("utf-16", "replace")
    # the upper bytes of Latin letters are zeros; where there are none, the file's own order is a guess
    first, second = text[::2].count(0), text[1::2].count(0)
    big = order == ">" if first == second else first > second
    return text.decode("utf-16-be" if big else "utf-16-le", "replace")


def decode(data: bytes) -> str:
    """Bytes as UTF-8, which many programs write in every place, else as Latin-1, which PNG and EXIF ask for."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse_xmp(text: str) -> dict[str, str]:
    """The descriptions of an XMP document; nothing of one that is damaged or declares entities."""
    if not text or "<!" in text.replace("<!--", ""):
        return {}
    try:
        root = ElementTree.fromstring(text[text.find("<") :].encode("utf-8", "replace"))
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError):
        return {}
    found: dict[str, str] = {}
    for element in root.iter():
        for name in (str(element.tag), *element.attrib):
            key = XMP_NAMES.get(name.rpartition("}")[2])
            if key and key not in found:  # each is read once, however deep such elements are nested
                found[key] = (element.get(name) or "".join(element.itertext())).strip()
    return {key: text for key, text in found.items() if text}

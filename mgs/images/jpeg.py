"""Walk through a JPEG's markers, which tell where its pixels begin, and whether all of them are there."""

from __future__ import annotations

import re

MOST_SCANS = 50  # encoders write about ten; each may take as long as decoding a whole picture
MARKER = re.compile(rb"\xff([^\x00\xff])")  # within coded pixels a byte FF is followed by 00
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
LENGTHLESS = {0x01, *range(0xD0, 0xD9)}  # restarts within coded pixels, and the start of the image


def check_jpeg(data: bytes) -> None:
    """Raise `ValueError` for a JPEG whose end is missing, or that would take very long to decode.

    libjpeg turns missing pixels into grey. The end is the first image's: thumbnails within a header, and what follows
    the image, have ends of their own.
    """
    at, scans = 0, 0
    while found := MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            return
        if marker in LENGTHLESS:
            continue
        at += int.from_bytes(data[at : at + 2], "big")
        scans += marker == START_OF_SCAN
        if scans > MOST_SCANS:
            raise ValueError(f"the JPEG draws its pixels in more than {MOST_SCANS} scans; save it again")
    raise ValueError("the end of the JPEG is missing")

"""The page's files, by the address that each is asked for."""

from __future__ import annotations

import mimetypes
from importlib import resources
from typing import NamedTuple


class PageFile(NamedTuple):
    """A file's content and type."""

    content: bytes
    kind: str | None


def read_page() -> dict[str, PageFile]:
    """The files of mgs/serve/page/; its index is at `/`."""
    return {
        "/" if file.name == "index.html" else f"/{file.name}": PageFile(
            file.read_bytes(), mimetypes.guess_type(file.name)[0]
        )
        for file in resources.files("mgs.serve").joinpath("page").iterdir()
    }


PAGE = read_page()

"""Image formats that Pillow reads with a plugin: known by their first bytes, read where the plugin is installed."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Plugin:
    """A package that adds a format to Pillow."""

    name: str
    kind: str  # Pillow's name for it
    suffixes: tuple[str, ...]
    module: str
    package: str  # what pip calls it
    register: str | None = None  # a function to call; without one, the import registers the format

    def ready(self) -> bool:
        """Whether Pillow reads the format, with the plugin registered if it is installed."""
        if self.kind not in Image.OPEN:
            try:
                module = importlib.import_module(self.module)
                if self.register:
                    getattr(module, self.register)()
            except Exception:  # not installed, or its libraries do not load
                return False
        return self.kind in Image.OPEN

    @property
    def remedy(self) -> str:
        """What to do if the plugin is missing."""
        return f"run pip install {self.package}, or convert to PNG or JPEG"


HEIF = Plugin("HEIC", "HEIF", (".heic", ".heif", ".hif"), "pillow_heif", "pillow-heif", "register_heif_opener")
JXL = Plugin("JPEG XL", "JXL", (".jxl",), "pillow_jxl", "pillow-jxl-plugin")
PLUGINS = {suffix: plugin for plugin in (HEIF, JXL) for suffix in plugin.suffixes}
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # ISO/IEC 23008-12
JXL_STARTS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")  # ISO/IEC 18181-2: a bare codestream, a container


def needed_plugin(data: bytes) -> Plugin | None:
    """The plugin that a file of these bytes needs; None for all other formats, AVIF among them."""
    if data.startswith(JXL_STARTS):
        return JXL
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS and b"avif" not in data[16:64]:
        return HEIF
    return None

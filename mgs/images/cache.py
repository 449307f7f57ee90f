"""Pictures decoded once and kept on the GPU, in RAM or on disk, by content, so that a changed file is never stale."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mgs.config import ImagePlace
from mgs.errors import UserError
from mgs.files import UNFINISHED, free_disk, whole_file
from mgs.images.cuts import Cuts, refuse_too_small
from mgs.images.decode import BadImage, decode_image, read_bytes, read_image
from mgs.machine import available_memory
from mgs.progress_bar import progress

DECODING = "srgb8-3"  # sRGB, 8 bits, decoder version 3; part of every cache key, as the fit is
IMAGES, ACTIVATIONS = KEPT_ON_DISK = ("images", "activations")  # what lies in data.cache_folder
MARK = "CACHEDIR.TAG"  # a file in each of these folders; backup programs know it too, see https://bford.info/cachedir/
MARK_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by MGS, and removed by: python -m mgs clean\n"
ABSENT = (FileNotFoundError, NotADirectoryError, ValueError, EOFError)  # numpy's for a damaged file are the last two
MGS_CUTS = Cuts()
OURS = re.compile(r"[0-9a-f]{64}\.npy")  # names of the files in these folders
DECODERS = 8  # threads
MEMORY_SHARE, DISK_SHARE = (
    0.25,
    0.5,
)  # shares of the free GPU memory or RAM, and of the free disk, that `auto` may use for pictures


@dataclass
class Room:
    """A place for pictures, and how many more bytes it may hold."""

    place: ImagePlace
    left: float


class ImageCache:
    """Decoded pictures by path. `fill` reads every file, and so checks that each is whole.

    `folder` is `data.cache_folder`. Pictures on disk are memory-mapped files, one each, that other runs can use too.
    """

    def __init__(self, folder: Path, cuts: Cuts = MGS_CUTS) -> None:
        """`cuts` say how large pictures are made, and which are too small."""
        self.folder, self.cuts = folder / IMAGES, cuts
        self.keys: dict[Path, str] = {}  # path -> hash of the file's content and of how it is decoded
        self.pictures: dict[str, Tensor] = {}  # in RAM or on the GPU
        self.on_disk: set[str] = set()

    def fill(self, paths: Iterable[Path], place: ImagePlace, device: torch.device) -> dict[Path, str]:
        """Decode every file that is not there yet, and return those that fail, each with its reason.

        `auto` keeps a picture in the first of these with room for it: the GPU (a quarter of its free memory), RAM (a
        quarter of what is available), disk (half of what is free); what fits nowhere is decoded again when it is read.
        """
        rooms = self.find_rooms(place, device)

        def load(path: Path) -> tuple[Path, str | None]:
            try:
                self.load(path, rooms, device)
            except BadImage as error:
                return path, str(error)
            return path, None

        distinct = sorted(set(paths))
        with ThreadPoolExecutor(DECODERS) as pool:
            loaded = progress(
                pool.map(load, distinct), total=len(distinct), desc="reading images", unit="image", delay=2
            )
            return {path: reason for path, reason in loaded if reason}

    def load(self, path: Path, rooms: list[Room], device: torch.device) -> None:
        """Hash one file and decode it, unless its picture is known. Raises `BadImage`."""
        data = read_bytes(path)
        self.keys[path] = key = hashlib.sha256(f"{DECODING} {self.cuts.fit}".encode() + data).hexdigest()
        if key in self.pictures or key in self.on_disk:
            return
        if any(room.place == "disk" for room in rooms) and has_array(self.file(key)):
            self.on_disk.add(key)
            return
        picture = refuse_too_small(decode_image(data, path, self.cuts.fit), self.cuts, path)
        room = next((room for room in rooms if picture.nbytes <= room.left), None)
        if room is None:
            return
        room.left -= picture.nbytes
        if room.place == "disk":
            mark_cache(self.folder)
            write_array(self.file(key), picture.numpy())
            self.on_disk.add(key)
        else:
            self.pictures[key] = picture.to(device) if room.place == "gpu" else picture

    def find_rooms(self, place: ImagePlace, device: torch.device) -> list[Room]:
        """The places where pictures may go, best first; a place that the config names has no limit."""
        if place == "none":
            return []
        if place == "gpu" and device.type != "cuda":
            raise UserError(f"data.cache=gpu: the device is {device.type}; use data.cache=auto, ram, disk or none")
        if place != "auto":
            return [Room(place, float("inf"))]
        rooms = [Room("ram", MEMORY_SHARE * available_memory())]
        if device.type == "cuda":
            rooms.insert(0, Room("gpu", MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]))
        return [*rooms, Room("disk", DISK_SHARE * free_disk(self.folder))]

    def file(self, key: str) -> Path:
        """Where a picture lies on disk."""
        return self.folder / key[:2] / f"{key}.npy"

    def read(self, path: Path) -> Tensor:
        """A picture, uint8 RGB, (3, H, W), as `images.read_image` gives it."""
        key = self.keys.get(path, "")
        if key in self.on_disk and (kept := read_array(self.file(key))) is not None:
            return torch.from_numpy(kept)
        return self.pictures[key] if key in self.pictures else read_image(path, self.cuts.fit)


def mark_cache(folder: Path) -> None:
    """Make a cache folder, with the mark by which `remove_cache` recognises it."""
    if not (folder / MARK).exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(MARK_TEXT, encoding="utf-8")


def remove_cache(folder: Path) -> int:
    """Remove what was kept in `data.cache_folder`; returns the bytes freed.

    Removes only files with the cache's own names, in folders with the cache's mark: a dataset's images may also lie in
    a folder called images. Raises `UserError` if there are files but no mark.
    """
    freed = 0
    for kept in (folder / name for name in KEPT_ON_DISK):
        if not kept.is_dir():
            continue
        if not (kept / MARK).is_file():
            raise UserError(f"{kept}: has no {MARK}, so it is no cache of ours and stays; remove it yourself if it is")
        for path in kept.glob("*/*"):
            if OURS.fullmatch(path.name) or path.name.startswith(UNFINISHED):
                freed += path.stat().st_size
                path.unlink()
        folders = [path for path in kept.iterdir() if path.is_dir() and not path.is_symlink()]
        for empty in [path for path in folders if not any(path.iterdir())]:
            empty.rmdir()
        if list(kept.iterdir()) == [kept / MARK]:
            (kept / MARK).unlink()
            if not kept.is_symlink():
                kept.rmdir()
    return freed


def read_array(path: Path) -> np.ndarray | None:
    """A kept array; None where there is none, or what a crash left of one. It holds no file open."""
    try:
        array: np.ndarray = np.load(path)
    except ABSENT:
        return None
    return array


def has_array(path: Path) -> bool:
    """Whether `read_array` would find an array, without reading all of it."""
    try:
        np.load(path, mmap_mode="r")  # which compares the file's length with what its header says
    except ABSENT:
        return False
    return True


def write_array(path: Path, array: np.ndarray) -> None:
    """Keep an array, wholly or not at all; it can be made again, so it need not survive a power cut."""
    with whole_file(path, durable=False) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)

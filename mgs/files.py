"""Write files wholly or not at all, let only one process write at a time, and keep paths inside their folder."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mgs.errors import UserError

_held: set[str] = set()  # locks of this process; the system lets a process take its own lock twice
UNFINISHED = ".unfinished."  # the start of the name of a file that is being written
UMASK = os.umask(0)
os.umask(UMASK)  # it can only be read by setting it, which other threads would notice later on


def free_disk(folder: Path) -> int:
    """Free bytes of the disk that a folder lies on; the folder need not exist yet."""
    folder = folder.absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; 0 where it is not there."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Write a file wholly or not at all: yields a temporary path in the same folder, renamed to `path` on success.

    `durable` waits until content and name are on the disk, so that they outlive a power cut. A system error that
    names no file is raised again with the name of `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=f"{UNFINISHED}{path.name}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(path, instead_of=temporary):
            yield temporary
            if durable:
                flush_to_disk(temporary)
            temporary.chmod(0o666 & ~UMASK)  # mkstemp makes it readable by its owner alone
            temporary.replace(path)
            if durable:
                flush_to_disk(path.parent)
    finally:
        with contextlib.suppress(OSError):  # must not replace the error that is being raised
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path, *, instead_of: Path | None = None) -> Iterator[None]:
    """Add the name of `path` to a system error that names no file, such as that of a write on a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename and os.fsdecode(error.filename) != str(instead_of)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def flush_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folder
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Remove the unfinished files that killed processes left, or those of one file; none may be writing now."""
    for path in folder.glob(f"{UNFINISHED}{glob.escape(name)}.*" if name else f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file, removed afterwards; `UserError` saying that `what` is in use where another process holds it.

    With `wait`, wait for that process instead; use it for work that is done quickly.

    A process that dies releases its locks. Worker processes do not inherit them, so workers that outlive a killed
    trainer hold nothing. A file system without locks keeps nobody out.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if (key := os.path.realpath(path)) in _held:
        raise UserError(f"{what}: in use by this same process; wait for that to end")
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # some network file systems
                break
            holder = os.read(handle, 100).decode(errors="replace").strip()
            os.close(handle)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise UserError(f"{what}: in use by another process ({holder}); wait for it to end, or stop it") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        os.close(handle)  # the last holder removed the file between our opening and locking it
    _held.add(key)
    try:
        with naming(path):
            os.truncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
        yield
    finally:
        _held.discard(key)
        path.unlink(missing_ok=True)
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether a process, this one too, holds a lock file; one that a dead process left is removed."""
    if not path.exists():
        return False
    try:
        with locked(path, ""):
            return False
    except UserError:
        return True


class Fence:
    """Checks whether files really lie below a folder, past `..`, absolute paths and links; the folder may be a link."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self.folders: dict[str, str] = {}  # path as written -> path without links

    def holds(self, path: Path | str) -> bool:
        """Whether the path, which need not exist, leads to a place below the folder."""
        try:
            possible = b"\0" not in os.fsencode(path)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            return True  # no file can have this name
        folder, name = os.path.split(path)
        if name in ("", ".", "..") or os.path.islink(path):
            real = os.path.realpath(path)
        else:
            if folder not in self.folders:
                self.folders[folder] = os.path.realpath(folder)
            real = os.path.join(self.folders[folder], name)
        return real.startswith(os.path.join(self.root, ""))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, wholly or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def without_nan(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row for JSON, which has no NaN: an undefined figure is null."""
    return {str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

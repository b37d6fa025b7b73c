"""Directories of the local file system."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Linux takes at most 1024 buffers in one call.
_MAX_BUFFERS = 1024


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FileBlob:
    """A local file, read by offset: safe in threads and after a fork.

    It is closed when nobody refers to it any more, so that a reader of many files may forget one
    which another thread is still reading.
    """

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self.descriptor).st_size

    def tail(self, nbytes: int) -> bytes:
        """Return the last bytes of the file."""
        return os.pread(self.descriptor, nbytes, max(0, self.size - nbytes))

    def read_into(self, offset: int, buffers: Sequence[NDArray[np.uint8]]) -> int:
        """Read with as few system calls as possible, straight into the buffers."""
        total = 0
        for i in range(0, len(buffers), _MAX_BUFFERS):
            batch: list[Any] = list(buffers[i : i + _MAX_BUFFERS])
            wanted = sum(len(buffer) for buffer in batch)
            got = os.preadv(self.descriptor, batch, offset + total)
            while 0 < got < wanted:
                rest: list[Any] = _after(batch, got)
                more = os.preadv(self.descriptor, rest, offset + total + got)
                if more == 0:
                    return total + got
                got += more
            total += got
            if got < wanted:
                return total
        return total

    def __del__(self) -> None:
        # Not there when opening failed.
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _after(buffers: Sequence[NDArray[np.uint8]], count: int) -> list[NDArray[np.uint8]]:
    """Return what is left of the buffers after the first `count` bytes."""
    rest = []
    for buffer in buffers:
        skip = min(count, len(buffer))
        count -= skip
        if skip < len(buffer):
            rest.append(buffer[skip:])
    return rest


@dataclass(frozen=True)
class Directory:
    """A directory of the local file system."""

    root: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.root)

    @property
    def path(self) -> Path:
        """The path."""
        return self.root

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        total = 0
        for file in self.files():
            # A writer at work may have renamed it since.
            with contextlib.suppress(OSError):
                total += file.stat().st_size
        return total

    def files(self, key: str = "") -> Iterator[Path]:
        """Find every file below; what others remove meanwhile may be left out."""
        # Not `Path.rglob`, which raises where a folder goes before it is looked into.
        for folder, _, names in os.walk(self.root / key):
            yield from (Path(folder, name) for name in names)

    def read(self, key: str) -> bytes:
        """Return a file's contents."""
        return (self.root / key).read_bytes()

    def write(self, key: str, data: Buffer, *, durable: bool = False) -> None:
        """Write a file beside the old one and rename it over that."""
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".new-{os.getpid()}-{threading.get_ident()}-{target.name}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_directory(target.parent)

    def take(self, key: str, file: Path) -> None:
        """Move a file, of the same file system, to a key."""
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)

    def open(self, key: str) -> FileBlob:
        """Open a file by descriptor."""
        return FileBlob(self.root / key)

    def exists(self, key: str) -> bool:
        """Whether there is such a file or directory."""
        return (self.root / key).exists()

    def names(self, key: str = "") -> list[str]:
        """Return what the directory holds; nothing where there is none."""
        try:
            return sorted(os.listdir(self.root / key))  # noqa: PTH208 - faster on 10,000 names
        except (FileNotFoundError, NotADirectoryError):
            return []

    def delete(self, key: str) -> None:
        """Remove a file or a tree."""
        target = self.root / key
        if target.is_dir() and not target.is_symlink():
            import shutil

            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

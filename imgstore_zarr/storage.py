"""Where recordings lie: a directory, or any Zarr store, behind one small interface.

Keys are relative to the recording and separated by ``/``, as in Zarr.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import RecordingAccessError, UnsupportedFormatError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from typing_extensions import Buffer
    from zarr.abc.store import ByteRequest, Store

METADATA_FILES = ("metadata.yaml", "zarr.json")
"""Files inside a recording that may be given in its place."""

# Linux takes at most 1024 buffers in one call.
_MAX_BUFFERS = 1024

_T = TypeVar("_T")


class Blob(Protocol):
    """An object of bytes that can be read at any offset, from several threads, until it is forgotten."""

    def tail(self, nbytes: int) -> bytes:
        """Return the last bytes, fewer where the object is shorter."""
        ...

    def read_into(self, offset: int, buffers: Sequence[NDArray[np.uint8]]) -> int:
        """Fill the buffers, one after the other, from an offset on; return how much was there."""
        ...


class Location(Protocol):
    """Where one recording lies. Can be pickled."""

    @property
    def name(self) -> str:
        """For messages, and for people."""
        ...

    @property
    def path(self) -> Path | None:
        """The directory, where it is one of the local file system."""
        ...

    def read(self, key: str) -> bytes:
        """Return a whole object.

        Raises
        ------
        FileNotFoundError
            No object has this key.
        """
        ...

    def write(self, key: str, data: Buffer, *, durable: bool = False) -> None:
        """Create or replace an object, all at once: a reader sees the old one or the new one."""
        ...

    def open(self, key: str) -> Blob:
        """Open an object for reading; FileNotFoundError where there is none."""
        ...

    def exists(self, key: str) -> bool:
        """Whether an object, or anything below it, has this key."""
        ...

    def names(self, key: str = "") -> list[str]:
        """Return the names directly below a key, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object or everything below a key; one that is not there is no error."""
        ...


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


@dataclass(frozen=True)
class StoreBlob:
    """An object of a Zarr store; every read is one request."""

    store: Store
    key: str

    def tail(self, nbytes: int) -> bytes:
        """Return the last bytes, by a suffix request."""
        from zarr.abc.store import SuffixByteRequest

        data = _get(self.store, self.key, SuffixByteRequest(nbytes))
        # Asked for more than there is, zarr's MemoryStore gives less than there is.
        return data if len(data) == nbytes else _get(self.store, self.key, None)[-nbytes:]

    def read_into(self, offset: int, buffers: Sequence[NDArray[np.uint8]]) -> int:
        """Read one range and hand it out."""
        from zarr.abc.store import RangeByteRequest

        wanted = sum(len(buffer) for buffer in buffers)
        data = np.frombuffer(
            _get(self.store, self.key, RangeByteRequest(offset, offset + wanted)), np.uint8
        )
        at = 0
        for buffer in buffers:
            part = data[at : at + len(buffer)]
            buffer[: len(part)] = part
            at += len(part)
        return at


@dataclass(frozen=True)
class ZarrStore:
    """Any ``zarr.abc.store.Store``; the recording is its root, or a group below it."""

    store: Store
    prefix: str = ""

    @property
    def name(self) -> str:
        """The store's own name, and the prefix."""
        return f"{self.store}/{self.prefix}" if self.prefix else str(self.store)

    @property
    def path(self) -> None:
        """None: what a store holds has no path."""
        return

    def _key(self, key: str) -> str:
        return "/".join(part for part in (self.prefix, key) if part)

    def read(self, key: str) -> bytes:
        """Return a whole object, by one request."""
        return _get(self.store, self._key(key), None)

    def write(self, key: str, data: Buffer, *, durable: bool = False) -> None:  # noqa: ARG002
        """Put an object; how durable it is depends on the store."""
        from zarr.core.buffer import default_buffer_prototype

        buffer = default_buffer_prototype().buffer.from_bytes(bytes(data))
        _wait(self.store.set(self._key(key), buffer))

    def open(self, key: str) -> StoreBlob:
        """Return a handle; no request is made, so a missing object shows when it is read."""
        return StoreBlob(self.store, self._key(key))

    def exists(self, key: str) -> bool:
        """Whether the object, or any below it, is there."""
        full = self._key(key)
        return _wait(self.store.exists(full)) or bool(self.names(key))

    def names(self, key: str = "") -> list[str]:
        """Return the names below a key, by one listing."""

        async def listing() -> list[str]:
            return [name async for name in self.store.list_dir(self._key(key))]

        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in _wait(listing()))

    def delete(self, key: str) -> None:
        """Delete an object and everything below it."""
        full = self._key(key)
        if _wait(self.store.exists(full)):
            _wait(self.store.delete(full))
        else:
            _wait(self.store.delete_dir(full))


def _get(store: Store, key: str, byte_range: ByteRequest | None) -> bytes:
    from zarr.core.buffer import default_buffer_prototype

    buffer = _wait(store.get(key, default_buffer_prototype(), byte_range))
    if buffer is None:
        raise FileNotFoundError(f"{store} has no object {key!r}")
    return buffer.to_bytes()


def _wait(coroutine: Coroutine[Any, Any, _T]) -> _T:
    # A store's connections belong to the event loop that opened them, and the user may have opened
    # them through zarr: so its loop is the one to use.
    from zarr.core.sync import sync

    return sync(coroutine)


def _of_store(store: Store) -> Location:
    """A directory that zarr writes to is one here, too, with its locks and its safety."""
    from zarr.storage import LocalStore

    if isinstance(store, LocalStore) and not store.read_only:
        return Directory(Path(os.path.abspath(store.root)))  # noqa: PTH100 - see `locate`
    # Not every method of a ZipStore does that by itself.
    _wait(store._ensure_open())
    return ZarrStore(store)


_LOCATION_METHODS = ("name", "path", "read", "write", "open", "exists", "names", "delete")


def locate(location: object) -> Location:
    """Return where a recording lies.

    Parameters
    ----------
    location
        A path, a ``metadata.yaml`` or ``zarr.json`` inside a recording, a ``file://`` URL, any
        ``zarr.abc.store.Store``, or a `Location`, which is returned as it is.

    Raises
    ------
    UnsupportedFormatError
        A kind of location that is not known.
    """
    if isinstance(location, Directory | ZarrStore):
        return location
    # A store can only be given by somebody who has imported zarr.
    zarr_store = sys.modules.get("zarr.abc.store")
    if zarr_store is not None and isinstance(location, zarr_store.Store):
        return _of_store(location)
    if isinstance(location, str) and "://" in location:
        parts = urlsplit(location)
        if parts.scheme != "file":
            raise UnsupportedFormatError(
                f"locations of the kind {parts.scheme}:// are not opened by their URL; give a path, "
                f"or a Zarr store: zarr.storage.FsspecStore.from_url({location!r}, read_only=True)"
            )
        location = unquote(parts.path)
    if isinstance(location, bytes):
        location = os.fsdecode(location)
    if isinstance(location, str | os.PathLike):
        if not os.fspath(location):
            raise UnsupportedFormatError("the location is an empty path")
        path = Path(location).expanduser()
        if path.name in METADATA_FILES:
            path = path.parent
        return Directory(Path(os.path.abspath(path)))  # noqa: PTH100 - keeps symbolic links
    # Not isinstance: since Python 3.12 that does not see what a wrapper hands on by __getattr__.
    if all(hasattr(location, name) for name in _LOCATION_METHODS):
        return cast("Location", location)
    raise UnsupportedFormatError(
        f"{location!r} is no location: give a path, a file:// URL or a zarr.abc.store.Store"
    )


_PERMISSIONS = "check the permissions of the directory and of those above it"
_ADVICE = {
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.EROFS: "the file system is read-only: check how it is mounted, or choose another place",
    errno.ENOENT: "check that the directory, and those above it, are still there",
    errno.ENOSPC: "make room, or choose another place",
    errno.EDQUOT: "make room, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
} | dict.fromkeys(
    (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY),
    "something else is there: choose another place",
)


def access_error(
    location: Location, doing: str, error: OSError, what: str = ""
) -> RecordingAccessError:
    """Return the error for a location that cannot be read or written, with advice.

    Parameters
    ----------
    location
        The recording.
    doing
        What failed, as a participle.
    error
        Why.
    what
        What became of it.
    """
    refused = isinstance(error, PermissionError)
    known = _PERMISSIONS if refused else "check the storage, and try again"
    found = RecordingAccessError(
        f"{location.name}: {doing} {'was refused' if refused else 'failed'} "
        f"({error.strerror or error}){what and f'; {what}'}; {_ADVICE.get(error.errno or 0, known)}"
    )
    found.errno = error.errno
    return found

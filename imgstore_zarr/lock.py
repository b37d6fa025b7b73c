"""Locks: the right to write to a recording."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import json
import logging
import os
import secrets
import socket
import tempfile
import time
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from imgstore_zarr.errors import ImgStoreError, RecordingLockedError
from imgstore_zarr.interruption import Deferred
from imgstore_zarr.storage import GuardedObject, Location, ReplacedError, access_error

_log = logging.getLogger("imgstore_zarr")

_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)

SPOOL_LOCK = "lock"
"""What is locked in a spool."""

# How long it may take, at most, from making a lock's file to saying in it who holds it.
_MAKING_SECONDS = 30.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as its file says.

    Attributes
    ----------
    host
        The name of the machine.
    pid
        The process.
    started
        When that process began, in clock ticks since the machine did; None where that is not known.
    since
        When it took the lock: ISO 8601, UTC.
    flock
        Whether the kernel keeps the lock; otherwise what is written here is the lock.
    token
        Of this one lock; empty where that is not known.
    spool
        The folder on that machine that holds what the store does not have yet; empty where there is
        none.
    """

    host: str
    pid: int
    started: int | None
    since: str
    flock: bool = True
    token: str = ""
    spool: str = ""

    @classmethod
    def this_process(cls, *, flock: bool = True, spool: str = "") -> Holder:
        """Return this process, now."""
        pid = os.getpid()
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        token = secrets.token_hex(8)
        return cls(socket.gethostname(), pid, _start_of(pid), now, flock, token, spool)

    @classmethod
    def read(cls, file: Path) -> Holder | None:
        """Return what a file says; None where that is nothing."""
        try:
            return cls.parse(file.read_bytes())
        except OSError:
            return None

    @classmethod
    def parse(cls, text: bytes) -> Holder | None:
        """Return what a lock says; None where that is nothing."""
        try:
            document = json.loads(text)
            return cls(
                str(document["host"]),
                int(document["pid"]),
                document["started"],
                str(document["since"]),
                document.get("flock") is not False,
                str(document.get("token", "")),
                str(document.get("spool", "")),
            )
        except (ValueError, KeyError, TypeError, OverflowError):
            return None

    @classmethod
    def stored(cls, location: Location, key: str) -> Holder | None:
        """Return what an object says; None where there is none, or where that is nothing."""
        try:
            return cls.parse(location.read(key))
        except FileNotFoundError:
            return None

    def encode(self) -> bytes:
        """Return what a lock says of this holder."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def is_dead(self) -> bool:
        """Whether it has certainly ended, or given up; of another machine nothing is known."""
        if not self.is_here:
            return False
        if self.spool and (locked := _is_locked(Path(self.spool) / SPOOL_LOCK)) is not None:
            return not locked
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:
            pass  # it is there, and belongs to somebody else
        # Another process may have its number by now.
        started = _start_of(self.pid)
        return None not in (started, self.started) and started != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def _is_locked(file: Path) -> bool | None:
    """Whether somebody holds the lock of a file; None where nobody can say."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return True if error.errno in _HELD else None
    finally:
        os.close(descriptor)
    return False


def _start_of(pid: int) -> int | None:
    """When a process of this machine began; see proc(5), /proc/pid/stat, field 22."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


class HeldLock(Protocol):
    """The right to write, until it is given up."""

    def release(self) -> None:
        """Let others write."""
        ...

    def remove(self) -> None:
        """Let others write, and leave nothing of the lock behind."""
        ...


def take_lock(location: Location, key: str) -> HeldLock:
    """Take the lock of a recording, wherever it lies; see `Lock` and `StoreLock`."""
    if location.path is not None:
        return Lock(location, location.path / key)
    if not can_delete(location):
        return NoLock()
    lock = StoreLock(location, key)
    try:
        lock.take()
    except BaseException:
        lock.remove()
        raise
    return lock


def can_delete(location: Location) -> bool:
    """Whether objects can be removed there; not from a ``ZipStore``."""
    return bool(getattr(getattr(location, "store", None), "supports_deletes", True))


class NoLock:
    """The lock of a store from which it could not be removed: there is none."""

    def release(self) -> None:
        """Do nothing."""

    def remove(self) -> None:
        """Do nothing."""


class StoreLock:
    """An object that says who writes, in a store that is no directory.

    It counts as long as the process that it names may live. Of two that begin at the same moment one is
    refused, certainly so where the store has conditional puts.

    Parameters
    ----------
    location
        The recording.
    key
        Of the object.
    spool
        The folder of this machine that holds what the store does not have yet.

    Attributes
    ----------
    is_removed
        Whether nothing is left of it.
    """

    def __init__(self, location: Location, key: str, *, spool: str = "") -> None:
        self._location = location
        self._key = key
        self._object = GuardedObject(location, key)
        self._holder = Holder.this_process(flock=False, spool=spool)
        self.is_removed = False

    def take(self, over: Holder | None = None) -> None:
        """Take the lock; after an error `remove` makes sure that it is not taken.

        Parameters
        ----------
        over
            A holder that has ended, and of whose spool the caller takes care.

        Raises
        ------
        RecordingLockedError
            Another process, or another writer of this one, holds it, or has left a spool.
        RecordingAccessError
            The store cannot be read or written to.
        """
        location, key = self._location, self._key
        try:
            found = self._object.read()
            if found is not None and (holder := Holder.parse(found)) is not None:
                self._refuse_unless(holder, over)
            if getattr(getattr(location, "store", None), "read_only", False):
                raise OSError(errno.EROFS, "the store was opened to be read only")
            self._object.write(self._holder.encode())
        except ReplacedError:
            _refuse(location, Holder.stored(location, key))
        except OSError as error:
            if isinstance(error, ImgStoreError):
                raise
            raise access_error(location, "locking", error) from error

    def _refuse_unless(self, holder: Holder, over: Holder | None) -> None:
        if holder == over:
            return
        if not holder.is_dead:
            refuse_holder(self._location, self._key, holder)
        if holder.spool:
            refuse_interrupted(self._location, holder)

    def confirm(self) -> bool:
        """Return whether the lock is still there.

        Raises
        ------
        RecordingLockedError
            Somebody else holds it.
        """
        holder = Holder.stored(self._location, self._key)
        if holder is not None and holder != self._holder:
            _refuse(self._location, holder)
        return holder is not None

    def take_again(self) -> None:
        """Take the lock whose object somebody has removed.

        Raises
        ------
        RecordingLockedError
            Somebody else has it by now.
        """
        try:
            if self._object.read() is None:
                self._object.write(self._holder.encode())
        except ReplacedError:
            pass
        self.confirm()

    def release(self) -> None:
        """Let others write. Where the object cannot be removed, it counts until this process ends."""
        try:
            if Holder.stored(self._location, self._key) == self._holder:
                self._location.delete(self._key)
            self.is_removed = True
        except OSError as error:
            _log.warning(
                "%s: the lock could not be removed (%s); remove the object %s",
                self._location.name,
                error,
                self._key,
            )

    remove = release


def refuse_holder(location: Location, key: str, holder: Holder) -> NoReturn:
    """Refuse to write where another process may be at work."""
    advice = f"; if that process has ended, remove the object {key}"
    if holder.spool and not holder.is_here:
        advice = (
            f"; if that process has ended, imgstore_zarr.repair(...) on {holder.host} brings back what "
            f"it has not uploaded, from {holder.spool}; if that machine is gone, remove the object "
            f"{key}: what is in the store is whole"
        )
    _refuse(location, holder, advice)


def refuse_interrupted(location: Location, holder: Holder) -> NoReturn:
    """Refuse to write where a writer of this machine was interrupted."""
    raise RecordingLockedError(
        f"{location.name}: its writer ({holder}) was interrupted; imgstore_zarr.repair(...) uploads "
        f"what it has left in {holder.spool}"
    )


class Lock:
    """Held until `release`, or until the process ends.

    The kernel takes it from a dead process. On file systems that have no such locks, the file itself is
    the lock, which counts as long as the process that it names may live. So it is where a `StoreLock`
    is written into the same file.

    Parameters
    ----------
    location
        The recording, for messages.
    file
        What is locked; it is made where it is not there.

    Raises
    ------
    RecordingLockedError
        Another process, or another writer of this one, holds it.
    RecordingAccessError
        The file system does not let this process lock.
    """

    def __init__(self, location: Location, file: Path) -> None:
        self._descriptor = -1
        self._file = file
        self._kernels = True
        self._is_new = False
        try:
            with Deferred():
                while (descriptor := self._locked(location, file)) is None:
                    pass
                self._descriptor = descriptor
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, Holder.this_process(flock=self._kernels).encode(), 0)
                _held.add(self)
        except BaseException as error:
            # After Ctrl-C, too, nobody would close what is locked.
            self._give_up(remove=self._is_new or not self._kernels)
            if isinstance(error, OSError) and not isinstance(error, ImgStoreError):
                raise access_error(location, "locking", error) from error
            raise

    def release(self) -> None:
        """Let others write. The file stays, and says nothing, unless it is the lock itself."""
        self._give_up(remove=not self._kernels)

    def remove(self) -> None:
        """Let others write, and remove the file."""
        self._give_up(remove=True)

    def _give_up(self, *, remove: bool) -> None:
        if self._descriptor < 0:
            return
        # On a disk that is gone, closing the file is enough.
        with contextlib.suppress(OSError):
            # Where the file was removed or moved, another may have its place, and another writer.
            if remove and os.path.samestat(os.fstat(self._descriptor), self._file.stat()):
                self._file.unlink()
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        with contextlib.suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # not so where it is no lock of the kernel
        self.forget()

    def forget(self) -> None:
        """Close the file without giving up the lock, which a forked process shares."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _locked(self, location: Location, file: Path) -> int | None:
        """Lock a file; None where it was replaced meanwhile, since its holder removes it at the end."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor, self._is_new = os.open(file, flags | os.O_EXCL, 0o666), True
        except FileExistsError:
            descriptor, self._is_new = os.open(file, flags, 0o666), False
        try:
            self._kernels = _flock(location, file, descriptor)
            if not (self._kernels or self._is_new):
                _remove_of_the_dead(location, file)
            elif os.path.samestat(os.fstat(descriptor), file.stat()):
                if self._kernels:
                    _refuse_other_kind(location, file)
                return descriptor
        except FileNotFoundError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None


def _flock(location: Location, file: Path, descriptor: int) -> bool:
    """Lock an open file; False where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            _refuse(location, Holder.read(file))
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def _refuse_other_kind(location: Location, file: Path) -> None:
    """Refuse a file that is the lock of one who has no lock of the kernel."""
    holder = Holder.read(file)
    if holder is not None and not holder.flock and not holder.is_dead:
        _refuse(location, holder, _advice(file))


def _remove_of_the_dead(location: Location, file: Path) -> None:
    """Remove the file of a holder that has ended, where the file itself is the lock."""
    seen = file.stat()
    holder = Holder.read(file)
    alive = time.time() - seen.st_mtime < _MAKING_SECONDS if holder is None else not holder.is_dead
    if alive:
        _refuse(location, holder, _advice(file))
    # Moved first: what is removed then is certainly what was looked at, and not somebody's new lock.
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".new-") as aside:
        moved = Path(aside) / file.name
        file.rename(moved)
        if not os.path.samestat(seen, moved.stat()):
            with contextlib.suppress(FileExistsError):  # somebody's by now
                os.link(moved, file)
            _refuse(location, Holder.read(file))


def _advice(file: Path) -> str:
    return f"; if that process has ended, remove {file}"


def _refuse(location: Location, holder: Holder | None, advice: str = "") -> NoReturn:
    by = f" by {holder}" if holder else ""
    raise RecordingLockedError(
        f"{location.name} is being written to{by}; close the other writer first{advice}"
    )


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_all() -> None:
    # A forked process would keep the lock alive after its parent was killed.
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)

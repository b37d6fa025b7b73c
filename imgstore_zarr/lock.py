"""Locks: the right to write to a recording."""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import json
import os
import socket
import tempfile
import time
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from imgstore_zarr.errors import RecordingLockedError
from imgstore_zarr.storage import Location, access_error

_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)

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
    """

    host: str
    pid: int
    started: int | None
    since: str

    @classmethod
    def this_process(cls) -> Holder:
        """Return this process, now."""
        pid = os.getpid()
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), pid, _start_of(pid), now)

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
            )
        except (ValueError, KeyError, TypeError, OverflowError):
            return None

    def encode(self) -> bytes:
        """Return what a lock says of this holder."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @property
    def is_dead(self) -> bool:
        """Whether the process has certainly ended; of another machine nothing is known."""
        if self.host != socket.gethostname():
            return False
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


def take_lock(location: Location, key: str) -> HeldLock:
    """Take the lock of a recording, wherever it lies; see `Lock` and `StoreLock`."""
    if location.path is None:
        return StoreLock(location, key)
    return Lock(location, location.path / key)


class StoreLock:
    """An object that says who writes, in a store that is no directory.

    It counts as long as the process that it names may live. Two that begin at the same moment may both
    find nothing there.

    Parameters
    ----------
    location
        The recording.
    key
        Of the object.

    Raises
    ------
    RecordingLockedError
        Another process, or another writer of this one, holds it.
    """

    def __init__(self, location: Location, key: str) -> None:
        self._location = location
        self._key = key
        try:
            holder = Holder.parse(location.read(key))
        except FileNotFoundError:
            holder = None
        if holder is not None and not holder.is_dead:
            advice = f"; if that process has ended, remove the object {key}"
            _refuse(location, holder, advice)
        location.write(key, Holder.this_process().encode())

    def release(self) -> None:
        """Let others write."""
        self._location.delete(self._key)


class Lock:
    """Held until `release`, or until the process ends.

    The kernel takes it from a dead process. On file systems that have no such locks, the file itself is
    the lock, which counts as long as the process that it names may live.

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
        while (descriptor := self._locked(location, file)) is None:
            pass
        self._descriptor = descriptor
        try:
            os.pwrite(descriptor, Holder.this_process().encode(), 0)
        except OSError as error:
            self.release()
            raise access_error(location, "locking", error) from error
        _held.add(self)

    def release(self) -> None:
        """Let others write."""
        if self._descriptor >= 0:
            try:
                if self._kernels:
                    os.ftruncate(self._descriptor, 0)
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
                else:
                    self._file.unlink(missing_ok=True)
            except OSError:
                pass  # the disk is gone; closing the file is enough
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
            try:
                descriptor, is_new = os.open(file, flags | os.O_EXCL, 0o666), True
            except FileExistsError:
                descriptor, is_new = os.open(file, flags, 0o666), False
        except OSError as error:
            raise access_error(location, "locking", error) from error
        try:
            self._kernels = _flock(descriptor)
            if self._kernels or is_new:
                if os.path.samestat(os.fstat(descriptor), file.stat()):
                    os.ftruncate(descriptor, 0)
                    return descriptor
            else:
                _remove_of_the_dead(location, file)
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, RecordingLockedError):
                raise
            if error.errno in _HELD:
                _refuse(location, Holder.read(file))
            raise access_error(location, "locking", error) from error
        os.close(descriptor)
        return None


def _flock(descriptor: int) -> bool:
    """Lock an open file; False where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def _remove_of_the_dead(location: Location, file: Path) -> None:
    """Remove the file of a holder that has ended, where the file itself is the lock."""
    seen = file.stat()
    holder = Holder.read(file)
    alive = time.time() - seen.st_mtime < _MAKING_SECONDS if holder is None else not holder.is_dead
    if alive:
        _refuse(location, holder, f"; if that process has ended, remove {file}")
    # Moved first: what is removed then is certainly what was looked at, and not somebody's new lock.
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".new-") as aside:
        moved = Path(aside) / file.name
        file.rename(moved)
        if not os.path.samestat(seen, moved.stat()):
            moved.rename(file)
            _refuse(location, Holder.read(file))


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

"""Lock: the right to write to a recording on a file system."""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from pathlib import Path

from imgstore_zarr.errors import RecordingLockedError
from imgstore_zarr.storage import Location, access_error


class Lock:
    """Held until `release`, or until the process ends: the kernel takes it from a dead one.

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
        while (descriptor := _locked(location, file)) is None:
            pass
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Let others write."""
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.forget()

    def forget(self) -> None:
        """Close the file without giving up the lock, which a forked process shares."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _locked(location: Location, file: Path) -> int | None:
    """Lock a file; None where it was replaced meanwhile, since its holder removes it at the end."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise access_error(location, "locking", error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), file.stat()):
            return descriptor
    except FileNotFoundError:
        pass
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise access_error(location, "locking", error) from error
        raise RecordingLockedError(
            f"{location.name} is being written to; close the other writer first"
        ) from error
    os.close(descriptor)
    return None


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_all() -> None:
    # A forked process would keep the lock alive after its parent was killed.
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)

"""Spool: the folder in which a recording grows, and the lock in it: the right to write."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from imgstore_zarr.errors import RecordingAccessError
from imgstore_zarr.interruption import Deferred
from imgstore_zarr.lock import HeldLock, take_lock
from imgstore_zarr.native.open_chunk import INFLIGHT, LOCK_KEY
from imgstore_zarr.storage import METADATA_FILES, Directory

_LOCK = Path(LOCK_KEY).name

EXTRA = "extra.jsonl"
"""What the log of extra data is called there: one record a line, while they are being recorded."""

EXTRA_KEY = f"{INFLIGHT}/{EXTRA}"


class Spool:
    """The folder of one who holds the lock; `made` and `found` give one.

    Whoever gives up the lock removes what else is there first, and nothing afterwards: by then it may
    be somebody else's.

    Parameters
    ----------
    location
        The recording.
    path
        Where chunks grow.
    lock
        The lock, which is held.
    """

    def __init__(self, location: Directory, path: Path, lock: HeldLock) -> None:
        self._location = location
        self._lock = lock
        self.path = path
        self.is_given_up = False

    @classmethod
    def made(cls, location: Directory) -> Spool:
        """Make the folder for a writer.

        Raises
        ------
        FileExistsError
            Another writer is at work, or was interrupted.
        RecordingLockedError
            Somebody has taken the lock of the new folder.
        OSError
            The location cannot be written to.
        """
        (location.root / INFLIGHT).mkdir(parents=True)
        try:
            return cls._locked(location)
        except BaseException:
            # Only what is empty: somebody else may hold the lock in it.
            with contextlib.suppress(OSError):
                (location.root / INFLIGHT).rmdir()
            raise

    @classmethod
    def found(cls, location: Directory) -> Spool | None:
        """Take the folder that an interrupted writer left; None where there is none.

        Raises
        ------
        RecordingLockedError
            A writer is at work.
        """
        if not location.exists(INFLIGHT):
            return None
        try:
            return cls._locked(location)
        except RecordingAccessError as error:
            if error.errno == errno.ENOENT and not location.exists(INFLIGHT):
                return None  # its writer has just finished
            raise

    @classmethod
    def _locked(cls, location: Directory) -> Spool:
        return cls(location, location.root / INFLIGHT, take_lock(location, LOCK_KEY))

    def clear(self) -> None:
        """Remove everything but the lock, as far as that is possible."""
        for name in self._location.names(INFLIGHT):
            if name != _LOCK:
                with contextlib.suppress(OSError):  # what is left makes a repair due
                    self._location.delete(f"{INFLIGHT}/{name}")

    def remove(self) -> None:
        """Remove everything, the lock last."""
        self.clear()
        with Deferred():
            self.is_given_up = True
            self._lock.remove()
            with contextlib.suppress(OSError):  # somebody is there already
                self.path.rmdir()

    def move(self, folder: Path) -> None:
        """Move everything elsewhere in one step, with which the lock is given up."""
        with Deferred():
            self.path.rename(folder)
            self.release()

    def release(self) -> None:
        """Let others write, and leave everything where it is."""
        with Deferred():
            if not self.is_given_up:
                self.is_given_up = True
                self._lock.release()


def remove_beginning(location: Directory) -> None:
    """Remove what a writer has left that was killed before there was a recording, or a frame."""
    try:
        names = location.names(INFLIGHT)
        begun = any(location.exists(key) for key in METADATA_FILES)
        own = all(name == _LOCK or name.startswith(".new-") for name in names)
        if begun or not own or not location.exists(INFLIGHT):
            return
        spool = Spool.found(location)
    except OSError:
        return  # of one that is just beginning, or `refuse_existing` says why
    if spool is not None:
        spool.remove()

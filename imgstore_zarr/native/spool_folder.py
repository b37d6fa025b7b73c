"""SpoolFolder: where a recording grows on this machine, until all of it is in its store."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from imgstore_zarr.lock import SPOOL_LOCK, Holder, Lock
from imgstore_zarr.native.metadata import GROUP_KEY, parse
from imgstore_zarr.native.open_chunk import SET_ASIDE
from imgstore_zarr.storage import Directory, Location, access_error


def default_place() -> Path:
    """Return the folder for spools, in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "imgstore-zarr" / "spool"


class SpoolFolder:
    """The folder of one who holds its lock; `made` and `found` give one.

    Parameters
    ----------
    path
        The folder.
    lock
        The lock in it, which is held: a kernel takes it from a dead process.
    """

    def __init__(self, path: Path, lock: Lock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def made(cls, location: Location, place: Path | None) -> SpoolFolder:
        """Make a new one.

        Parameters
        ----------
        location
            Where the recording goes.
        place
            A folder for spools; None is `default_place`.

        Raises
        ------
        RecordingAccessError
            It cannot be made.
        """
        place = place or default_place()
        try:
            place.mkdir(parents=True, exist_ok=True)
            path = Path(tempfile.mkdtemp(prefix="", dir=place))
        except OSError as error:
            what = "give a folder with room as spool=..."
            raise access_error(Directory(place), "making a spool", error, what) from error
        try:
            return cls(path, Lock(location, path / SPOOL_LOCK))
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise

    @classmethod
    def found(cls, location: Location, holder: Holder) -> SpoolFolder | None:
        """Take the one that an interrupted writer has left; None where it is gone.

        Raises
        ------
        RecordingLockedError
            Somebody is at work there.
        """
        path = Path(holder.spool)
        if not holder.spool or not (path / SPOOL_LOCK).exists():
            return None
        return cls(path, Lock(location, path / SPOOL_LOCK))

    @classmethod
    def of(cls, location: Location, uuid: str | None) -> SpoolFolder | None:
        """Find one that an interrupted writer has left in the user's cache, by its recording.

        Raises
        ------
        RecordingLockedError
            Somebody is at work there.
        """
        for group in default_place().glob(f"*/recording/{GROUP_KEY}"):
            path = group.parents[1]
            if uuid is not None and parse(str(path), group.read_bytes()).info.uuid == uuid:
                return cls(path, Lock(location, path / SPOOL_LOCK))
        return None

    @property
    def recording(self) -> Directory:
        """The recording; not there when it is in its store."""
        return Directory(self.path / "recording")

    def finish(self) -> None:
        """Throw the recording away, which is in its store; what a repair has set aside stays."""
        root = self.recording.root
        with contextlib.suppress(FileNotFoundError):
            (root / SET_ASIDE).rename(self.path / SET_ASIDE)
        with contextlib.suppress(FileNotFoundError):
            root.rename(self.path / "sent")  # in one step: nobody finds a part of it

    def remove(self) -> None:
        """Remove everything but what was set aside."""
        for name in ("recording", "sent"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        self._lock.remove()
        for folder in (self.path, self.path.parent):
            with contextlib.suppress(OSError):  # others are there
                folder.rmdir()

    def release(self) -> None:
        """Let others repair, and leave everything where it is."""
        self._lock.release()

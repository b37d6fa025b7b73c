"""RemoteSink: writes a recording to a spool, from which it goes to object storage or a Zarr store."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from imgstore_zarr.errors import ImgStoreError, RecordingExistsError, RecordingLockedError
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.interruption import Deferred
from imgstore_zarr.lock import Holder, StoreLock, can_delete, refuse_holder
from imgstore_zarr.native.commits import Commit, CommitQueue
from imgstore_zarr.native.committer import generation_of
from imgstore_zarr.native.extra_log import Record
from imgstore_zarr.native.metadata import COLUMNS, GROUP_KEY, ZarrRecording
from imgstore_zarr.native.mirror import Mirror
from imgstore_zarr.native.open_chunk import INFLIGHT, LOCK_KEY
from imgstore_zarr.native.spool import EXTRA_KEY
from imgstore_zarr.native.spool_folder import SpoolFolder
from imgstore_zarr.native.uploads import Uploads
from imgstore_zarr.native.writer import ZarrSink, exists_error
from imgstore_zarr.recording import RecordingInfo
from imgstore_zarr.storage import (
    METADATA_FILES,
    GuardedObject,
    IcechunkBranch,
    Location,
    access_error,
)

_log = logging.getLogger("imgstore_zarr")


class RemoteSink:
    """The writer of the Zarr layout to a place that is no directory; `create` and `resume` make one.

    Frames are taken, and are safe from a crash, as in a local recording: in a spool, whose commits
    `Uploads` brings to the store while more frames arrive. The lock in the store says where it is.

    Where nothing can be deleted or replaced (``ZipStore``), everything is uploaded by `close`, and
    there is no lock; nor in icechunk, where each commit is a snapshot, and of two writers one fails.

    Parameters
    ----------
    location
        Where the recording goes.
    recording
        What its ``zarr.json`` says, or will say.
    place
        A folder for spools; None is that in the user's cache.
    over
        The holder of a lock that may be taken over.

    Raises
    ------
    RecordingLockedError
        Another writer is at work, or was interrupted.
    RecordingAccessError
        The store cannot be written to, or no spool can be made.
    """

    _inner: ZarrSink

    def __init__(
        self,
        location: Location,
        recording: ZarrRecording,
        place: Path | None,
        over: Holder | None = None,
    ) -> None:
        self._location = location
        self._process = os.getpid()
        self._is_given_up = False
        self._log_seen: tuple[int, int] | None = None
        self._at_end = not can_delete(location)
        if getattr(getattr(location, "store", None), "read_only", False):
            error = OSError(errno.EROFS, "the store was opened to be read only")
            raise access_error(location, "writing", error)
        self._folder = SpoolFolder.made(location, place)
        self._lock: StoreLock | None = None
        try:
            if takes_lock(location):
                spool = str(self._folder.path)
                self._lock = StoreLock(location, LOCK_KEY, spool=spool)
                self._lock.take(over)
            local = self._folder.recording
            local.root.mkdir()
            self._queue = CommitQueue(local.root, generation_of(recording), at_end=self._at_end)
            self._mirror = Mirror(local.root, location, self._queue)
            self._record = GuardedObject(location, GROUP_KEY)
            self._uploads = Uploads(
                location, local, self._queue, self._lock, self._record, is_held=self._at_end
            )
        except BaseException:
            _give_up(self._folder, self._lock)
            raise

    @classmethod
    def create(
        cls, location: Location, recording: ZarrRecording, *, durable: bool, spool: Path | None
    ) -> RemoteSink:
        """Begin a recording; returns when it is in the store, without frames.

        Raises
        ------
        RecordingExistsError
            The location already holds a recording.
        """
        over = _refuse_existing(location)
        sink = cls(location, recording, spool, over)
        with sink._abandoned_on_error(sink._remove_beginnings):
            if not sink._at_end and sink._record.read() is not None:
                raise exists_error(location, GROUP_KEY)
            sink._inner = ZarrSink.create(sink._mirror, recording, durable=durable)
            if not sink._at_end:
                sink._uploads.wait(0.0, "nothing was begun")
        return sink

    @classmethod
    def resume(
        cls,
        location: Location,
        recording: ZarrRecording,
        index: FrameIndex,
        document: bytes,
        *,
        durable: bool,
        spool: Path | None,
    ) -> RemoteSink:
        """Go on with a recording that nobody writes and that needs no repair; see `ZarrSink.resume`."""
        sink = cls(location, recording, spool)
        with sink._abandoned_on_error(lambda: None):
            if sink._record.read() != document:
                raise RecordingLockedError(
                    f"{location.name} was written to just now by another process; try again"
                )
            sink._folder.recording.write(GROUP_KEY, document, durable=durable)
            sink._inner = ZarrSink.resume(sink._mirror, recording, index, document, durable=durable)
        return sink

    @contextlib.contextmanager
    def _abandoned_on_error(self, remove: Callable[[], None]) -> Iterator[None]:
        """Leave nothing of a writer that could not be made."""
        try:
            yield
        except BaseException as error:
            self._uploads.stop()
            if hasattr(self, "_inner"):
                with contextlib.suppress(OSError, ImgStoreError):  # the first error counts
                    self._inner.close()
            if not isinstance(error, RecordingExistsError | RecordingLockedError):
                remove()  # nothing of others
            _give_up(self._folder, self._lock)
            if isinstance(error, OSError) and not isinstance(error, ImgStoreError):
                raise access_error(self._location, "writing", error) from error
            raise

    def _remove_beginnings(self) -> None:
        for key in (*METADATA_FILES, *(f"{name}/{GROUP_KEY}" for name in ("image", *COLUMNS))):
            with contextlib.suppress(OSError):  # the storage that fails just now
                self._location.delete(key)

    @property
    def info(self) -> RecordingInfo:
        """The recording that is being written."""
        return self._inner.info

    @property
    def frame_count(self) -> int:
        """Frames that were taken."""
        return self._inner.frame_count

    @property
    def chunk_count(self) -> int:
        """Chunks that are full."""
        return self._inner.chunk_count

    def wait_for_room(self) -> None:
        """Wait until a frame can be taken at once; see `WaitsForRoom`.

        That uploading fails is raised by one call, when it has lasted, and the ones after that go on;
        where the spool has no room for more, each call waits for it.
        """
        self._inner.wait_for_room()
        self._uploads.wait_for_room()

    def append(self, image: NDArray[Any], frame_number: int, frame_time: float) -> None:
        """Append one image, which is copied, and stored by other threads; see `FrameSink.append`."""
        self._inner.append(image, frame_number, frame_time)

    def add_extra(self, record: Record) -> None:
        """Append one record of extra data."""
        self._inner.add_extra(record)

    def flush(self) -> None:
        """Make everything so far visible in the store; see `FrameSink.flush`."""
        self._inner.flush()
        if not self._at_end:
            self._put_log()
            self._uploads.wait()

    def _put_log(self) -> None:
        """Have readers find the log of extra data, where it has grown."""
        with contextlib.suppress(FileNotFoundError):
            facts = (self._mirror.root / EXTRA_KEY).stat()
            seen = facts.st_ino, facts.st_size
            if seen != self._log_seen:
                self._queue.put(Commit({EXTRA_KEY: 0}))
                self._log_seen = seen

    def empty(self) -> None:
        """Throw away every frame and all extra data, in the store as well."""
        self.empty_with(lambda: None)

    def empty_with(self, reset: Callable[[], None]) -> None:
        """As `empty`; calls `reset` in the step from which on nothing is there."""
        self._inner.empty_with(reset)
        if not self._at_end:
            self._uploads.wait()

    @property
    def is_given_up(self) -> bool:
        """Whether others may write: `close` was there, and was not interrupted by Ctrl-C."""
        return self._is_given_up

    def close(self) -> None:
        """Finish the recording, and wait until it is in the store.

        An error that a call before has raised is not raised again. After any, spool and lock stay for
        a repair.
        """
        if self._process != os.getpid() or self._is_given_up:
            return
        told = self._uploads.was_told
        failure: Exception | None = None
        try:
            self._inner.close()
        except (OSError, ImgStoreError) as error:
            failure = error
        try:
            self._uploads.let_go()
            self._uploads.wait(otherwise=self._advice)
        except (OSError, ImgStoreError) as error:
            if told:
                _log.error("%s", error)
            else:
                failure = failure or error
        else:
            if failure is None and not (self._mirror.root / INFLIGHT).exists():
                self._finish()
                return
            _log.error("%s; %s", self._mirror.name, self._advice.format(self._folder.path))
        self._uploads.stop()
        with Deferred():
            self._folder.release()
            self._is_given_up = True
        if failure is not None:
            raise failure

    @property
    def _advice(self) -> str:
        if self._at_end:
            return "all of it is kept in {}/recording, which convert copies"
        return "the rest is kept in {}: imgstore_zarr.repair(...) on this machine uploads it"

    def _finish(self) -> None:
        self._uploads.stop()
        finish(self._location, self._folder, self._lock)
        self._is_given_up = True


def takes_lock(location: Location) -> bool:
    """Whether a lock in the store says who writes, and where his spool is."""
    return can_delete(location) and not isinstance(location, IcechunkBranch)


def finish(location: Location, folder: SpoolFolder, lock: StoreLock | None) -> None:
    """Remove spool and lock of a recording that is in its store; the lock after what it stands for."""
    folder.finish()
    if lock is not None:
        with contextlib.suppress(OSError):  # belongs to nothing; a repair removes it
            location.delete(EXTRA_KEY)
    _give_up(folder, lock)


def _give_up(folder: SpoolFolder, lock: StoreLock | None) -> None:
    """Remove the lock, and then the spool that it names, without which it would count for ever."""
    if lock is not None:
        lock.remove()
        if not lock.is_removed:
            folder.release()
            return
    folder.remove()


def _refuse_existing(location: Location) -> Holder | None:
    """Refuse where a recording is, or a writer; return the holder that one has left who was killed."""
    try:
        for key in METADATA_FILES:
            if location.exists(key):
                raise exists_error(location, key)
        names = location.names(INFLIGHT)
        if {*names} - {LOCK_KEY.rsplit("/", 1)[-1]}:
            raise exists_error(location, INFLIGHT)
        holder = Holder.stored(location, LOCK_KEY) if names else None
    except OSError as error:
        if isinstance(error, ImgStoreError):
            raise
        raise access_error(location, "looking for a recording", error) from error
    if holder is not None and not holder.is_dead:
        refuse_holder(location, LOCK_KEY, holder)
    return holder

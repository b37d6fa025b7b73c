"""ZarrSink: takes frames and commits them chunk by chunk, in an order that a crash cannot break."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from numpy.typing import NDArray

from imgstore_zarr.errors import ImgStoreError, RecordingExistsError, RecordingLockedError
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.interruption import Deferred
from imgstore_zarr.native.committer import Committer
from imgstore_zarr.native.extra_columns import check_field_names, iter_records, write_extra
from imgstore_zarr.native.extra_log import Record, encode_line, read_log, write_log
from imgstore_zarr.native.metadata import ATTRIBUTE, COLUMNS, GROUP_KEY, ZarrRecording
from imgstore_zarr.native.open_chunk import BUSY, INFLIGHT, write_all
from imgstore_zarr.native.pipeline import Group, Pipeline
from imgstore_zarr.native.reader import ZarrFrames
from imgstore_zarr.native.spool import EXTRA, Spool, remove_beginning
from imgstore_zarr.recording import RecordingInfo
from imgstore_zarr.report import counted
from imgstore_zarr.storage import (
    METADATA_FILES,
    Directory,
    Location,
    access_error,
    sync_directory,
)

_log = logging.getLogger("imgstore_zarr")

_MEMBERS = ("image", *COLUMNS)


class ZarrSink:
    """The writer of the Zarr layout to a directory; `create` and `resume` make one.

    Parameters
    ----------
    location
        Where the recording lies.
    recording
        What its ``zarr.json`` says, or will say.
    durable
        Whether what is flushed must also survive power loss.

    Raises
    ------
    RecordingExistsError
        The location already holds a recording.
    RecordingAccessError
        The location cannot be written to.
    """

    def __init__(self, location: Directory, recording: ZarrRecording, *, durable: bool) -> None:
        self._location = location
        self._recording = recording
        self._durable = durable
        self._process = os.getpid()
        try:
            self._spool = Spool.made(location)
        except FileExistsError as error:
            raise exists_error(location, INFLIGHT) from error
        except OSError as error:
            if isinstance(error, ImgStoreError):
                raise
            raise access_error(location, "writing", error) from error
        self._finished = False
        try:
            self._committer = Committer(location, recording, self._spool.path, durable=durable)
            self._pipeline = Pipeline(recording.geometry, self._committer.append)
            self._begin()
        except BaseException:
            self._spool.remove()
            raise

    @classmethod
    def create(cls, location: Directory, recording: ZarrRecording, *, durable: bool) -> ZarrSink:
        """Begin a recording.

        Raises
        ------
        RecordingExistsError
            The location already holds a recording.
        """
        remove_beginning(location)
        refuse_existing(location)
        sink = cls(location, recording, durable=durable)
        with sink._abandoned_on_error(sink._remove_beginnings):
            sink._committer.commit()
            location.write("metadata.yaml", signpost(recording), durable=durable)
            sink._say_busy()
        return sink

    @classmethod
    def resume(
        cls,
        location: Directory,
        recording: ZarrRecording,
        index: FrameIndex,
        document: bytes,
        *,
        durable: bool,
    ) -> ZarrSink:
        """Go on with a recording that nobody writes and that needs no repair.

        Parameters
        ----------
        location, recording, index, durable
            See `ZarrSink`.
        document
            The ``zarr.json`` from which all that was read.

        Raises
        ------
        RecordingLockedError
            Somebody else has written to it since.
        ChunkMissingError, CorruptChunkError
            Of the last chunk, which is not full.
        """
        try:
            sink = cls(location, recording, durable=durable)
        except RecordingExistsError as error:
            raise _locked_just_now(location) from error
        frames = ZarrFrames(location, recording.geometry, len(index))
        with sink._abandoned_on_error(lambda: None):
            if location.read(GROUP_KEY) != document:
                raise _locked_just_now(location)
            sink._filling = sink._committer.resume(index, frames)
            sink._count = len(index)
            sink._say_busy()
        frames.close()
        return sink

    @contextlib.contextmanager
    def _abandoned_on_error(self, remove: Callable[[], None]) -> Iterator[None]:
        """Leave nothing of a writer that could not be made."""
        try:
            yield
        except BaseException as error:
            with Deferred():
                remove()
                self._pipeline.close()
                self._committer.release()
                self._spool.remove()
            if isinstance(error, OSError) and not isinstance(error, ImgStoreError):
                raise access_error(self._location, "writing", error) from error
            raise

    def _remove_beginnings(self) -> None:
        for key in (BUSY, *METADATA_FILES, *(f"{name}/{GROUP_KEY}" for name in _MEMBERS)):
            with contextlib.suppress(OSError):  # the storage that fails just now
                self._location.delete(key)
        for name in _MEMBERS:
            with contextlib.suppress(OSError):  # not there, or it holds files of others
                (self._location.root / name).rmdir()

    def _say_busy(self) -> None:
        self._location.write(BUSY, b"", durable=self._durable)
        if self._durable:
            sync_directory(self._location.root.parent)

    def _begin(self) -> None:
        self._count = 0
        self._filling: Group | None = None
        self._room: Group | None = None
        self._told = False
        self._extra: int | None = None
        self._extra_size = 0

    @property
    def info(self) -> RecordingInfo:
        """The recording that is being written."""
        return self._recording.info

    def wait_for_room(self) -> None:
        """Wait until a frame can be taken at once; see `WaitsForRoom`.

        What the threads cannot store is raised by the next call; the one after that tries again.
        """
        self._check()
        if self._filling is None and self._room is None:
            self._room = self._pipeline.new_group()

    def append(self, image: NDArray[Any], frame_number: int, frame_time: float) -> None:
        """Append one image, which is copied, and stored by other threads; see `FrameSink.append`.

        Ctrl-C must be deferred while this runs: it would leave a frame half taken.
        """
        if self._filling is None and self._room is None:
            self.wait_for_room()
        group = self._filling or self._room
        assert group is not None
        group.frames[len(group)] = image
        group.metadata.append((frame_number, frame_time))
        self._filling, self._room = group, None
        self._count += 1
        if len(group) == len(group.frames):
            self._filling = None
            self._pipeline.put(group)

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise ImgStoreError(
                f"{self._location.name} is being written by process {self._process}, of which this one "
                "is a fork: only that process can go on writing"
            )

    def _check(self) -> None:
        """Raise what kept frames from being stored; the second time, try again before that."""
        self._check_process()
        if self._pipeline.error is None:
            return
        if self._told or not isinstance(self._pipeline.error, Exception):
            self._pipeline.retry()
        error = self._pipeline.error
        self._told = error is not None
        if error is not None:
            raise self._not_stored(error) from error

    def _not_stored(self, error: BaseException) -> ImgStoreError:
        held = [pair for group in self._pipeline.waiting for pair in group.metadata]
        if self._filling is not None:
            held += self._filling.metadata
        first = self._count - len(held)
        number = held[0][0] if held else None
        more = f" and {counted(len(held) - 1, 'frame')} after it" if len(held) > 1 else ""
        what = (
            f"frame {number} (position {first}, chunk {first // self._recording.geometry.chunksize})"
            f"{more} could not be written and {'are' if more else 'is'} kept in memory: the next call "
            "tries again, and takes no other frame before that; close() keeps what was written before"
        )
        if isinstance(error, OSError):
            return access_error(self._location, "writing", error, what)
        return ImgStoreError(f"{self._location.name}: {what} ({error!r})")

    def _settle(self) -> None:
        """Have everything stored that was taken, but for a group that is not full."""
        self._check()
        self._pipeline.drain()
        self._check()

    @property
    def frame_count(self) -> int:
        """Frames that were taken."""
        return self._count

    @property
    def chunk_count(self) -> int:
        """Chunks that are full."""
        return self._count // self._recording.geometry.chunksize

    def add_extra(self, record: Record) -> None:
        """Append one record of extra data, as a line of JSON."""
        check_field_names(record)
        line = encode_line(record)
        self._check_process()
        try:
            if self._extra is None:
                self._begin_extra()
            if self._committer.extra:
                # From here on the log counts, for readers and for a repair.
                self._settle()
                self._committer.drop_extra()
            with Deferred():
                self._append_extra(line)
        except OSError as error:
            if isinstance(error, ImgStoreError):
                raise
            what = "the record of extra data was not written"
            raise access_error(self._location, "writing", error, what) from error

    def _append_extra(self, line: bytes) -> None:
        assert self._extra is not None
        try:
            write_all(self._extra, [line], self._extra_size)
        except OSError:
            # Of a part that was written, the next, shorter line would leave an end.
            with contextlib.suppress(OSError):
                os.ftruncate(self._extra, self._extra_size)
            raise
        self._extra_size += len(line)

    def _begin_extra(self) -> None:
        """Open the log of extra data; what is committed already is copied there, before what is new."""
        path, committed = self._spool.path / EXTRA, self._committer.extra
        records = iter_records(self._location, committed) if committed else ()
        size = write_log(path, records, self._committer.generation, durable=self._durable)
        self._extra_size, self._extra = size, os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        if self._durable:
            sync_directory(self._spool.path)

    def flush(self) -> None:
        """Make everything so far visible and safe; see `FrameSink.flush`."""
        self._settle()
        try:
            if self._extra is not None and self._durable:
                os.fsync(self._extra)
            pending = self._filling
            encoded = self._recording.geometry.encode_group(pending.filled) if pending else []
            self._committer.flush(pending, encoded)
        except OSError as error:
            raise self._not_finished(error) from error

    def _not_finished(self, error: OSError) -> ImgStoreError:
        what = "what was flushed before can be read; the frames since then are kept, try again"
        return access_error(self._location, "writing", error, what)

    def empty(self) -> None:
        """Throw away every frame and all extra data; after an error everything is as it was."""
        self.empty_with(lambda: None)

    def empty_with(self, reset: Callable[[], None]) -> None:
        """As `empty`; calls `reset` in the step from which on nothing is there."""
        self._check_process()
        self._pipeline.drain()
        with Deferred():
            try:
                left = self._committer.empty()
            except OSError as error:
                what = "nothing was thrown away"
                raise access_error(self._location, "emptying", error, what) from error
            self._pipeline.clear()
            extra = self._extra
            self._begin()
            reset()
            if extra is not None:
                self._drop_log(extra)
        # What this leaves, deferred or not, belongs to nothing.
        for key in left:
            with contextlib.suppress(OSError):
                self._location.delete(key)

    def _drop_log(self, extra: int) -> None:
        # It is written anew when it is needed, and says of which generation it is.
        os.close(extra)
        with contextlib.suppress(OSError):
            (self._spool.path / EXTRA).unlink(missing_ok=True)

    @property
    def is_given_up(self) -> bool:
        """Whether others may write: `close` was there, and was not interrupted by Ctrl-C too early."""
        return self._spool.is_given_up

    def close(self) -> None:
        """Finish the recording: the last chunk, the extra data, the commit record.

        An error that a call before has raised is not raised again.
        """
        if self._process != os.getpid() or self.is_given_up:
            return
        told = self._told
        try:
            if not self._finished:
                self._finish()
        except (OSError, ImgStoreError) as error:
            if not told:
                raise
            _log.error("%s; a repair is due", error)
        finally:
            self._give_up()

    def _give_up(self) -> None:
        """Let others write; whatever went wrong, a repair may now try.

        Not while threads may still store: Ctrl-C in that waiting leaves the lock to the next `close`.
        """
        self._put_filling()
        self._pipeline.close()
        with Deferred():
            self._committer.release()
            if self._extra is not None:
                os.close(self._extra)
            if self._finished:
                self._spool.remove()
            else:
                self._spool.release()

    def _put_filling(self) -> None:
        """Have the last frames stored, whose group is not full."""
        with Deferred():
            filling, self._filling = self._filling, None
            if filling is not None:
                self._pipeline.put(filling)

    def _finish(self) -> None:
        self._put_filling()
        failure: ImgStoreError | None = None
        try:
            if self._pipeline.error is not None:
                self._pipeline.retry()
            self._settle()
        except ImgStoreError as error:
            failure = error  # what was stored before is finished nevertheless
        try:
            self._committer.finish_chunk()
            if self._extra is not None:
                lines = self._spool.path / EXTRA
                count = self._committer.count
                if not self._committer.extra:
                    self._location.delete("extra")  # of a removal that was interrupted
                self._committer.extra = write_extra(
                    self._location,
                    lambda: read_log(self._location.name, lines, count),
                    durable=self._durable,
                )
                self._committer.commit()
            self._location.delete(BUSY)
            self._finished = True
        except OSError as error:
            what = "imgstore_zarr.repair(...) finishes the recording when that is mended"
            raise failure or access_error(self._location, "finishing", error, what) from error
        if failure is not None:
            raise failure


def _locked_just_now(location: Location) -> RecordingLockedError:
    return RecordingLockedError(
        f"{location.name} was written to just now by another process; try again"
    )


def refuse_existing(location: Location) -> None:
    """Raise RecordingExistsError where a recording, or what is left of one, is at the location."""
    try:
        for key in (*METADATA_FILES, INFLIGHT):
            if location.exists(key):
                raise exists_error(location, key)
    except OSError as error:
        if isinstance(error, ImgStoreError):
            raise
        raise access_error(location, "looking for a recording", error) from error


def exists_error(location: Location, key: str) -> RecordingExistsError:
    """Return the error for a location where a key shows that it holds a recording."""
    return RecordingExistsError(
        f"{location.name} already holds a recording (it has {key}), which is never overwritten; "
        "choose another place, or remove it first"
    )


def signpost(recording: ZarrRecording) -> bytes:
    """Return a metadata.yaml for people and for tools that look for one; never read back."""
    document = {
        **recording.info.user_metadata,
        "__store": {
            "class": "ZarrImgStore",
            "version": 2,
            **{k: v for k, v in recording.attributes[ATTRIBUTE].items() if k != "layout"},
        },
    }
    note = "# A Zarr v3 recording: the metadata that count are in zarr.json.\n"
    return (note + yaml.safe_dump(document, allow_unicode=True)).encode()

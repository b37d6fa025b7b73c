"""ZarrSink: takes frames and commits them chunk by chunk, in an order that a crash cannot break."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from imgstore_zarr.errors import RecordingExistsError
from imgstore_zarr.extra import dump_record
from imgstore_zarr.lock import Lock
from imgstore_zarr.native.columns import ColumnWriter
from imgstore_zarr.native.extra_columns import Record, check_field_names, write_extra
from imgstore_zarr.native.metadata import ATTRIBUTE, COLUMNS, GROUP_KEY, ZarrRecording
from imgstore_zarr.native.open_chunk import BUSY, INFLIGHT, OpenChunk, lock_path, write_all
from imgstore_zarr.recording import RecordingInfo
from imgstore_zarr.storage import METADATA_FILES, Location, access_error, sync_directory

_EXTRA = "extra.jsonl"
EXTRA_KEY = f"{INFLIGHT}/{_EXTRA}"
"""Extra data while they are being recorded: one JSON object a line."""


class ZarrSink:
    """The writer of the Zarr layout.

    Parameters
    ----------
    location
        Where the recording is made; nothing may be there that is a recording.
    recording
        What it will be; no frames yet.
    durable
        Whether what is flushed must also survive power loss.

    Raises
    ------
    RecordingExistsError
        The location already holds a recording.
    RecordingAccessError
        The location cannot be written to.
    """

    def __init__(self, location: Location, recording: ZarrRecording, *, durable: bool) -> None:
        refuse_existing(location)
        self._location = location
        self._recording = recording
        self._durable = durable
        geometry = recording.geometry
        self._group = np.empty((geometry.group_frames, *geometry.image_shape), geometry.dtype)
        try:
            self._spool = _make_spool(location)
        except FileExistsError as error:
            raise exists_error(location, INFLIGHT) from error
        except OSError as error:
            raise access_error(location, "writing", error) from error
        try:
            self._lock = Lock(location, lock_path(self._spool))
        except OSError:
            shutil.rmtree(self._spool)
            raise
        try:
            self._begin()
            self._commit()
            location.write("metadata.yaml", _signpost(recording), durable=durable)
            if location.path is not None:
                location.write(BUSY, b"", durable=durable)
                if durable:
                    sync_directory(location.path.parent)
        except OSError as error:
            self._abandon()
            raise access_error(location, "writing", error) from error
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Leave nothing of a recording that could not be begun."""
        names = ("image", *COLUMNS)
        for key in (BUSY, *METADATA_FILES, *(f"{name}/{GROUP_KEY}" for name in names)):
            self._location.delete(key)
        if self._location.path is not None:
            for name in names:
                with contextlib.suppress(OSError):  # not there, or it holds files of others
                    (self._location.path / name).rmdir()
        self._lock.release()
        shutil.rmtree(self._spool)

    def _begin(self) -> None:
        self._committed = -1
        self._count = 0
        self._pending: list[tuple[int, float]] = []
        self._columns = {
            name: ColumnWriter(self._location, name, dtype, durable=self._durable)
            for name, dtype in COLUMNS.items()
        }
        self._chunk: OpenChunk | None = None
        self._extra: int | None = None
        self._extra_size = 0
        self._extra_documents: dict[str, dict[str, Any]] = {}

    @property
    def info(self) -> RecordingInfo:
        """The recording that is being written."""
        return self._recording.info

    def append(self, image: NDArray[Any], frame_number: int, frame_time: float) -> None:
        """Append one image; see `FrameSink.append`.

        Until the image is in the open chunk, an error leaves everything as it was.
        """
        geometry = self._recording.geometry
        if self._chunk is not None and self._chunk.full:
            self._finish_chunk()
        if self._chunk is None:
            self._chunk = OpenChunk(self._spool, self._count // geometry.chunksize, geometry)
        for column in self._columns.values():
            column.make_room()
        pixels = np.ascontiguousarray(image, geometry.dtype)
        if geometry.group_frames == 1:
            self._chunk.append(pixels[None], [frame_number], [frame_time])
        else:
            self._group[len(self._pending)] = pixels
            self._pending.append((frame_number, frame_time))
            if len(self._pending) == geometry.group_frames:
                try:
                    self._append_pending(self._chunk)
                except BaseException:
                    self._pending.pop()
                    raise
        self._count += 1
        self._columns["frame_number"].append(frame_number)
        self._columns["frame_time"].append(frame_time)
        if self._chunk.full:
            # The image is safe in the journal: what cannot be finished now is tried again, and its
            # error raised, by the next call.
            with contextlib.suppress(OSError):
                self._finish_chunk()

    @property
    def chunk_count(self) -> int:
        """Chunks that are complete."""
        return self._count // self._recording.geometry.chunksize

    def _append_pending(self, chunk: OpenChunk) -> None:
        if self._pending:
            numbers, times = zip(*self._pending, strict=True)
            chunk.append(self._group[: len(self._pending)], numbers, times)
            self._pending = []

    def _finish_chunk(self) -> None:
        chunk = self._chunk
        if chunk is None:
            return
        self._append_pending(chunk)
        chunk.finish(self._location, durable=self._durable)
        self._commit()
        chunk.discard()
        self._chunk = None

    def _commit(self) -> None:
        """Make the data that has been published count: coordinates, shapes, commit record."""
        for column in self._columns.values():
            column.write()
        documents = self._recording.documents(self._count, self._extra_documents)
        for key, document in documents.items():
            self._location.write(key, document, durable=self._durable)
        self._committed = self._count

    def add_extra(self, record: Record) -> None:
        """Append one record of extra data, as a line of JSON."""
        check_field_names(record)
        if self._extra is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            self._extra = os.open(self._spool / _EXTRA, flags, 0o666)
            if self._durable:
                sync_directory(self._spool)
        line = dump_record(record).encode() + b"\n"
        self._extra_size += write_all(self._extra, [line], self._extra_size)

    def flush(self) -> None:
        """Make everything so far visible and safe; see `FrameSink.flush`."""
        if self._extra is not None:
            if self._durable:
                os.fsync(self._extra)
            if self._location.path is None:
                lines = (self._spool / _EXTRA).read_bytes()
                self._location.write(EXTRA_KEY, lines)
        if self._count == self._committed:
            return
        if self._chunk is not None and self._chunk.full:
            self._finish_chunk()
            return
        if self._chunk is not None:
            pending = self._group[: len(self._pending)]
            self._chunk.snapshot(self._location, pending, durable=self._durable)
        self._commit()

    def empty(self) -> None:
        """Throw away every frame and all extra data; the recording stays, and can be written to."""
        if self._chunk is not None:
            self._chunk.discard()
        if self._extra is not None:
            os.close(self._extra)
            (self._spool / _EXTRA).unlink()
            if self._location.path is None:
                self._location.delete(EXTRA_KEY)
        self._begin()
        # First the commit record: from then on nobody looks at what is deleted.
        self._commit()
        for key in ("image/c", *(f"{name}/c" for name in COLUMNS)):
            self._location.delete(key)

    def close(self) -> None:
        """Finish the recording: the last chunk, the extra data, the commit record."""
        try:
            self._finish_chunk()
            if self._extra is not None:
                lines = self._spool / _EXTRA
                self._extra_documents = write_extra(
                    self._location, lambda: extra_lines(lines), durable=self._durable
                )
                self._commit()
        finally:
            # Whatever went wrong, a repair may now try.
            if self._chunk is not None:
                self._chunk.release()
            if self._extra is not None:
                os.close(self._extra)
            self._lock.release()
        shutil.rmtree(self._spool)
        self._location.delete(INFLIGHT if self._location.path is None else BUSY)


def refuse_existing(location: Location) -> None:
    """Raise RecordingExistsError where a recording, or what is left of one, is at the location."""
    try:
        for key in (*METADATA_FILES, INFLIGHT):
            if location.exists(key):
                raise exists_error(location, key)
    except PermissionError as error:
        raise access_error(location, "looking for a recording", error) from error


def exists_error(location: Location, key: str) -> RecordingExistsError:
    """Return the error for a location where a key shows that it holds a recording."""
    return RecordingExistsError(
        f"{location.name} already holds a recording (it has {key}), which is never overwritten; "
        "choose another place, or remove it first"
    )


def _make_spool(location: Location) -> Path:
    if location.path is None:
        return Path(tempfile.mkdtemp(prefix="imgstore-zarr-"))
    spool = location.path / INFLIGHT
    spool.mkdir(parents=True)
    return spool


def _signpost(recording: ZarrRecording) -> bytes:
    """A metadata.yaml for people and for tools that look for one; never read back."""
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


def extra_lines(path: Path) -> Iterator[Record]:
    """Iterate over the records in a file of JSON lines, up to the first that is not whole."""
    with path.open("rb") as file:
        yield from parse_lines(file)


def parse_lines(lines: Iterable[bytes]) -> Iterator[Record]:
    """Parse JSON lines, up to the first that is not whole."""
    for line in lines:
        if not line.endswith(b"\n"):
            return
        try:
            record: Record = json.loads(line)
        except ValueError:
            return
        yield record

"""The Zarr layout: turns a location into the parts of a recording, and begins new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import (
    ChunkMissingError,
    CorruptChunkError,
    ImgStoreError,
    InvalidMetadataError,
    RecordingExistsError,
    RecordingLockedError,
    UnsupportedFormatError,
)
from imgstore_zarr.extra import SampledSource
from imgstore_zarr.frames import FrameSink
from imgstore_zarr.index import FrameIndex, Int64s
from imgstore_zarr.layouts import Holds, Parts, Problem
from imgstore_zarr.native.assembly import finish, has_chunk, take_chunk
from imgstore_zarr.native.columns import read_column, read_columns
from imgstore_zarr.native.extra_columns import read_extra
from imgstore_zarr.native.extra_data import ZarrExtra
from imgstore_zarr.native.inspection import (
    changed_parts,
    find_left_over,
    inspect_documents,
    inspect_shards,
)
from imgstore_zarr.native.metadata import (
    COLUMN_CHUNK,
    COLUMNS,
    GROUP_KEY,
    ORIGINAL_NUMBERS,
    ZarrRecording,
    from_spec,
    parse,
    read_group,
)
from imgstore_zarr.native.open_chunk import INFLIGHT
from imgstore_zarr.native.reader import ZarrFrames
from imgstore_zarr.native.recovery import repair, rewrite_column
from imgstore_zarr.native.remote_recovery import repair as repair_remote
from imgstore_zarr.native.remote_sink import RemoteSink
from imgstore_zarr.native.sampled_columns import SAMPLE_DTYPES
from imgstore_zarr.native.writer import ZarrSink, refuse_existing
from imgstore_zarr.pixels import decode
from imgstore_zarr.recording import RecordingSpec
from imgstore_zarr.storage import Directory, Location, access_error, is_far

# A writer that empties a recording again and again is not waited for.
_ATTEMPTS = 3

_ZSTD_NAMES = ("png", "tif", "bmp", "ppm", "pgm", "png+color", "tif+color", "bmp+color")


@dataclass(frozen=True)
class ZarrLayout:
    """Zarr v3 groups, layout version 1."""

    name: str = "zarr"

    @property
    def formats(self) -> Mapping[str, str]:
        """The formats that become Zarr recordings."""
        table = {name: name for name in ("raw/zarr", "lz4/zarr", "zstd/zarr")}
        return (
            table | {"npy": "raw/zarr", "bpk": "lz4/zarr"} | dict.fromkeys(_ZSTD_NAMES, "zstd/zarr")
        )

    def recognises(self, location: Location) -> bool:
        """Whether there is a ``zarr.json``."""
        try:
            return location.exists(GROUP_KEY)
        except OSError:
            return False

    def open(self, location: Location, index: FrameIndex | None = None) -> Parts:
        """Open a recording; see `Layout.open`."""
        return _settled(location, lambda recording: self._open(location, recording, index))

    def _open(
        self, location: Location, recording: ZarrRecording, index: FrameIndex | None
    ) -> Parts:
        count = recording.frame_count
        if index is None:
            columns = read_columns(location, COLUMNS, count)
            index = _index(recording, *columns)
        elif len(index) != count:
            raise InvalidMetadataError(
                f"{location.name}: the index that was given has {len(index)} frames, the recording "
                f"{count}; save it again"
            )
        return _parts(location, recording, index)

    def refresh(self, location: Location, parts: Parts) -> Parts:
        """Read the coordinates that were added; see `Refreshes`."""
        return _settled(location, lambda recording: self._grown(location, recording, parts))

    def _grown(self, location: Location, recording: ZarrRecording, parts: Parts) -> Parts:
        extra, before, count = parts.extra, len(parts.index), recording.frame_count
        same = isinstance(extra, ZarrExtra) and extra.recording.keeps_frames_of(recording)
        # Values of the last chunk are read again: they tell whether the frames are still the same.
        start = before - before % COLUMN_CHUNK
        columns = []
        old = parts.index.frame_number, parts.index.frame_time
        for known, (name, dtype) in zip(old, COLUMNS.items(), strict=True):
            if not same or count < before:
                return self._open(location, recording, None)
            tail = read_column(location, name, count, dtype, start=start)
            if not np.array_equal(tail[: before - start], known[start:], equal_nan=True):
                return self._open(location, recording, None)
            columns.append(np.concatenate([known, tail[before - start :]]))
        index = _index(recording, *columns) if count > before else parts.index
        return _parts(location, recording, index)

    def extract(self, location: Location, position: int) -> NDArray[Any] | None:
        """Return one stored image; see `ExtractsFrames`."""
        recording = _read_recording(location)
        if position >= recording.frame_count:
            return None
        frames = ZarrFrames(location, recording.geometry, recording.frame_count)
        try:
            image = frames.read(np.array([position], np.int64))[0]
        finally:
            frames.close()
        return recording.info.conversion.without_decoding().apply(image)

    def inspect(self, location: Location, index: FrameIndex) -> tuple[Problem, ...]:
        """Look at every shard of the committed frames, and at the metadata; see `Inspects`."""
        recording = _read_recording(location)
        problems = inspect_shards(location, recording.geometry, len(index))
        due = _repair_due(location)
        # A writer may have written the metadata of arrays and not yet those of the group.
        problems += (
            tuple(due if is_far(location) else ()) if due else tuple(inspect_documents(location))
        )
        if recording.renumbered:
            # Opening does not read them.
            try:
                read_column(location, ORIGINAL_NUMBERS, len(index), COLUMNS["frame_number"])
            except (ChunkMissingError, CorruptChunkError) as error:
                problems += (Problem("coordinates-damaged", str(error)),)
        return problems

    def left_over(self, location: Location, index: FrameIndex) -> tuple[Problem, ...]:  # noqa: ARG002
        """Find what belongs to nothing; see `FindsLeftOvers`."""
        if location.exists(INFLIGHT):
            return ()
        return tuple(find_left_over(location, _read_recording(location)))

    def create(self, location: Location, spec: RecordingSpec) -> FrameSink:
        """Begin a recording; see `Layout.create`."""
        recording = _planned(location, spec)
        if (directory := _directory(location)) is None:
            return RemoteSink.create(location, recording, durable=spec.durable, spool=spec.spool)
        return ZarrSink.create(directory, recording, durable=spec.durable)

    def append(self, location: Location, spec: RecordingSpec) -> tuple[FrameSink, Parts]:
        """Go on with a recording; see `Appends`."""
        try:
            found = self.repair(location)
        except OSError as error:
            if isinstance(error, ImgStoreError):
                raise
            raise access_error(location, "repairing", error) from error
        document = read_group(location)
        recording, parts = parse(location.name, document), self.open(location)
        _check_same(recording, _planned(location, spec), spec)
        facts: Any = (recording, parts.index, document)
        sink: FrameSink
        if (directory := _directory(location)) is None:
            sink = RemoteSink.resume(location, *facts, durable=spec.durable, spool=spec.spool)
        else:
            sink = ZarrSink.resume(directory, *facts, durable=spec.durable)
        return sink, replace(parts, problems=(*parts.problems, *found))

    def repair(self, location: Location) -> tuple[Problem, ...]:
        """Commit what an interrupted writer left; see `Repairs`."""
        directory = _directory(location)
        return repair_remote(location) if directory is None else repair(directory)

    @property
    def holds(self) -> Holds:
        """What recordings can hold; see `JoinsChunks`."""
        return Holds(only_json=True, sample_dtypes=SAMPLE_DTYPES)

    def refuse_existing(self, location: Location) -> None:
        """Refuse a location that holds a recording; see `JoinsChunks`."""
        refuse_existing(location)

    def has_chunk(self, location: Location, chunk: int) -> bool:
        """Whether there is a shard; see `JoinsChunks`."""
        return has_chunk(location, chunk)

    def take_chunk(self, location: Location, spec: RecordingSpec, part: Path, chunk: int) -> None:
        """Move a shard to its key; see `JoinsChunks`."""
        take_chunk(location, _planned(location, spec), part, chunk, durable=spec.durable)

    def finish(
        self,
        location: Location,
        spec: RecordingSpec,
        head: Path,  # noqa: ARG002
        index: FrameIndex,
        records: Callable[[], Iterable[dict[str, Any]]],
        datasets: Mapping[str, SampledSource],
    ) -> None:
        """Write coordinates, extra data, samples, and the commit record; see `JoinsChunks`."""
        finish(location, _planned(location, spec), index, records, datasets, durable=spec.durable)

    def renumber(self, location: Location, index: FrameIndex, frame_number: Int64s) -> None:
        """Replace the frame numbers; see `Renumbers`.

        The old ones are first kept as the array ``frame_number_before_reindex``. Interrupted, this
        can be run again: it then comes to the same numbers.
        """
        if location.exists(INFLIGHT):
            raise RecordingLockedError(
                f"{location.name}: a writer is at work, or was interrupted; close it, or call "
                "imgstore_zarr.repair(...), and then renumber"
            )
        recording = parse(location.name, location.read(GROUP_KEY))
        dtype = COLUMNS["frame_number"]
        if not recording.renumbered:
            rewrite_column(location, ORIGINAL_NUMBERS, dtype, index.frame_number)
        # Readers that follow see by that that the numbers are others.
        recording = replace(recording.emptied(), renumbered=True)
        for key, document in recording.documents(len(index), recording.extra).items():
            location.write(key, document)
        rewrite_column(location, "frame_number", dtype, frame_number)
        extra = recording.extra
        if {"frame_index", "frame_number"} <= set(extra):
            records = read_extra(location, {"frame_index": extra["frame_index"]})["frame_index"]
            places = np.asarray(records, np.int64)
            numbers = read_extra(location, {"frame_number": extra["frame_number"]})["frame_number"]
            changed = np.where(places >= 0, np.append(frame_number, 0)[places], numbers)
            stored = np.dtype(extra["frame_number"]["data_type"])
            rewrite_column(location, "extra/frame_number", stored, changed)


def _directory(location: Location) -> Directory | None:
    """The directory that a location is, if it is one."""
    if isinstance(location, Directory) or location.path is None:
        return location if isinstance(location, Directory) else None
    return Directory(location.path)


def _read_recording(location: Location) -> ZarrRecording:
    return parse(location.name, read_group(location))


def _settled(location: Location, read: Callable[[ZarrRecording], Parts]) -> Parts:
    """Read a recording; again, where a writer has thrown away meanwhile what was to be read."""
    for _ in range(_ATTEMPTS - 1):
        document = read_group(location)
        try:
            return read(parse(location.name, document))
        except (ChunkMissingError, CorruptChunkError):
            if read_group(location) == document:
                raise
    return read(_read_recording(location))


def _index(
    recording: ZarrRecording, frame_number: NDArray[Any], frame_time: NDArray[Any]
) -> FrameIndex:
    starts = np.arange(0, max(len(frame_number), 1), recording.geometry.chunksize, dtype=np.int64)
    return FrameIndex(frame_number, frame_time, starts)


def _parts(location: Location, recording: ZarrRecording, index: FrameIndex) -> Parts:
    problems = changed_parts(location, recording)
    if not is_far(location):  # there, it would take a request; `inspect` looks
        problems += _repair_due(location)
    return Parts(
        recording.info,
        index,
        ZarrFrames(location, recording.geometry, len(index)),
        ZarrExtra(location, recording),
        tuple(problems),
    )


def _repair_due(location: Location) -> list[Problem]:
    if not location.exists(INFLIGHT):
        return []
    what = (
        f"{location.name}: a writer is at work, or was interrupted; if none is, "
        "imgstore_zarr.repair(...) brings back what it had not yet committed"
    )
    return [Problem("repair-due", what)]


def _planned(location: Location, spec: RecordingSpec) -> ZarrRecording:
    if spec.options:
        raise UnsupportedFormatError(
            f"the format {spec.requested_format!r} has no option {', '.join(spec.options)}"
        )
    return from_spec(location.name, spec, _stored_shape(spec))


def _check_same(recording: ZarrRecording, planned: ZarrRecording, spec: RecordingSpec) -> None:
    """Refuse to append what is not of the kind that a recording holds, as far as that was asked."""
    there, asked = recording.info, planned.info
    facts = {
        "format": (there.format, asked.format),
        "imgshape": (there.imgshape, asked.imgshape),
        "imgdtype": (there.imgdtype, asked.imgdtype),
        "encoding": (there.encoding, asked.encoding),
        "stored shape": (there.stored_shape, asked.stored_shape),
        "chunksize": (there.chunksize, spec.chunksize),
        "inner_chunks": (recording.geometry.inner_shape, spec.inner_chunks),
        "metadata": (there.user_metadata, asked.user_metadata or None),
    }
    optional = ("chunksize", "inner_chunks", "metadata")
    for name, (one, other) in facts.items():
        if one != other and not (other is None and name in optional):
            raise RecordingExistsError(
                f"{there.name} has the {name} {one}, so that frames of {other} cannot be appended; give "
                "the same, or record them elsewhere"
            )


def _stored_shape(spec: RecordingSpec) -> tuple[int, ...]:
    """The shape that a format stores: ppm always colour, pgm always gray, +color decoded."""
    requested, shape = spec.requested_format, spec.imgshape
    if requested in ("ppm", "pgm") and spec.imgdtype not in (np.uint8, np.uint16):
        raise UnsupportedFormatError(
            f"{requested} holds uint8 or uint16, not {spec.imgdtype}; use zstd/zarr"
        )
    if requested.endswith("+color") and spec.encoding:
        return decode(np.zeros(shape, spec.imgdtype), spec.encoding).shape
    if requested == "ppm":
        return (*shape[:2], 3)
    return shape[:2] if requested == "pgm" else shape


LAYOUT = ZarrLayout()

"""The video layout: ``metadata.yaml``, and chunks of video with an index each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_compat.assembly import finish
from imgstore_compat.chunk_index import SUFFIXES, read_chunk_index
from imgstore_compat.chunk_journal import SUFFIX as JOURNAL
from imgstore_compat.chunks import find_position, holes, read_chunks
from imgstore_compat.extra_files import ExtraFiles
from imgstore_compat.listed import listed
from imgstore_compat.metadata import (
    DIRECTORY_CLASS,
    VIDEO_CLASSES,
    StoreMetadata,
    created_of,
    read_metadata,
    read_store_class,
    timezone_of,
)
from imgstore_compat.open_recording import local_directory, refuse_existing
from imgstore_compat.renumber import renumber_chunks
from imgstore_compat.video.frames import VideoFrames
from imgstore_compat.video.recovery import repair_videos
from imgstore_compat.video.sink import CODECS, INDEX, VideoSink, encoder_options
from imgstore_zarr.cached import cached_property
from imgstore_zarr.errors import (
    ChunkMissingError,
    CorruptChunkError,
    RecordingAccessError,
    UnsupportedFormatError,
)
from imgstore_zarr.extra import SampledSource
from imgstore_zarr.index import ChunkSpan, FrameIndex, Int64s
from imgstore_zarr.layouts import Holds, Parts, Problem
from imgstore_zarr.recording import RecordingInfo, RecordingSpec
from imgstore_zarr.storage import Location, is_far
from imgstore_zarr.video import Media, VideoFile, listed_frames, media_at, whole_frames

# Remote files of video that are looked into at the same time.
_CONCURRENT_CHECKS = 8


@dataclass(frozen=True)
class VideoLayout:
    """Recordings in video chunks, as Motif and imgstore write them."""

    name: str = "video"

    @property
    def formats(self) -> Mapping[str, str]:
        """The formats that become video chunks."""
        return {name: name for name in CODECS} | {"mjpeg": "mjpeg/avi"}

    def recognises(self, location: Location) -> bool:
        """Whether there is a ``metadata.yaml``, unless it is that of a directory of images.

        One that is damaged, may not be read, or names an unknown class is for `open` to refuse.
        """
        return read_store_class(location) not in (None, DIRECTORY_CLASS)

    def open(self, location: Location, index: FrameIndex | None = None) -> Parts:
        """Open a recording; see `Layout.open`."""
        metadata = read_metadata(location, VIDEO_CLASSES)
        files = _Files(location, metadata.extension, location.names())
        problems: tuple[Problem, ...] = ()
        if index is None:
            chunks = read_chunks(files.listed, files.stems, files.stored)
            index, problems = chunks.index, (*chunks.problems, *files.left_over_problems)
        problems += holes(location, {*files.stems, *index.chunk_numbers.tolist()})
        problems += tuple(
            files.missing(chunk) for chunk in index.chunks() if chunk.number not in files.videos
        )
        info = _info(location, metadata)
        frames = VideoFrames(
            location,
            metadata.extension,
            info.stored_shape,
            index.chunk_numbers,
            index.chunk_starts,
            len(index),
        )
        return Parts(info, index, frames, files.extra, problems)

    def extract(self, location: Location, position: int) -> NDArray[Any] | None:
        """Return one stored image, BGR; see `ExtractsFrames`."""
        metadata = read_metadata(location, VIDEO_CLASSES)
        files = _Files(location, metadata.extension, location.names())
        found = find_position(files.listed, files.stems, files.stored, position)
        if found is None:
            return None
        chunk, place = found
        file = VideoFile(files.media(chunk), color=True, name=files.title(chunk))
        try:
            image: NDArray[Any] = file.read(np.array([place], np.int64))[0]
        finally:
            file.close()
        return image

    def renumber(self, location: Location, index: FrameIndex, frame_number: Int64s) -> None:
        """Replace the frame numbers; see `Renumbers`."""
        directory = local_directory(location)
        extension = read_metadata(directory, VIDEO_CLASSES).extension
        files = _Files(directory, extension, directory.names())
        left_over = [f"{files.left_over:06d}{end}" for end in SUFFIXES if files.left_over]
        stems = {chunk.number: f"{chunk.number:06d}" for chunk in index.chunks()} | files.stems
        renumber_chunks(directory, stems, index, frame_number, left_over)

    def inspect(self, location: Location, index: FrameIndex) -> tuple[Problem, ...]:
        """Look into every file of video and of extra data; see `Inspects`.

        Remote files that list no packets would have to be fetched as a whole, and are not looked into.
        """
        metadata = read_metadata(location, VIDEO_CLASSES)
        files = _Files(location, metadata.extension, location.names())
        # Of a chunk that is not finished the index has what is whole in its file.
        chunks = [c for c in index.chunks() if f"{c.number:06d}{JOURNAL}" not in files.names]
        if is_far(location):
            with ThreadPoolExecutor(_CONCURRENT_CHECKS) as pool:
                problems = list(pool.map(files.check, chunks))
        else:
            problems = [files.check(chunk) for chunk in chunks]
        unknown = [chunk for chunk in chunks if files.is_unknown(chunk)]
        return (*filter(None, problems), *files.extra.problems(), *files.unknown(unknown))

    def repair(self, location: Location) -> tuple[Problem, ...]:
        """Finish what an interrupted writer left; see `Repairs`."""
        directory = local_directory(location)
        return repair_videos(directory, read_metadata(directory, VIDEO_CLASSES).extension)

    def create(self, location: Location, spec: RecordingSpec) -> VideoSink:
        """Begin a recording; see `Layout.create`."""
        return VideoSink(local_directory(location), spec, encoder_options(spec))

    @property
    def holds(self) -> Holds:
        """What recordings can hold; see `JoinsChunks`."""
        return Holds(encoded=False)

    def refuse_existing(self, location: Location) -> None:
        """Refuse a location that holds a recording, or chunks; see `JoinsChunks`."""
        refuse_existing(local_directory(location))

    def has_chunk(self, location: Location, chunk: int) -> bool:
        """Whether the chunk has its index; see `JoinsChunks`."""
        return location.exists(f"{chunk:06d}{INDEX}")

    def take_chunk(self, location: Location, spec: RecordingSpec, part: Path, chunk: int) -> None:
        """Move a video, and then its index; see `JoinsChunks`."""
        root = local_directory(location).root
        for ending in (f".{spec.format.split('/')[1]}", INDEX):
            (part / f"{0:06d}{ending}").replace(root / f"{chunk:06d}{ending}")

    def finish(
        self,
        location: Location,
        spec: RecordingSpec,  # noqa: ARG002
        head: Path,
        index: FrameIndex,
        records: Callable[[], Iterable[dict[str, Any]]],
        datasets: Mapping[str, SampledSource],  # noqa: ARG002 - there are none, see `holds`
    ) -> None:
        """Write extra data and metadata; see `JoinsChunks`."""
        finish(local_directory(location), head, index, records, lambda chunk: f"{chunk:06d}")


def _numbers(names: list[str], endings: tuple[str, ...]) -> set[int]:
    """The numbers of the chunks that have a file with one of these endings."""
    stems = (name[: -len(end)] for name in names for end in endings if name.endswith(end))
    return {int(stem) for stem in stems if stem.isdecimal()}


@dataclass(frozen=True)
class _Files:
    """The files of a recording: its chunks, and how many frames one holds."""

    location: Location
    extension: str
    names: list[str]

    def key(self, number: int) -> str:
        return f"{number:06d}{self.extension}"

    def label(self, number: int) -> str:
        return f"chunk {number} ({self.key(number)})"

    def title(self, number: int) -> str:
        return f"{self.location.name}: {self.label(number)}"

    def media(self, number: int) -> Media:
        return media_at(self.location, self.key(number), self.label(number))

    @property
    def listed(self) -> Location:
        return listed(self.location, self.names)

    @cached_property
    def videos(self) -> set[int]:
        return _numbers(self.names, (self.extension,))

    @cached_property
    def stems(self) -> dict[int, str]:
        numbers = self._numbers - {self.left_over}
        return {number: f"{number:06d}" for number in sorted(numbers)}

    @cached_property
    def _numbers(self) -> set[int]:
        return self.videos | _numbers(self.names, (*SUFFIXES, JOURNAL))

    @cached_property
    def left_over(self) -> int | None:
        """The number of an index that imgstore wrote for no chunk.

        It does so on closing a recording into which chunks were inserted, and writes what it wrote for
        the last one.
        """
        last = max(self._numbers, default=0)
        if last in self.videos or last - 1 not in self._numbers:
            return None
        try:
            mine, before = (
                read_chunk_index(self.listed, f"{number:06d}") for number in (last, last - 1)
            )
        except CorruptChunkError:
            return None
        if mine is None or before is None or not len(mine[0]):
            return None
        same = np.array_equal(mine[0], before[0])
        return last if same and np.array_equal(mine[1], before[1], equal_nan=True) else None

    @property
    def left_over_problems(self) -> tuple[Problem, ...]:
        last = self.left_over
        if last is None:
            return ()
        what = (
            f"{self.location.name}: there is no video {last:06d}{self.extension}, and its index "
            f"repeats that of chunk {last - 1}, as imgstore leaves it behind chunks that were "
            "inserted; it is left out"
        )
        return (Problem("index-left-over", what, last),)

    @property
    def extra(self) -> ExtraFiles:
        # What was added before there is any frame lies beside the first chunk.
        return ExtraFiles(self.location, tuple((self.stems or {0: f"{0:06d}"}).items()))

    def stored(self, number: int) -> int:
        return whole_frames(self.media(number))

    def missing(self, chunk: ChunkSpan) -> Problem:
        what = (
            f"{self.location.name}: chunk {chunk.number} has an index of {len(chunk)} frames, "
            f"but no video {self.key(chunk.number)}; they cannot be read"
        )
        return Problem("chunk-missing", what, chunk.number)

    def is_unknown(self, chunk: ChunkSpan) -> bool:
        """Whether only all of the file would tell how many frames it has."""
        lists = self.extension == ".mp4"
        return not lists and is_far(self.location) and chunk.number in self.videos

    def unknown(self, chunks: list[ChunkSpan]) -> tuple[Problem, ...]:
        if not chunks:
            return ()
        what = (
            f"{self.location.name}: {len(chunks)} files ({self.key(chunks[0].number)}, ...) were not "
            f"looked into, since {self.extension} says only as a whole how many frames it has; read "
            "them, or check a local copy"
        )
        return (Problem("not-checked", what, chunks[0].number),)

    def check(self, chunk: ChunkSpan) -> Problem | None:
        """What is wrong with the file of a chunk."""
        if chunk.number not in self.videos:
            return self.missing(chunk)
        if self.is_unknown(chunk):
            return None
        media, name = self.media(chunk.number), self.title(chunk.number)
        try:
            count = listed_frames(media, name)
            if count == len(chunk):
                return None
            # Matroska lists no frames, and edit lists hide frames that the file lists.
            with contextlib.closing(VideoFile(media, name=name)) as file:
                count, cut = len(file), np.flatnonzero(file.table.corrupt)
        except ChunkMissingError:
            return self.missing(chunk)
        except (OSError, UnsupportedFormatError) as error:
            if media.is_far and isinstance(error, RecordingAccessError):
                raise  # the network says nothing about the file
            return Problem("chunk-damaged", str(error), chunk.number)
        if len(cut):
            what = f"{name} is cut off: of {len(chunk)} frames {cut[0]} are whole"
            return Problem("chunk-damaged", what, chunk.number)
        if count == len(chunk):
            return None
        beyond = "cannot be read" if count < len(chunk) else "have no numbers, and are left out"
        what = f"{name} has {count} frames, its index {len(chunk)}; those beyond {beyond}"
        return Problem("chunk-length", what, chunk.number)


def _info(location: Location, metadata: StoreMetadata) -> RecordingInfo:
    store = metadata.store
    # Some writers say (y, x, 1); what comes out of video is gray, (y, x).
    shape = metadata.imgshape[:2] if metadata.imgshape[2:] == (1,) else metadata.imgshape
    return RecordingInfo(
        name=location.name,
        layout="video",
        format=str(store["format"]),
        imgshape=shape,
        stored_shape=shape,
        imgdtype=metadata.dtype,
        encoding=metadata.encoding,
        chunksize=metadata.chunksize,
        created=created_of(location, metadata),
        timezone=timezone_of(metadata),
        uuid=store.get("uuid"),
        user_metadata=metadata.user,
        lossless=False,
    )


VIDEO_LAYOUT = VideoLayout()

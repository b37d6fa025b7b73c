"""The video layout: ``metadata.yaml``, and chunks of video with an index each."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from imgstore_compat.chunk_index import SUFFIXES, Columns, read_chunk_index
from imgstore_compat.extra_files import ExtraFiles
from imgstore_compat.metadata import (
    FILE,
    IMGSTORE_CLASSES,
    StoreMetadata,
    created_of,
    read_metadata,
    read_store_class,
    timezone_of,
)
from imgstore_compat.video_frames import VideoFrames
from imgstore_compat.video_sink import CODECS, VideoSink, encoder_options
from imgstore_zarr.errors import RecordingExistsError, UnsupportedFormatError
from imgstore_zarr.extra import EXTRA_DATA_FILE_EXTENSIONS
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.layouts import Parts, Problem
from imgstore_zarr.recording import RecordingInfo, RecordingSpec
from imgstore_zarr.storage import METADATA_FILES, Directory, Location, access_error

# Indexes are small files: what takes the time is to open them.
_CONCURRENT_READS = 8


@dataclass(frozen=True)
class VideoLayout:
    """Recordings in video chunks, as Motif and imgstore write them."""

    name: str = "video"

    @property
    def formats(self) -> Mapping[str, str]:
        """The formats that become video chunks."""
        return {name: name for name in CODECS} | {"mjpeg": "mjpeg/avi"}

    def recognises(self, location: Location) -> bool:
        """Whether there is a ``metadata.yaml``, unless it names a class that is not imgstore's.

        One that is damaged, may not be read, or names another class of imgstore is for `open` to
        refuse: that a recording is there is certain.
        """
        try:
            if location.exists("zarr.json") or not location.exists(FILE):
                return False
        except OSError:
            return False
        name = read_store_class(location)
        return name is None or name in IMGSTORE_CLASSES

    def open(self, location: Location) -> Parts:
        """Open a recording; see `Layout.open`."""
        directory = _directory(location)
        metadata = read_metadata(directory)
        names = directory.names()
        videos = _numbers(names, (metadata.extension,))
        indexes = _numbers(names, SUFFIXES)
        numbers = videos | indexes | _numbers(names, EXTRA_DATA_FILE_EXTENSIONS)
        chunks, problems = _read_indexes(directory, sorted(videos | indexes), names)
        problems += [
            Problem(
                "chunk-missing",
                f"{location.name}: chunk {number} has an index of {len(chunks[number][0])} frames, "
                f"but no video {number:06d}{metadata.extension}; its frames cannot be read",
                number,
            )
            for number in chunks
            if number not in videos
        ]
        info = _info(directory, metadata)
        index = _frame_index(chunks)
        frames = VideoFrames(
            directory,
            metadata.extension,
            info.stored_shape,
            index.chunk_numbers,
            index.chunk_starts,
            len(index),
        )
        extra = ExtraFiles(directory, tuple((n, f"{n:06d}") for n in sorted(numbers)))
        return Parts(info, index, frames, extra, tuple(problems))

    def create(self, location: Location, spec: RecordingSpec) -> VideoSink:
        """Begin a recording; see `Layout.create`."""
        directory = _directory(location)
        options = encoder_options(spec)
        try:
            for name in METADATA_FILES:
                if directory.exists(name):
                    raise RecordingExistsError(
                        f"{location.name} already holds a recording (it has {name}), which is "
                        "never overwritten; choose another place, or remove it first"
                    )
        except PermissionError as error:
            raise access_error(location, "looking for a recording", error) from error
        return VideoSink(directory, spec, options)


def _directory(location: Location) -> Directory:
    if not isinstance(location, Directory):
        raise UnsupportedFormatError(
            f"{location.name}: recordings in video chunks are read from and written to directories"
        )
    return location


def _numbers(names: list[str], endings: tuple[str, ...]) -> set[int]:
    """The numbers of the chunks that have a file with one of these endings."""
    stems = (name[: -len(end)] for name in names for end in endings if name.endswith(end))
    return {int(stem) for stem in stems if stem.isdecimal()}


def _read_indexes(
    directory: Directory, numbers: list[int], names: list[str]
) -> tuple[dict[int, Columns], list[Problem]]:
    """Read the index of every chunk; chunks of no frames are left out."""
    listed = frozenset(names)
    with ThreadPoolExecutor(_CONCURRENT_READS) as pool:
        read = pool.map(lambda n: read_chunk_index(directory, f"{n:06d}", listed), numbers)
        chunks: dict[int, Columns] = {}
        problems = []
        for number, columns in zip(numbers, read, strict=True):
            if columns is None:
                problems.append(
                    Problem(
                        "chunk-without-index",
                        f"{directory.name}: chunk {number} has a video, but no index "
                        f"({number:06d}.npz), so its frames have no numbers and are left out",
                        number,
                    )
                )
            elif len(columns[0]):
                chunks[number] = columns
    return chunks, problems


def _frame_index(chunks: Mapping[int, Columns]) -> FrameIndex:
    if not chunks:
        return FrameIndex(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))
    lengths = [len(numbers) for numbers, _ in chunks.values()]
    return FrameIndex(
        np.concatenate([numbers for numbers, _ in chunks.values()]),
        np.concatenate([times for _, times in chunks.values()]),
        np.cumsum([0, *lengths[:-1]]),
        list(chunks),
    )


def _info(directory: Directory, metadata: StoreMetadata) -> RecordingInfo:
    store = metadata.store
    return RecordingInfo(
        name=directory.name,
        layout="video",
        format=str(store["format"]),
        imgshape=metadata.imgshape,
        stored_shape=metadata.imgshape,
        imgdtype=metadata.dtype,
        encoding=metadata.encoding,
        chunksize=metadata.chunksize,
        created=created_of(directory, metadata),
        timezone=timezone_of(metadata),
        uuid=store.get("uuid"),
        user_metadata=metadata.user,
        lossless=False,
    )


VIDEO_LAYOUT = VideoLayout()

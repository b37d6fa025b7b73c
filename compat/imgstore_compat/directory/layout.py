"""The directory layout: ``metadata.yaml``, and a directory of images with an index per chunk."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_compat.assembly import finish
from imgstore_compat.chunk_journal import SUFFIX as JOURNAL
from imgstore_compat.chunks import find_position, holes, read_chunks, read_journal
from imgstore_compat.directory import bloscpack
from imgstore_compat.directory.frames import DirectoryFrames, image_key, is_chunk_folder, read_image
from imgstore_compat.directory.image_files import DTYPES, check_image, is_lossless, npy_dtype
from imgstore_compat.directory.inspection import inspect_images
from imgstore_compat.directory.sink import DirectorySink, refuse_folders
from imgstore_compat.extra_files import ExtraFiles
from imgstore_compat.metadata import (
    DIRECTORY_CLASS,
    created_of,
    read_metadata,
    read_store_class,
    timezone_of,
)
from imgstore_compat.open_recording import local_directory, refuse_existing
from imgstore_compat.recovery import repair_chunks
from imgstore_compat.renumber import renumber_chunks
from imgstore_zarr.cached import cached_property
from imgstore_zarr.errors import ChunkMissingError, CorruptChunkError, UnsupportedFormatError
from imgstore_zarr.extra import SampledSource
from imgstore_zarr.index import FrameIndex, Int64s
from imgstore_zarr.layouts import Holds, Parts, Problem
from imgstore_zarr.pixels import is_color
from imgstore_zarr.recording import RecordingInfo, RecordingSpec
from imgstore_zarr.storage import Directory, Location

_COLOR = ("png", "tif", "bmp", "jpg")


@dataclass(frozen=True)
class DirectoryLayout:
    """Recordings in directories of images, as imgstore writes them."""

    name: str = "directory"

    @property
    def formats(self) -> Mapping[str, str]:
        """The formats that become directories of images."""
        names = [*(f"{kind}/dir" for kind in DTYPES), *(f"{kind}+color/dir" for kind in _COLOR)]
        return {name: name for name in names} | {"jpg": "jpg/dir", "jpg+color": "jpg+color/dir"}

    def recognises(self, location: Location) -> bool:
        """Whether there is a ``metadata.yaml`` of imgstore's class for directories."""
        return read_store_class(location) == DIRECTORY_CLASS

    def open(self, location: Location, index: FrameIndex | None = None) -> Parts:
        """Open a recording; see `Layout.open`."""
        images = _Images(location, _info(location))
        numbers = images.chunk_numbers
        problems: tuple[Problem, ...] = ()
        if index is None:
            chunks = read_chunks(location, _stems(numbers), images.stored)
            # imgstore makes the directory of the next chunk before there is an image for it.
            problems = tuple(
                problem
                for problem in chunks.problems
                if problem.kind != "chunk-without-index" or images.names(problem.chunk)
            )
            index = chunks.index
            blank = {problem.chunk for problem in chunks.problems} - {p.chunk for p in problems}
            numbers = [number for number in numbers if number not in blank]
        there = {*numbers}
        problems += holes(location, there.union(index.chunk_numbers.tolist()))
        problems += tuple(
            Problem(
                "chunk-missing",
                f"{location.name}: chunk {chunk.number} has an index of {len(chunk)} frames, "
                f"but no directory {chunk.number:06d}; they cannot be read",
                chunk.number,
            )
            for chunk in index.chunks()
            if chunk.number not in there
        )
        info = images.info
        frames = DirectoryFrames(location, info.format, info.stored_shape, info.imgdtype, index)
        return Parts(info, index, frames, images.extra, problems)

    def extract(self, location: Location, position: int) -> NDArray[Any] | None:
        """Return one stored image; see `ExtractsFrames`."""
        images = _Images(location, _info(location))
        found = find_position(location, _stems(images.chunk_numbers), images.stored, position)
        return None if found is None else images.read(*found)

    def create(self, location: Location, spec: RecordingSpec) -> DirectorySink:
        """Begin a recording; see `Layout.create`."""
        return DirectorySink(local_directory(location), spec)

    @property
    def holds(self) -> Holds:
        """What recordings can hold; see `JoinsChunks`."""
        return Holds()

    def refuse_existing(self, location: Location) -> None:
        """Refuse a location that holds a recording, or chunks; see `JoinsChunks`."""
        directory = local_directory(location)
        refuse_existing(directory)
        refuse_folders(directory)

    def has_chunk(self, location: Location, chunk: int) -> bool:
        """Whether there is the folder of the chunk; see `JoinsChunks`."""
        return location.exists(f"{chunk:06d}")

    def take_chunk(self, location: Location, spec: RecordingSpec, part: Path, chunk: int) -> None:  # noqa: ARG002
        """Move a folder; see `JoinsChunks`."""
        folder = local_directory(location).root / f"{chunk:06d}"
        # One that was taken, but not noted any more before a crash.
        shutil.rmtree(folder, ignore_errors=True)
        (part / f"{0:06d}").rename(folder)

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
        finish(local_directory(location), head, index, records, lambda chunk: f"{chunk:06d}/index")

    def renumber(self, location: Location, index: FrameIndex, frame_number: Int64s) -> None:
        """Replace the frame numbers; see `Renumbers`."""
        stems = _stems([chunk.number for chunk in index.chunks()])
        renumber_chunks(local_directory(location), stems, index, frame_number)

    def inspect(self, location: Location, index: FrameIndex) -> tuple[Problem, ...]:
        """Look through the images of a local recording, and the extra data; see `Inspects`."""
        images = _Images(location, _info(location))
        found: tuple[Problem, ...] = ()
        if isinstance(location, Directory):
            # The image that is being written now lies beyond those of the journal.
            found = tuple(
                problem
                for problem in inspect_images(location, images.info, index)
                if problem.kind != "chunk-length" or not images.is_open(problem.chunk)
            )
        return (*found, *images.extra.problems())

    def repair(self, location: Location) -> tuple[Problem, ...]:
        """Give the chunk that was being written its index; see `Repairs`."""
        directory = local_directory(location)
        images = _Images(directory, _info(directory))
        return repair_chunks(directory, _stems(images.chunk_numbers), images.settle)


@dataclass(frozen=True)
class _Images:
    """The image files of a recording."""

    location: Location
    info: RecordingInfo

    @cached_property
    def chunk_numbers(self) -> list[int]:
        """The chunks that have a directory, ascending."""
        return sorted(int(name) for name in self.location.names() if is_chunk_folder(name))

    def names(self, chunk: int | None) -> list[str]:
        """What lies in the directory of a chunk."""
        return self.location.names(f"{chunk:06d}")

    def is_open(self, chunk: int | None) -> bool:
        """Whether a writer has not finished a chunk."""
        return self.location.exists(f"{chunk:06d}/index{JOURNAL}")

    def stored(self, chunk: int) -> int:
        """How many images a chunk has, up to the first that is missing."""
        names = {*self.names(chunk)}
        count = 0
        while f"{count:06d}.{self.info.format}" in names:
            count += 1
        return count

    def read(self, chunk: int, place: int) -> NDArray[Any]:
        """Read the image at a place of a chunk."""
        info = self.info
        key = image_key(chunk, place, info.format)
        image = np.empty(info.stored_shape, info.imgdtype)
        read_image(self.location, key, info.format, image)
        return image

    @property
    def extra(self) -> ExtraFiles:
        """The extra data beside them."""
        return ExtraFiles(self.location, tuple(_stems(self.chunk_numbers).items()))

    def settle(self, chunk: int) -> int:
        """Return how many whole images a chunk has; remove what was not written to its end."""
        stored = self.stored(chunk)
        journal = read_journal(self.location, f"{chunk:06d}/index")
        if journal is not None and stored == len(journal[0]) + 1:
            # No writer has said yet that it took this one, and it has no frame number.
            stored -= 1
            self.location.delete(image_key(chunk, stored, self.info.format))
        for place in range(stored):
            try:
                self.read(chunk, place)
            except (ChunkMissingError, CorruptChunkError):
                return place
        return stored


def _stems(numbers: list[int]) -> dict[int, str]:
    return {number: f"{number:06d}/index" for number in numbers}


def _stored_dtype(location: Location, kind: str, said: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of the first image: imgstore says uint8 unless told, and saves what it is given."""
    for name in filter(is_chunk_folder, location.names()):
        key = image_key(int(name), 0, kind)
        with contextlib.suppress(OSError, ValueError):
            if kind == "bpk":
                return bloscpack.stored_dtype(location.read(key))
            if found := npy_dtype(location.open(key)):
                return found
    return said


def _info(location: Location) -> RecordingInfo:
    metadata = read_metadata(location, (DIRECTORY_CLASS,))
    kind = str(metadata.store["format"])
    if kind not in DTYPES:
        raise UnsupportedFormatError(
            f"{location.name}: its images are of the format {kind!r}; known are {', '.join(DTYPES)}"
        )
    shape = metadata.imgshape
    if DTYPES[kind] is not None and len(shape) == 3 and not is_color(shape):
        # What imgstore takes for gray, OpenCV reads without a channel.
        shape = shape[:2] if shape[2] == 1 else shape
        check_image(kind, shape, metadata.dtype)
    dtype = metadata.dtype
    if DTYPES[kind] is None:
        dtype = _stored_dtype(location, kind, dtype)
    return RecordingInfo(
        name=location.name,
        layout="directory",
        format=kind,
        imgshape=shape,
        stored_shape=shape,
        imgdtype=dtype,
        encoding=metadata.encoding,
        chunksize=metadata.chunksize,
        created=created_of(location, metadata),
        timezone=timezone_of(metadata),
        uuid=metadata.store.get("uuid"),
        user_metadata=metadata.user,
        lossless=is_lossless(kind, shape),
    )


DIRECTORY_LAYOUT = DirectoryLayout()

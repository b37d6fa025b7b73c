"""verify: whether everything in a recording can be read, and is as it was written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from imgstore_zarr.cores import in_order
from imgstore_zarr.errors import (
    ChunkMissingError,
    CorruptChunkError,
    ImgStoreError,
    InvalidMetadataError,
)
from imgstore_zarr.extra import HasSampledData, sample_blocks
from imgstore_zarr.formats import find_layout
from imgstore_zarr.frames import FrameSource, Window
from imgstore_zarr.index import FrameIndex, Int64s
from imgstore_zarr.layouts import FindsLeftOvers, Layout, Parts, Problem
from imgstore_zarr.report import Report, damaged_report, inspected_report, with_problems
from imgstore_zarr.storage import Location, locate

BLOCK_BYTES = 16 * 2**20
"""How much each thread reads at once."""

MAX_PROBLEMS = 1000
"""Ranges of damaged frames that are told of one by one."""

Progress = Callable[[int, int], None]
_Read = Callable[[int, int], object]


def verify(
    location: object,
    *,
    quick: bool = False,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Report:
    """Check a recording: metadata, index, every file, and every frame.

    Every checksum of the Zarr layout is compared, and every image of video and directories decoded.
    Nothing is written.

    Parameters
    ----------
    location
        See `open`.
    quick
        Leave out the pixels and the extra data.
    progress
        Called with the number of frames that are done, and of all.
    storage_options
        Of a URL of object storage; see `open`.

    Returns
    -------
    Report
        Its problems say what is damaged, missing, or left over; `Report.ok` is true without any.

    Raises
    ------
    RecordingNotFoundError, RecordingAccessError, UnsupportedFormatError, UnsupportedVersionError
        The recording cannot be checked.
    """
    place = locate(location, storage_options)
    layout = find_layout(place)
    try:
        parts = layout.open(place)
    except (ChunkMissingError, CorruptChunkError, InvalidMetadataError) as error:
        return damaged_report(place.name, layout.name, str(error))
    try:
        report = inspected_report(layout, place, parts)
        found = [*_left_over(layout, place, parts)]
        if not quick:
            # What a report leaves out, since it would take long, is done here.
            left = [one for one in report.problems if one.kind != "not-checked"]
            report = replace(report, problems=tuple(left))
            gone = {one.chunk for one in report.problems if one.kind == "chunk-missing"}
            found += _damaged_frames(place.name, parts, gone, progress or _silent)
            damaged = [one for one in report.problems if one.kind == "extra-data-damaged"]
            if not damaged:
                found += _damaged_records(parts)
            told = {one.message for one in damaged}
            found += [one for one in _damaged_samples(parts) if one.message not in told]
    finally:
        parts.frames.close()
    return with_problems(report, found)


def _silent(done: int, total: int) -> None:
    """Tell nobody."""


def _left_over(layout: Layout, location: Location, parts: Parts) -> Iterable[Problem]:
    return layout.left_over(location, parts.index) if isinstance(layout, FindsLeftOvers) else ()


def _damaged_records(parts: Parts) -> Iterator[Problem]:
    try:
        parts.extra.read()
    except ImgStoreError as error:
        yield Problem("extra-data-damaged", str(error))


def _damaged_samples(parts: Parts) -> Iterator[Problem]:
    """Read every sample; the first damage of each column is told."""
    if not isinstance(parts.extra, HasSampledData):
        return
    try:
        datasets = parts.extra.datasets().values()
    except ImgStoreError as error:
        yield Problem("extra-data-damaged", str(error))
        return
    for source in datasets:
        reads: list[_Read] = [partial(source.read, column) for column in source.dtypes]
        for read in [*reads, source.times] if source.timed else reads:
            try:
                for _ in in_order(partial(_read_samples, read), sample_blocks(source)):
                    pass
            except ImgStoreError as error:
                yield Problem("extra-data-damaged", str(error))


def _read_samples(read: _Read, bounds: tuple[int, int]) -> None:
    read(*bounds)


def _damaged_frames(
    name: str, parts: Parts, gone: set[int | None], progress: Progress
) -> list[Problem]:
    """Read every frame, but those of chunks that are known to be gone."""
    ranges: list[_Range] = []
    done, total, more = 0, len(parts.index), 0
    progress(done, total)
    for block in _read_all(name, parts, gone):
        for position, reason in block.damage:
            last = ranges[-1] if ranges else None
            if last and (last.chunk, last.last) == (block.chunk, position - 1):
                last.last = position
            elif len(ranges) < MAX_PROBLEMS:
                ranges.append(_Range(block.chunk, position, position, reason))
            else:
                more += 1
        done += block.stop - block.start
        progress(done, total)
    problems = [Problem("frames-damaged", f"{name}: {one}", one.chunk) for one in ranges]
    if more:
        what = f"{name}: {more} more frames cannot be read"
        problems.append(Problem("frames-damaged", what))
    return problems


@dataclass
class _Range:
    """Neighbouring frames that cannot be read, and why the first of them cannot."""

    chunk: int
    first: int
    last: int
    reason: str

    def __str__(self) -> str:
        if self.first == self.last:
            return self.reason
        count = self.last - self.first + 1
        return (
            f"{count} frames at positions {self.first} to {self.last} cannot be read; the first: "
            f"{self.reason}"
        )


@dataclass(frozen=True)
class _Block:
    """Frames that are read at once, and those of them that cannot be."""

    chunk: int
    start: int
    stop: int
    damage: tuple[tuple[int, str], ...] = ()


def _blocks(frames: FrameSource, index: FrameIndex, gone: set[int | None]) -> Iterator[_Block]:
    most = max(1, BLOCK_BYTES // max(1, prod(frames.shape[1:]) * frames.dtype.itemsize))
    unit = frames.preferred_chunks[0]
    if unit <= 2 * most:
        # Whole GOPs: otherwise two blocks decode the one between them.
        most = max(most // unit, 1) * unit
    for chunk in index.chunks():
        if chunk.number not in gone:
            for start in range(chunk.start, chunk.stop, most):
                yield _Block(chunk.number, start, min(start + most, chunk.stop))


def _read_all(name: str, parts: Parts, gone: set[int | None]) -> Iterator[_Block]:
    """Read all blocks, several at once, and give them back in their order."""

    def read(block: _Block) -> _Block:
        found = unreadable_frames(parts.frames, np.arange(block.start, block.stop))
        reasons = ((position, str(error).removeprefix(f"{name}: ")) for position, error in found)
        return replace(block, damage=tuple(reasons))

    return in_order(read, _blocks(parts.frames, parts.index, gone))


def unreadable_frames(
    frames: FrameSource, positions: Int64s, window: Window | None = None
) -> Iterator[tuple[int, ImgStoreError]]:
    """Read frames at once, and one by one where that fails; iterate over those that cannot be read.

    Parameters
    ----------
    frames, positions, window
        See `FrameSource.read`.
    """
    try:
        frames.read(positions, window)
    except ImgStoreError:
        for position in positions.tolist():
            try:
                frames.read(np.array([position]), window)
            except ImgStoreError as error:
                yield position, error

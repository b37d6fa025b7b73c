"""Comparing a converted recording with its source: every frame, and every sample beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.conversion_job import SourceFrames, blocks
from imgstore_zarr.conversion_source import Source
from imgstore_zarr.cores import in_order
from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.extra import HasSampledData, SampledSource, sample_blocks
from imgstore_zarr.formats import open as open_recording
from imgstore_zarr.frames import Window
from imgstore_zarr.index import Int64s
from imgstore_zarr.storage import Location


def compare(
    location: Location,
    source: Source,
    wanted: SourceFrames,
    window: Window | None,
    progress: Callable[[int, int], None],
) -> float | None:
    """Compare every frame of a recording with those of which it was made.

    Returns
    -------
    float or None
        None where the recording is lossless, and so the same. Else the peak signal-to-noise ratio of the
        frame that differs most, in dB (infinite where none differs).

    Raises
    ------
    CorruptChunkError
        Frames, numbers or times are not those of the source; says the first.
    """
    with open_recording(location) as store:
        for name in ("frame_number", "frame_time"):
            found, expected = getattr(store.index, name), getattr(wanted, name)
            if not np.array_equal(found, expected, equal_nan=True):
                raise CorruptChunkError(
                    f"{location.name}: the {name}s are not those of {source.name}; convert again to "
                    "another place"
                )
        ours, theirs = store.frames.source, source.images()
        # Video is cut to even sizes.
        y0, x0 = (window.y0, window.x0) if window else (0, 0)
        seen = Window(y0, y0 + ours.shape[1], x0, x0 + ours.shape[2])
        lossless = store.lossless
        if not len(wanted):
            return None if lossless else np.inf
        worst = np.inf

        def compared(positions: Int64s) -> tuple[int, NDArray[np.float64], int]:
            expected = theirs.read(wanted.positions[positions], seen)
            images = ours.read(positions)
            if lossless:
                same = (images == expected) | ((images != images) & (expected != expected))
                wrong = np.flatnonzero(~same.reshape(len(same), -1).all(axis=1))
                first = int(positions[wrong[0]]) if len(wrong) else -1
                return first, np.empty(0), len(positions)
            error = np.square(images.astype(np.float32) - expected).reshape(len(images), -1)
            return -1, error.mean(axis=1, dtype=np.float64), len(positions)

        done = 0
        progress(done, len(wanted))
        for position, errors, count in in_order(compared, blocks(ours, np.arange(len(wanted)))):
            if position >= 0:
                raise CorruptChunkError(
                    f"{location.name}: the frame at position {position} (number "
                    f"{wanted.frame_number[position]}) is not that of {source.name} at position "
                    f"{wanted.positions[position]}; convert again to another place"
                )
            with np.errstate(divide="ignore"):
                peak = np.iinfo(ours.dtype).max if ours.dtype.kind in "iu" else 1.0
                worst = min(worst, *(10 * np.log10(peak**2 / errors)).tolist(), np.inf)
            done += count
            progress(done, len(wanted))
        return None if lossless else float(worst)


def compare_samples(
    location: Location, source: Source, datasets: Mapping[str, SampledSource]
) -> None:
    """Compare every sample of a recording with those of which it was made, and when it was taken.

    Parameters
    ----------
    location
        The recording.
    source
        For messages.
    datasets
        What was to come along.

    Raises
    ------
    CorruptChunkError
        They are not the same; says the first dataset, and where.
    """
    with open_recording(location) as store:
        extra = store.parts.extra
        found = extra.datasets() if isinstance(extra, HasSampledData) else {}
        for name, expected in datasets.items():
            differs = _difference(found.get(name), expected)
            if differs is not None:
                raise CorruptChunkError(
                    f"{location.name}: the samples of {name} are not those of {source.name} "
                    f"({differs}); convert again to another place"
                )


def _difference(ours: SampledSource | None, theirs: SampledSource) -> str | None:
    """What the first difference of two datasets is; None where they are the same."""
    if ours is None:
        return "they are not there"
    for aspect in ("dtypes", "samplerate", "timed"):
        if getattr(ours, aspect) != getattr(theirs, aspect):
            return f"their {aspect} differ"
    if ours.lengths.sum() != theirs.lengths.sum():
        return f"there are {ours.lengths.sum()} of {theirs.lengths.sum()}"
    columns = [(name, partial(ours.read, name), partial(theirs.read, name)) for name in ours.dtypes]
    times = [("time", ours.times, theirs.times)] if ours.timed else []
    for name, read, expected in (*columns, *times):

        def differing(bounds: tuple[int, int], read: Any = read, expected: Any = expected) -> int:
            one, other = read(*bounds), expected(*bounds)
            wrong = np.flatnonzero((one != other) & ~((one != one) & (other != other)))
            return bounds[0] + int(wrong[0]) if len(wrong) else -1

        for place in in_order(differing, sample_blocks(ours)):
            if place >= 0:
                return f"{name} at sample {place}"
    return None

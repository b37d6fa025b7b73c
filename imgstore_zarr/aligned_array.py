"""AlignedArray: the frames of several sources on one axis, behind xarray's own lazy indexing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from imgstore_zarr.backend_array import FramesArray, outer_indexed
from imgstore_zarr.frames import FrameSource

_JUMP = 2


@dataclass(frozen=True)
class Runs:
    """Positions along an axis, as runs that go on by one, stand still, or are missing.

    They are sent to dask workers: a week of frames with some drops is a handful of runs.
    """

    starts: NDArray[np.int64]
    values: NDArray[np.int64]
    steps: NDArray[np.int64]

    @classmethod
    def of(cls, positions: NDArray[np.int64]) -> Runs:
        """Return the runs of positions, where -1 is missing."""
        if not len(positions):
            empty = np.empty(0, np.int64)
            return cls(empty, empty, empty)
        moves = np.diff(positions)
        # Small integers: there is one for every frame of a week.
        steps = np.full(len(moves), _JUMP, np.int8)
        steps[moves == 0] = 0
        steps[(moves == 1) & (positions[:-1] >= 0)] = 1
        del moves
        begins = np.ones(len(positions), bool)
        begins[1:] = steps == _JUMP
        # Who went on and then stands still, or the other way round, begins a run, too.
        begins[2:] |= (steps[1:] != steps[:-1]) & (steps[:-1] != _JUMP)
        starts = np.flatnonzero(begins)
        following = np.append(steps, np.int8(0))[starts]
        return cls(
            starts, positions[starts], np.where(following == _JUMP, 0, following).astype(np.int64)
        )

    def at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions at some places of the axis."""
        if not len(places):
            return np.empty(0, np.int64)
        run = np.searchsorted(self.starts, places, "right") - 1
        return self.values[run] + self.steps[run] * (places - self.starts[run])


class AlignedArray(BackendArray):
    """Reads the frames of several sources when xarray asks for values.

    Parameters
    ----------
    sources
        Where the frames come from, one for each camera.
    positions
        int64 (camera, frame), what is shown at each place of the axis; -1 for no image.
    dtype
        Of the result.
    blank
        The pixels of no image: 0, or NaN.
    """

    def __init__(
        self,
        sources: Sequence[FrameSource],
        positions: NDArray[np.int64],
        dtype: np.dtype[Any],
        blank: float,
    ) -> None:
        self._frames = [FramesArray(source) for source in sources]
        self._runs = [Runs.of(row) for row in positions]
        self._blank = blank
        self.shape = (*positions.shape, *sources[0].shape[1:])
        self.dtype = dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        return outer_indexed(key, self.shape, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> NDArray[Any]:
        lists = [
            np.arange(size)[part] if isinstance(part, slice) else np.asarray(part) % size
            for part, size in zip(key, self.shape, strict=True)
        ]
        cameras, places, *rest = (np.atleast_1d(part) for part in lists)
        shape = (len(cameras), len(places), *(len(part) for part in rest))
        out = np.full(shape, self._blank, self.dtype)
        for row, camera in zip(out, cameras.tolist(), strict=True):
            positions = self._runs[camera].at(places)
            there = positions >= 0
            if there.any() and out.size:
                inner = indexing.OuterIndexer((positions[there], *rest))
                row[there] = self._frames[camera][inner]
        dropped = tuple(axis for axis, part in enumerate(lists) if np.ndim(part) == 0)
        return out.squeeze(dropped)

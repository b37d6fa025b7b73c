"""What the tests of the kit are given: a recording, and every kind of index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import imgstore_zarr

Record = Mapping[str, Any]

INDICES: Mapping[str, Any] = {
    "integer": 1,
    "negative integer": -1,
    "NumPy integer": np.uint8(2),
    "all": np.s_[:],
    "ellipsis": np.s_[...],
    "slice": np.s_[1:-1],
    "slice beyond the end": np.s_[2 : 10**9],
    "empty slice": np.s_[3:3],
    "step": np.s_[::2],
    "backwards": np.s_[::-1],
    "backwards in steps": np.s_[-1:0:-2],
    "list": [3, 0, 2],
    "list with repeats": [-1, 1, 1, 0, -1],
    "empty list": [],
    "array": np.array([4, 1]),
    "array of two dimensions": np.array([[4, 1], [0, 4]]),
    "mask": lambda shape: np.arange(shape[0]) % 3 == 1,
    "mask of nothing": lambda shape: np.zeros(shape[0], bool),
    "window": np.s_[:, 1:4, 2:5],
    "window of one frame": np.s_[2, 1:-1, -3:],
    "empty window": np.s_[0:2, 2:2],
    "window in steps": np.s_[0:3, ::2, ::-3],
    "pixel": np.s_[1, 2, 3],
    "pixel over time": np.s_[:, 2, 3],
    "row": np.s_[:, -1],
    "columns by list": np.s_[0:3, :, [4, 0]],
    "frames and rows, paired": np.s_[[0, 3], [1, 2]],
    "rows by mask": lambda shape: (0, np.arange(shape[1]) % 2 == 0),
    "last axis": np.s_[..., 0],
}
"""Every kind of index that `Frames` must answer as NumPy does; masks are made for a shape."""


@dataclass(frozen=True)
class Example:
    """A recording, and what it must be found to hold.

    Attributes
    ----------
    location
        What `imgstore_zarr.open` takes.
    images
        At least 5 images of at least 6 x 6 pixels.
    numbers, times
        Per image its frame number and its frame time.
    extra
        The records of extra data, None where there are none.
    storage_options
        Where the location is a URL: what `imgstore_zarr.open` takes beside it.
    """

    location: Any
    images: Sequence[NDArray[Any]]
    numbers: Sequence[int]
    times: Sequence[float]
    extra: Sequence[Record] | None = None
    storage_options: Mapping[str, Any] | None = None

    @property
    def place(self) -> imgstore_zarr.Location:
        """The location, found."""
        return imgstore_zarr.locate(self.location, self.storage_options)

    def open(self) -> imgstore_zarr.ImgStore:
        """Open the recording."""
        return imgstore_zarr.open(self.location, storage_options=self.storage_options)

    @property
    def stack(self) -> NDArray[Any]:
        """All images as one array."""
        return np.stack(self.images)

    def __len__(self) -> int:
        return len(self.images)

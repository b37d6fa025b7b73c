"""FramesArray: a FrameSource behind xarray's own lazy indexing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from imgstore_zarr.cores import one_core
from imgstore_zarr.frames import Frames, FrameSource
from imgstore_zarr.shared_sources import SharedSource


class FramesArray(BackendArray):
    """Reads frames when xarray asks for values.

    What is pickled (for dask workers) is where the frames lie, neither frames nor handles; see
    `SharedSource`.

    Parameters
    ----------
    source
        Where the frames come from.
    """

    def __init__(self, source: FrameSource) -> None:
        self._shared = SharedSource(source)
        self.shape = source.shape
        self.dtype = np.dtype(source.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        return outer_indexed(key, self.shape, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> NDArray[Any]:
        # Outer indexing: an array selects along its own axis only. The first axis decides what is
        # read; the others are cut from that one by one.
        frames, *rest = (
            part if isinstance(part, slice) else np.where(np.less(part, 0), part + size, part)
            for part, size in zip(key, self.shape, strict=True)
        )
        low = tuple(part if isinstance(part, slice) else _span(part) for part in rest)
        # Dask's tasks run in threads: each with one core gives more than each with all of them.
        in_main = threading.current_thread() is threading.main_thread()
        with contextlib.nullcontext() if in_main else one_core():
            block = Frames(self._shared.source)[(frames, *low)]
        axis = 1 if isinstance(frames, slice) or np.ndim(frames) else 0
        for part in rest:
            if isinstance(part, slice):
                axis += 1
            elif np.ndim(part) == 0:
                block = block.take(0, axis)
            else:
                start = int(np.min(part)) if np.size(part) else 0
                block = block.take(np.asarray(part) - start, axis)
                axis += 1
        return block


def outer_indexed(
    key: indexing.ExplicitIndexer,
    shape: tuple[int, ...],
    outer: Callable[[tuple[Any, ...]], NDArray[Any]],
) -> NDArray[Any]:
    """Answer any index of xarray's with a function that knows outer indexing."""
    # xarray cannot turn round an empty slice that goes backwards.
    parts = tuple(
        slice(0, 0) if isinstance(part, slice) and not range(size)[part] else part
        for part, size in zip(key.tuple, shape, strict=True)
    )
    result: NDArray[Any] = indexing.explicit_indexing_adapter(
        type(key)(parts), shape, indexing.IndexingSupport.OUTER, outer
    )
    return result


def _span(part: Any) -> slice:
    """The range that covers an integer or an array of them."""
    if np.size(part) == 0:
        return slice(0, 0)
    return slice(int(np.min(part)), int(np.max(part)) + 1)

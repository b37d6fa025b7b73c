"""align: several recordings on one axis, by frame number or by time, as one lazy DataArray."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.dataarray import BLOCK_BYTES
from imgstore_zarr.errors import FrameMismatchError, MissingDependencyError
from imgstore_zarr.index import Float64s, FrameIndex, Int64s
from imgstore_zarr.matching import match_positions
from imgstore_zarr.pixels import is_color
from imgstore_zarr.store import ImgStore

if TYPE_CHECKING:
    import xarray as xr

_KINDS: dict[str, tuple[str, ...]] = {
    "on": ("frame_number", "frame_time"),
    "how": ("inner", "outer"),
    "missing": ("mask", "hold", "blank"),
}


def align(
    stores: Iterable[ImgStore],
    on: Literal["frame_number", "frame_time"] = "frame_number",
    how: Literal["inner", "outer"] = "inner",
    *,
    missing: Literal["mask", "hold", "blank"] = "mask",
    tolerance: float | None = None,
    names: Sequence[str] | None = None,
    chunks: Literal["auto"] | int | None = None,
) -> xr.DataArray:
    """Put recordings side by side on one axis; nothing is decoded until it is asked for.

    Parameters
    ----------
    stores
        Recordings with images of one shape and dtype.
    on
        ``"frame_number"``: frames with the same number belong together; of repeated numbers the first in
        recording order. ``"frame_time"``: to each frame of the first recording belongs the frame of each
        other one that is nearest in time, the earlier one on a tie.
    how
        ``"inner"``: only frames that every recording has. ``"outer"``: frames that any of them has,
        by time all of the first one.
    missing
        What stands for an image that a recording does not have, with ``how="outer"``. ``"mask"``: NaN,
        so that images become floating point. ``"hold"``: the image before, zeros before the first one.
        ``"blank"``: zeros. The coordinate ``present`` tells them from real ones in any case.
    tolerance
        By time: how far apart frames may be, in seconds. By default half the median interval of the
        first recording.
    names
        Of the cameras; by default those of the recordings, numbered where two are the same.
    chunks
        None: lazy without dask. ``"auto"``, or a number of frames: dask blocks of one camera each.

    Returns
    -------
    DataArray
        ``image`` with dimensions (camera, frame, y, x[, channel]). Along ``frame`` the coordinate `on`,
        which ``.sel`` looks up, ascending by number, in recording order by time. Along (camera, frame)
        ``present`` (bool), ``position`` in the recording (int64, -1 where it is not present), and
        ``camera_time`` (float64, seconds, NaN where it is not present).

    Raises
    ------
    FrameMismatchError
        No recordings, or images of different shapes or dtypes.
    ValueError
        An argument that is not among those above.
    """
    cameras = list(stores)
    _check(cameras, on=on, how=how, missing=missing)
    indexes = [store.index for store in cameras]
    axis: Int64s | Float64s
    if on == "frame_number":
        axis, positions = _by_number(indexes, how)
    else:
        axis, positions = _by_time(indexes, how, tolerance)
    dtype = cameras[0].dtype
    if how == "outer" and missing == "mask":
        dtype = np.result_type(dtype, np.float32 if dtype.itemsize <= 2 else np.float64)
    shown = _held(positions) if missing == "hold" else positions
    images = _images(cameras, shown, dtype, chunks)
    present = positions >= 0
    times = np.full(positions.shape, np.nan)
    for row, index, where, there in zip(times, indexes, positions, present, strict=True):
        row[there] = index.frame_time[where[there]]
    coords: dict[str, Any] = {
        "camera": _named(cameras, names),
        on: ("frame", axis, {"units": "s"} if on == "frame_time" else {}),
        "present": (("camera", "frame"), present),
        "position": (("camera", "frame"), positions),
        "camera_time": (("camera", "frame"), times, {"units": "s"}),
    }
    if is_color(images.shape[2:]):
        coords["channel"] = ["b", "g", "r"]
    import xarray as xr

    return xr.DataArray(images, coords=coords, name="image").set_xindex(on)


def _check(cameras: Sequence[ImgStore], **given: str) -> None:
    for name, value in given.items():
        if value not in _KINDS[name]:
            raise ValueError(f"{name} must be one of {', '.join(_KINDS[name])}, not {value!r}")
    if not cameras:
        raise FrameMismatchError("align needs at least one recording")
    first = cameras[0]
    for store in cameras:
        if (store.image_shape, store.dtype) != (first.image_shape, first.dtype):
            raise FrameMismatchError(
                f"{store.filename} has images of {store.image_shape} {store.dtype}, {first.filename} of "
                f"{first.image_shape} {first.dtype}: align recordings with images of one shape and dtype"
            )


def _by_number(indexes: Sequence[FrameIndex], how: str) -> tuple[Int64s, NDArray[np.int64]]:
    """The frame numbers, ascending, and (camera, frame) the position of each, -1 where there is none."""
    found = [np.unique(index.frame_number, return_index=True) for index in indexes]
    axis = found[0][0]
    for numbers, _ in found[1:]:
        axis = np.intersect1d(axis, numbers, True) if how == "inner" else np.union1d(axis, numbers)
    positions = np.full((len(indexes), len(axis)), -1, np.int64)
    for row, (numbers, firsts) in zip(positions, found, strict=True):
        places = np.searchsorted(numbers, axis)
        inside = places < len(numbers)
        inside[inside] = numbers[places[inside]] == axis[inside]
        row[inside] = firsts[places[inside]]
    return axis, positions


def _by_time(
    indexes: Sequence[FrameIndex], how: str, tolerance: float | None
) -> tuple[Float64s, NDArray[np.int64]]:
    """The times of the first recording, and (camera, frame) the nearest positions, or -1."""
    axis = indexes[0].frame_time
    if tolerance is None:
        intervals = np.diff(axis[np.isfinite(axis)])
        tolerance = float(np.median(intervals)) / 2 if len(intervals) else 0.0
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be a number of seconds, at least 0, not {tolerance!r}")
    nearest = [
        match_positions(index.frame_time, axis, "nearest", tolerance) for index in indexes[1:]
    ]
    own = np.where(np.isfinite(axis), np.arange(len(axis)), -1)
    positions = np.stack([own, *nearest])
    if how == "outer":
        positions[0] = np.arange(len(axis))
        return axis, positions
    both = (positions >= 0).all(axis=0)
    return axis[both], positions[:, both]


def _held(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions with the last one before in place of those that are missing."""
    places = np.where(positions >= 0, np.arange(positions.shape[1]), -1)
    last = np.maximum.accumulate(places, axis=1)
    held: NDArray[np.int64] = np.where(
        last >= 0, np.take_along_axis(positions, np.maximum(last, 0), axis=1), -1
    )
    return held


def _images(
    cameras: Sequence[ImgStore],
    shown: NDArray[np.int64],
    dtype: np.dtype[Any],
    chunks: Literal["auto"] | int | None,
) -> xr.Variable:
    import xarray as xr
    from xarray.core.indexing import LazilyIndexedArray

    from imgstore_zarr.aligned_array import AlignedArray

    backend = AlignedArray([store.frames.source for store in cameras], shown, dtype)
    channel = ("channel",) if len(backend.shape) == 5 else ()
    dims = ("camera", "frame", "y", "x", *channel)
    variable = xr.Variable(dims, LazilyIndexedArray(backend), fastpath=True)
    if chunks is None:
        return variable
    image_bytes = int(np.prod(backend.shape[2:])) * dtype.itemsize
    return variable.chunk(dict.fromkeys(dims, -1) | _blocks(image_bytes, chunks))


def _named(cameras: Sequence[ImgStore], names: Sequence[str] | None) -> list[str]:
    if names is None:
        names = [PurePath(store.filename).name for store in cameras]
        if len(set(names)) < len(names):
            names = [f"{i}: {name}" for i, name in enumerate(names)]
    if len(set(names)) != len(cameras):
        raise ValueError(f"{len(cameras)} cameras need as many different names, not {list(names)}")
    return list(names)


def _blocks(image_bytes: int, chunks: Any) -> dict[str, int]:
    if not (chunks == "auto" or (isinstance(chunks, int) and chunks > 0)):
        raise ValueError(f"chunks must be 'auto', a number of frames, or None, not {chunks!r}")
    try:
        import dask.array  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "chunks= needs dask: pip install 'imgstore-zarr[dask]', or leave chunks=None"
        ) from error
    frames = max(1, BLOCK_BYTES // max(1, image_bytes)) if chunks == "auto" else chunks
    return {"camera": 1, "frame": frames}

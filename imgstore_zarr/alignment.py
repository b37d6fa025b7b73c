"""align: several recordings on one axis, by frame number or by time, as one lazy DataArray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.dataarray import blocks_of, looked_up
from imgstore_zarr.errors import FrameMismatchError, MissingDependencyError
from imgstore_zarr.frames import FrameSource
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

# Frames that are matched at once: what is made on the way stays in the processor's cache.
_AT_ONCE = 2**18

# A table of all numbers is made where it is at most so many times as long as the longest recording.
_SPARSEST = 2


def align(
    stores: Iterable[ImgStore],
    on: Literal["frame_number", "frame_time"] = "frame_number",
    how: Literal["inner", "outer"] = "inner",
    *,
    missing: Literal["mask", "hold", "blank"] = "mask",
    tolerance: float | None = None,
    names: Sequence[str] | None = None,
    chunks: Literal["auto"] | int | Mapping[Any, Any] | None = None,
) -> xr.DataArray:
    """Put recordings side by side on one axis; nothing is decoded until it is asked for.

    Parameters
    ----------
    stores
        Opened recordings, with images of one shape and dtype.
    on
        ``"frame_number"``: frames with the same number belong together; of repeated numbers the first in
        recording order. ``"frame_time"``: to each frame of the first recording belongs the frame of each
        other one that is nearest in time, the earlier one on a tie.
    how
        ``"inner"``: only frames that every recording has. ``"outer"``: frames that any of them has,
        by time all of the first one.
    missing
        What stands for an image that a recording does not have, with ``how="outer"``. ``"mask"``: NaN,
        so that integers become float32, or float64 if they have over 16 bits. ``"hold"``: the image
        before, zeros before the first one. ``"blank"``: zeros. The coordinate ``present`` tells them
        from real ones in any case.
    tolerance
        By time: how far apart frames may be, in seconds. By default half the median interval of the
        first recording, whichever way its times go.
    names
        Of the cameras; by default those of the recordings, numbered where two are the same.
    chunks
        None: lazy without dask. ``"auto"``, a number of frames, or a mapping from ``"frame"`` to one of
        these: dask blocks of one camera each. They begin where blocks of the first recording begin
        (`ImgStore.to_xarray`), so a number is rounded to whole shards or GOPs of that one; where it has
        no frames, those of the next. ``"auto"`` makes about 128 MiB of stored pixels, of which
        ``"mask"`` makes up to four times as much.

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
    TypeError
        A path, or anything else that is no opened recording; or only one that is not in a list.
    ValueError
        An argument that is not among those above, or one that would change nothing: `missing` with
        ``how="inner"``, `tolerance` by number.
    """
    cameras = _opened(stores)
    _check(cameras, on=on, how=how, missing=missing)
    if how == "inner" and missing != "mask":
        raise ValueError(f"missing={missing!r} needs how='outer': with 'inner' no image is missing")
    if on == "frame_number" and tolerance is not None:
        raise ValueError(
            "tolerance needs on='frame_time': frame numbers match exactly or not at all"
        )
    indexes = [store.index for store in cameras]
    axis: Int64s | Float64s
    if on == "frame_number":
        axis, positions = _by_number(indexes, how)
    else:
        axis, positions = _by_time(indexes, how, tolerance)
    dtype, blank = cameras[0].dtype, 0.0
    if how == "outer" and missing == "mask":
        blank = np.nan
        if dtype.kind != "f":
            dtype = np.result_type(dtype, np.float32 if dtype.itemsize <= 2 else np.float64)
    shown = _held(positions) if missing == "hold" else positions
    images = _images(cameras, shown, dtype, blank, chunks)
    del shown
    present = positions >= 0
    times = np.full(positions.shape, np.nan)
    for row, index, where, there in zip(times, indexes, positions, present, strict=True):
        if len(index):
            # Clipped, it goes straight into the row; what -1 finds is taken out again.
            np.take(index.frame_time, where, out=row, mode="clip")
            row[~there] = np.nan
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

    array = xr.DataArray(images, name="image")
    # Given to DataArray itself they would be copied.
    return looked_up(array.assign_coords(coords), on)


def _opened(stores: Any) -> list[ImgStore]:
    if isinstance(stores, ImgStore):
        raise TypeError("align takes recordings in a list, even a single one: align([store])")
    cameras: list[Any] = [stores] if isinstance(stores, str | PurePath) else list(stores)
    for store in cameras:
        if isinstance(store, str | PurePath):
            raise TypeError(
                f"align takes opened recordings, not paths; open it first: "
                f"imgstore_zarr.open({str(store)!r})"
            )
        if not isinstance(store, ImgStore):
            raise TypeError(
                f"align takes opened recordings, not {type(store).__name__}; open it first: "
                "imgstore_zarr.open(...)"
            )
    return cameras


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


def _by_number(indexes: Sequence[FrameIndex], how: str) -> tuple[Int64s, Int64s]:
    """The frame numbers, ascending, and (camera, frame) the position of each, -1 where there is none."""
    columns = [index.frame_number for index in indexes]
    inner = how == "inner"
    used = columns if inner else [numbers for numbers in columns if len(numbers)]
    if not used or not all(len(numbers) for numbers in used):
        return np.empty(0, np.int64), np.empty((len(columns), 0), np.int64)
    lows = [int(numbers.min()) for numbers in used]
    highs = [int(numbers.max()) for numbers in used]
    low, high = (max(lows), min(highs)) if inner else (min(lows), max(highs))
    if high - low < _SPARSEST * max(map(len, used)):
        return _by_table(columns, inner, low, max(high + 1 - low, 0))
    return _by_search(columns, inner)


def _by_table(columns: Sequence[Int64s], inner: bool, low: int, span: int) -> tuple[Int64s, Int64s]:
    """Numbers that leave out few, in any order: into a table of all of them, without sorting."""
    positions = np.full((len(columns), span), -1, np.int64)
    seen = np.full(span, inner)
    for row, numbers in zip(positions, columns, strict=True):
        # From the end, so that the first of repeated numbers is written last and stays.
        for start in reversed(range(0, len(numbers), _AT_ONCE)):
            part = numbers[start : start + _AT_ONCE]
            inside = np.flatnonzero((part >= low) & (part < low + span))[::-1]
            row[part[inside] - low] = inside + start
        if inner:
            seen &= row >= 0
        else:
            seen |= row >= 0
    if seen.all():
        return np.arange(span) + low, positions
    places = np.flatnonzero(seen)
    return places + low, positions[:, places]


def _by_search(columns: Sequence[Int64s], inner: bool) -> tuple[Int64s, Int64s]:
    """Numbers that leave out many."""
    found = [_unique(numbers) for numbers in columns]
    axis = found[0][0]
    for numbers, _ in found[1:]:
        if np.array_equal(axis, numbers):
            continue
        # A stable sort merges what ascends already.
        both = np.sort(np.concatenate([axis, numbers]), kind="stable")
        again = both[1:] == both[:-1]
        axis = both[1:][again] if inner else both[np.append(True, ~again)]
    positions = np.full((len(columns), len(axis)), -1, np.int64)
    for row, (numbers, firsts) in zip(positions, found, strict=True):
        if not len(numbers):
            continue
        for start in range(0, len(axis), _AT_ONCE):
            wanted = axis[start : start + _AT_ONCE]
            # All that may be found for these lies close together.
            first, stop = np.searchsorted(numbers, wanted[[0, -1]])
            near = numbers[first : stop + 1]
            if len(near):
                places = np.searchsorted(near, wanted)
                inside = np.flatnonzero(near.take(places, mode="clip") == wanted)
                places = places[inside] + first
                row[inside + start] = places if firsts is None else firsts[places]
    return axis, positions


def _unique(numbers: Int64s) -> tuple[Int64s, Int64s | None]:
    """The numbers, ascending, and where the first of each is; None: each where it is."""
    if bool(np.all(numbers[1:] > numbers[:-1])):
        return numbers, None
    return np.unique(numbers, return_index=True)


def _by_time(
    indexes: Sequence[FrameIndex], how: str, tolerance: float | None
) -> tuple[Float64s, Int64s]:
    """The times of the first recording, and (camera, frame) the nearest positions, or -1."""
    axis = indexes[0].frame_time
    known = np.isfinite(axis)
    if tolerance is None:
        intervals = np.diff(axis if known.all() else axis[known])
        np.abs(intervals, out=intervals)
        tolerance = float(np.median(intervals, overwrite_input=True)) / 2 if len(intervals) else 0.0
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be a number of seconds, at least 0, not {tolerance!r}")
    positions = np.empty((len(indexes), len(axis)), np.int64)
    positions[0] = np.arange(len(axis))
    for row, index in zip(positions[1:], indexes[1:], strict=True):
        _match_nearest(index.frame_time, axis, tolerance, row)
    if how == "outer":
        return axis, positions
    for row in positions[1:]:
        known &= row >= 0
    if known.all():
        return axis, positions
    places = np.flatnonzero(known)
    return axis[places], positions[:, places]


def _match_nearest(keys: Float64s, wanted: Float64s, tolerance: float, out: Int64s) -> None:
    """Fill in the position of the nearest key, part by part where both ascend."""
    if not (bool(np.all(keys[1:] > keys[:-1])) and bool(np.all(wanted[1:] >= wanted[:-1]))):
        out[:] = match_positions(keys, wanted, "nearest", tolerance)
        return
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        first, stop = np.searchsorted(keys, part[[0, -1]])
        # One key before and one after: all others are further from any of these.
        first = max(int(first) - 1, 0)
        found = match_positions(keys[first : int(stop) + 1], part, "nearest", tolerance)
        found[found >= 0] += first
        out[start : start + len(part)] = found


def _held(positions: Int64s) -> Int64s:
    """Positions with the last one before in place of those that are missing."""
    held = np.empty_like(positions)
    for row, out in zip(positions, held, strict=True):
        places = np.arange(len(row))
        places[row < 0] = 0
        np.maximum.accumulate(places, out=places)
        # Before the first there is place 0, which is -1 then.
        np.take(row, places, out=out, mode="clip")
    return held


def _images(
    cameras: Sequence[ImgStore],
    shown: NDArray[np.int64],
    dtype: np.dtype[Any],
    blank: float,
    chunks: Literal["auto"] | int | Mapping[Any, Any] | None,
) -> xr.Variable:
    import xarray as xr
    from xarray.core.indexing import LazilyIndexedArray

    from imgstore_zarr.aligned_array import AlignedArray

    sources = [store.frames.source for store in cameras]
    backend = AlignedArray(sources, shown, dtype, blank)
    channel = ("channel",) if len(backend.shape) == 5 else ()
    dims = ("camera", "frame", "y", "x", *channel)
    variable = xr.Variable(dims, LazilyIndexedArray(backend), fastpath=True)
    if chunks is None:
        return variable
    wanted = _frames_wanted(chunks)
    lengths = _blocks(sources, [store.index for store in cameras], shown, wanted)
    return variable.chunk({**dict.fromkeys(dims, -1), "camera": 1, "frame": lengths})


def _named(cameras: Sequence[ImgStore], names: Sequence[str] | None) -> list[str]:
    if names is None:
        names = [PurePath(store.filename).name for store in cameras]
        if len(set(names)) < len(names):
            names = [f"{i}: {name}" for i, name in enumerate(names)]
    if len(set(names)) != len(cameras):
        raise ValueError(f"{len(cameras)} cameras need as many different names, not {list(names)}")
    return list(names)


def _frames_wanted(chunks: Any) -> int | None:
    """The number of frames in a block that was asked for; None: as many as are good."""
    wanted = chunks
    if isinstance(chunks, Mapping):
        wanted = chunks.get("frame", "auto")
        if set(chunks) - {"frame"}:
            raise ValueError(
                f"chunks can only name frame, not {list(chunks)}: blocks are whole images"
            )
    auto = wanted is None or (isinstance(wanted, str) and wanted == "auto")
    number = isinstance(wanted, int | np.integer) and not isinstance(wanted, bool)
    if not (auto or (number and wanted > 0)):
        raise ValueError(
            "chunks must be 'auto', a number of frames that is at least 1, {'frame': one of these}, "
            f"or None, not {chunks!r}"
        )
    try:
        import dask.array  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "chunks= needs dask: pip install 'imgstore-zarr[dask]', or leave chunks=None"
        ) from error
    return None if auto else int(wanted)


def _blocks(
    sources: Sequence[FrameSource],
    indexes: Sequence[FrameIndex],
    shown: Int64s,
    wanted: int | None,
) -> tuple[int, ...]:
    """Cut the axis where blocks of the first camera begin, and where it has none, those of others."""
    total = shown.shape[1]
    bounds = [0, total]
    longest = 0
    for source, index, row in zip(sources, indexes, shown, strict=True):
        lengths = blocks_of(source, index, wanted)
        # What another one adds to the axis may make blocks twice as long.
        bounds = _cut(
            bounds, 2 * longest, _begins(row, lengths), max(lengths), _unit(source, lengths)
        )
        longest = max(longest, *lengths)
    plain = [
        place
        for start, stop in pairwise(bounds)
        for place in (range(start, stop, longest) if stop - start > 2 * longest else [start])
    ]
    return tuple(np.diff([*plain, total]).tolist())


def _unit(source: FrameSource, lengths: tuple[int, ...]) -> int:
    """How long a block must be. A unit that is itself cut (a chunk that is a shard) says nothing."""
    unit = source.preferred_chunks[0]
    return unit if unit <= max(lengths) else 1


def _begins(row: Int64s, lengths: tuple[int, ...]) -> Int64s:
    """The places of the axis where a camera goes from one of its blocks to another."""
    there = np.flatnonzero(row >= 0)
    blocks = np.searchsorted(np.cumsum(lengths)[:-1], row[there], "right")
    begins: Int64s = there[1:][blocks[1:] != blocks[:-1]]
    return begins


def _cut(bounds: list[int], limit: int, places: Int64s, longest: int, unit: int) -> list[int]:
    """Cut what is longer than a limit at some of the places: up to the longest, at least a unit."""
    cut = bounds[:1]
    for start, stop in pairwise(bounds):
        inner = places[np.searchsorted(places, start, "right") : np.searchsorted(places, stop)]
        while stop - start > max(limit, longest):
            at = int(np.searchsorted(inner, start + longest, "right")) - 1
            if at < 0 or inner[at] < start + unit:
                at = int(np.searchsorted(inner, start + unit))
            # Only the end of the axis may be shorter.
            if at >= len(inner) or (inner[at] > stop - unit and stop < bounds[-1]):
                break
            start = int(inner[at])
            cut.append(start)
        cut.append(stop)
    return cut

"""Frames and their index as an ``xarray.DataArray``, lazily; needs no store."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import MissingDependencyError, UnsupportedFormatError
from imgstore_zarr.frames import FrameSource, HasBoundaries, Tiled
from imgstore_zarr.index import FrameIndex, Int64s
from imgstore_zarr.pixels import is_color

if TYPE_CHECKING:
    import xarray as xr

BLOCK_BYTES = 128 * 2**20
"""Size of a default dask block."""

MAX_BLOCKS = 20_000
"""Default blocks of one recording, at most: larger ones are made for a week."""

Chunks = Literal["auto"] | int | Mapping[Any, Any] | None

Entries = Callable[[int], "Int64s | None"]
"""Where in a chunk, counted from 0, reading can begin: places, ascending from 0; None: not known."""

# Chunks of which the packet tables are read only to find good places for blocks.
_LISTED = 16

# A GOP may make a block so many times as long as it should be.
_LONGEST = 8


def block_lengths(
    index: FrameIndex,
    unit: int,
    frame_bytes: int,
    frames: int | None = None,
    entries: Entries | None = None,
) -> tuple[int, ...]:
    """Cut a recording into blocks of frames that are good to read together.

    Blocks begin where a chunk begins. A chunk that is longer than a block is cut at multiples of `unit`,
    or of `frames` where the unit is the whole chunk; or, where that is known, at its entries.

    Parameters
    ----------
    index
        Where the chunks start.
    unit
        Frames that are best read together (a shard, a GOP).
    frame_bytes
        Size of a frame in memory.
    frames
        Frames wanted in a block; by default about `BLOCK_BYTES` of them, more in a recording that
        would otherwise have over `MAX_BLOCKS` blocks.
    entries
        Where in a chunk reading can begin, in place of the multiples of `unit`.

    Returns
    -------
    tuple of int
        Frames in each block.
    """
    total = len(index)
    if not total:
        return (0,)
    if frames is None:
        frames = max(BLOCK_BYTES // frame_bytes, -(-total // MAX_BLOCKS), 1)
        spread = 1.0
        while True:
            lengths = _cut(index, unit, int(frames * spread), entries, even=True)
            if len(lengths) <= MAX_BLOCKS:
                return lengths
            spread *= 1.1
    return _cut(index, unit, frames, entries)


def _cut(
    index: FrameIndex,
    unit: int,
    target: int,
    entries: Entries | None = None,
    *,
    even: bool = False,
) -> tuple[int, ...]:
    spans = np.diff(np.append(index.chunk_starts, len(index))).tolist()
    lengths: list[int] = []
    collected = 0
    for chunk, span in enumerate(spans):
        if collected and collected + span > target:
            lengths.append(collected)
            collected = 0
        if span <= target:
            collected += span
            continue
        places = entries(chunk) if entries else None
        if places is not None:
            lengths += _cut_at(places, span, _even(span, target, 1) if even else target)
            continue
        # A chunk that is longer than a block: into parts of whole units, if a unit is not longer.
        own = unit if unit < span else 1
        part = max(target // own, 1) * own
        part = _even(span, part, own) if even else part
        lengths.extend([part] * (span // part))
        if span % part:
            lengths.append(span % part)
    if collected:
        lengths.append(collected)
    return tuple(lengths)


def _even(span: int, part: int, unit: int) -> int:
    """A shorter part, of whole units, that gives as many parts, as long as each other if that can be."""
    parts = -(-span // part)
    return -(-span // (parts * unit)) * unit


def _cut_at(places: Int64s, span: int, target: int) -> list[int]:
    """Cut a chunk into parts of whole GOPs, as many as fit; one that is far too long is cut itself."""
    bounds = [0]
    places = np.append(places[places < span], span)
    while bounds[-1] < span:
        start = bounds[-1]
        at = int(np.searchsorted(places, start + target, "right")) - 1
        stop = int(places[at])
        if stop <= start:
            stop = int(places[at + 1])
        bounds.append(stop if stop - start <= _LONGEST * target else start + target)
    return np.diff(bounds).tolist()


def to_dataarray(
    source: FrameSource,
    index: FrameIndex,
    *,
    attributes: Mapping[str, Any],
    chunks: Chunks = None,
    by: Literal["frame_number", "frame_time"] | None = None,
    datetime: bool = False,
) -> xr.DataArray:
    """Return frames as a DataArray; nothing is read until it is asked for.

    Parameters
    ----------
    source, index
        The frames, and where they are.
    attributes
        Attributes of the array.
    chunks
        None: lazy without dask. ``"auto"``: dask blocks of about 128 MiB. A mapping from dimension
        to block size, or a number of frames: dask blocks of that size. A number of frames is rounded
        so that blocks begin where shards or GOPs begin; a tuple of lengths is taken as it is.
    by
        The coordinate that ``.sel`` looks up, instead of positions.
    datetime
        Add the coordinate ``time`` (datetime64[ns], UTC) made of ``frame_time``.

    Returns
    -------
    DataArray
        Named ``image``, with dimensions (frame, y, x[, channel]) and the coordinates
        ``frame_number`` and ``frame_time``.

    Raises
    ------
    ValueError
        Blocks or a coordinate that there cannot be.
    """
    if by not in (None, "frame_number", "frame_time"):
        raise ValueError(f"index must be 'frame_number', 'frame_time' or None, not {by!r}")
    import xarray as xr
    from xarray.core.indexing import LazilyIndexedArray

    from imgstore_zarr.backend_array import FramesArray

    channel = ("channel",) if len(source.shape) == 4 else ()
    dims = ("frame", "y", "x", *channel)
    coords: dict[str, Any] = {
        "frame_number": ("frame", index.frame_number),
        "frame_time": ("frame", index.frame_time, {"units": "s"}),
    }
    if datetime:
        coords["time"] = ("frame", datetimes(index.frame_time))
    if is_color(source.shape[1:]):
        coords["channel"] = ["b", "g", "r"]
    lazy = LazilyIndexedArray(FramesArray(source))
    variable = xr.Variable(dims, lazy, dict(attributes), fastpath=True)
    if chunks is not None:
        variable = variable.chunk(_dask_chunks(dims, source, index, chunks))
        frame = chunks.get("frame") if isinstance(chunks, Mapping) else chunks
        blocks = variable.chunks or ()
        _warn_of_cuts(source, index, blocks, of_frames=frame not in ("auto", None))
    array = xr.DataArray(variable, coords=coords, name="image")
    if by is not None:
        array = looked_up(array, by)
    # Last: what is made of a variable forgets it.
    lengths = blocks_of(source, index)
    preferred = dict(zip(dims, (lengths, *source.shape[1:]), strict=True))
    array.encoding = {"preferred_chunks": preferred}
    return array


def looked_up(array: xr.DataArray, by: str) -> xr.DataArray:
    """Let ``.sel`` look up a coordinate; xarray's own index does it where values ascend."""
    values = array[by].values
    if bool(np.all(values[1:] > values[:-1])):
        return array.set_xindex(by)
    from imgstore_zarr.unsorted_index import UnsortedIndex

    return array.set_xindex(by, UnsortedIndex)


def blocks_of(source: FrameSource, index: FrameIndex, frames: int | None = None) -> tuple[int, ...]:
    """Return the block lengths of a source; see `block_lengths`."""
    frame_bytes = int(np.prod(source.shape[1:])) * source.dtype.itemsize
    entries = _entries_of(source, index)
    return block_lengths(index, source.preferred_chunks[0], frame_bytes, frames, entries)


def _entries_of(source: FrameSource, index: FrameIndex) -> Entries | None:
    """Where reading can begin, chunk by chunk; None where nobody waits for that, or all is regular."""
    if not isinstance(source, HasBoundaries) or len(index.chunk_starts) > _LISTED:
        return None
    starts, stops = index.chunk_starts.tolist(), index.chunk_stops.tolist()

    def entries(chunk: int) -> Int64s | None:
        try:
            known = source.boundaries(starts[chunk], stops[chunk])
        except (OSError, UnsupportedFormatError):
            return None  # it is only advice: reading says what is wrong
        return None if known is None else known - starts[chunk]

    return entries


def _dask_chunks(
    dims: tuple[str, ...], source: FrameSource, index: FrameIndex, chunks: Chunks
) -> dict[str, Any]:
    """Return the blocks along every dimension."""
    wanted = dict(chunks) if isinstance(chunks, Mapping) else {"frame": chunks}
    unknown = set(wanted) - set(dims)
    if unknown:
        raise ValueError(f"chunks names {sorted(map(str, unknown))}; the dimensions are {dims}")
    for dim, size in zip(dims, source.shape, strict=True):
        _check_blocks(dim, size, wanted.get(dim))
    try:
        import dask.array  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "chunks= needs dask: pip install 'imgstore-zarr[dask]', or leave chunks=None"
        ) from error
    sizes = {dim: -1 if size in ("auto", None) else size for dim, size in wanted.items()}
    frame = wanted.get("frame", "auto")
    if frame in ("auto", None):
        sizes["frame"] = blocks_of(source, index)
    elif isinstance(frame, int | np.integer) and frame > 0:
        sizes["frame"] = blocks_of(source, index, int(frame))
    return dict.fromkeys(dims, -1) | sizes


def _warn_of_cuts(
    source: FrameSource,
    index: FrameIndex,
    blocks: tuple[tuple[int, ...], ...],
    *,
    of_frames: bool,
) -> None:
    """Warn of blocks that need a part of what can only be read, or decoded, whole."""
    unit = source.preferred_chunks[0]
    bounds = np.cumsum(blocks[0])[:-1] if of_frames else np.empty(0, np.int64)
    chunks = np.searchsorted(index.chunk_starts, bounds, "right") - 1
    within = bounds - index.chunk_starts[chunks]
    known = _entries_of(source, index)
    cut = 0
    for chunk in np.unique(chunks).tolist():
        places, entries = within[chunks == chunk], known(chunk) if known else None
        wrong = places % unit != 0 if entries is None else ~np.isin(places, entries)
        cut += int(np.count_nonzero(wrong))
    if cut:
        longest = max(blocks[0])
        better = max(round(longest / unit), 1) * unit
        warnings.warn(
            f"{cut} of {len(bounds)} boundaries between blocks cut what is best read together, {unit} "
            f"frames (a shard or a GOP), of which both blocks then read or decode parts; better is "
            f"chunks={{'frame': {better}}} or a multiple of {unit}",
            stacklevel=4,
        )
    tile = source.tile if isinstance(source, Tiled) else source.shape[1:3]
    for dim, lengths, size in zip("yx", blocks[1:3], tile, strict=True):
        if any(bound % size for bound in np.cumsum(lengths)[:-1].tolist()):
            whole = "images" if size == source.shape[1:3]["yx".index(dim)] else "tiles of images"
            warnings.warn(
                f"blocks of {max(lengths)} along {dim} cut {whole}, {size} pixels long, so that each is "
                f"read by several blocks; better is {size} or a multiple, or a recording with other "
                "inner_chunks",
                stacklevel=4,
            )


def _check_blocks(dim: str, size: int, wanted: Any) -> None:
    """Raise ValueError unless this says how to cut a dimension into blocks."""
    if wanted is None or (isinstance(wanted, str) and wanted == "auto"):
        return
    lengths = list(wanted) if isinstance(wanted, tuple | list) else [wanted]
    if all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in lengths):
        if lengths != [wanted]:
            fits = sum(lengths) == size and min(lengths, default=0) >= 0
        else:
            fits = wanted == -1 or wanted > 0
        if fits:
            return
    raise ValueError(
        f"chunks along {dim} cannot be {wanted!r}: give 'auto', a number of at least 1, -1 for one "
        f"block, or lengths that add up to {size}"
    )


def datetimes(frame_time: NDArray[np.float64]) -> NDArray[np.datetime64]:
    """Return frame times as datetime64[ns], UTC; NaT where a time is not finite.

    Raises
    ------
    ValueError
        A time outside the years that datetime64[ns] can hold (1678 to 2261).
    """
    finite = np.isfinite(frame_time)
    if bool(np.any(np.abs(frame_time[finite]) > 9.2e9)):
        raise ValueError(
            "frame times are no Unix times in seconds, so they cannot become dates; "
            "leave datetime=False"
        )
    seconds = np.floor(np.where(finite, frame_time, 0))
    nanoseconds = np.rint((np.where(finite, frame_time, 0) - seconds) * 1e9)
    stamps = (seconds.astype(np.int64) * 10**9 + nanoseconds.astype(np.int64)).view("M8[ns]")
    stamps[~finite] = np.datetime64("NaT", "ns")
    return stamps

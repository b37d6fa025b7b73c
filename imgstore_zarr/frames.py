"""What holds frames (FrameSource), what takes them (FrameSink), and NumPy indexing over a source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.index import Float64s, Int64s
from imgstore_zarr.pixels import Conversion
from imgstore_zarr.recording import RecordingInfo

_CONVERTED_AT_ONCE = 16

Positions = Int64s


class Window(NamedTuple):
    """A rectangle of every image, as half-open ranges in pixels."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window as slices of (y, x)."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the window."""
        return self.y1 - self.y0, self.x1 - self.x0


class FrameSource(Protocol):
    """An array of frames that is read when it is indexed.

    A source can be pickled: what travels is where it lies, never frames or open handles. Reads may
    come from several threads at once, and in a forked process.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, y, x) or (frame, y, x, channel)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the pixels."""
        ...

    @property
    def preferred_chunks(self) -> tuple[int, ...]:
        """What is best read together, in the order of `shape`: whole shards, whole GOPs."""
        ...

    def read(
        self, positions: Positions, window: Window | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read frames.

        Parameters
        ----------
        positions
            int64 (n,), each in 0 .. shape[0]-1, in any order, repeats allowed.
        window
            The part of each image to read; None is all of it.
        out
            C-contiguous array to fill, of the shape and dtype of the result.

        Returns
        -------
        ndarray
            (n, y, x) or (n, y, x, channel), in the order of `positions`.

        Raises
        ------
        ChunkMissingError, CorruptChunkError
            Naming recording, chunk and frame. Never zeros, never a neighbour.
        """
        ...

    def close(self) -> None:
        """Release every handle. A later read opens them again."""
        ...


@runtime_checkable
class HasBoundaries(Protocol):
    """A source of which frames are decoded together that need not be as many everywhere."""

    def boundaries(self, start: int = 0, stop: int | None = None) -> Int64s | None:
        """Return where reading can begin, see `Frames.boundaries`; None: at every preferred chunk."""
        ...


@runtime_checkable
class Rests(Protocol):
    """A source that keeps much in memory from one read to the next."""

    def rest(self) -> int:
        """Keep only what is needed to read on.

        Returns
        -------
        int
            About how much memory that takes, in bytes.
        """
        ...


@runtime_checkable
class Tiled(Protocol):
    """A source of which parts of images can be read without the rest."""

    @property
    def tile(self) -> tuple[int, int]:
        """(y, x) of what is decoded together."""
        ...


class FrameSink(Protocol):
    """Takes the frames of a recording that is being written."""

    @property
    def info(self) -> RecordingInfo:
        """The recording that is being written."""
        ...

    def append(self, image: NDArray[Any], frame_number: int, frame_time: float) -> None:
        """Take one image of the shape and dtype of ``info.stored_shape`` and ``info.imgdtype``."""
        ...

    def add_extra(self, record: dict[str, Any]) -> None:
        """Take one record of extra data, which JSON can hold."""
        ...

    @property
    def chunk_count(self) -> int:
        """Chunks that are complete."""
        ...

    def flush(self) -> None:
        """Make everything so far visible to readers, and safe from a crash of this process."""
        ...

    def empty(self) -> None:
        """Throw away every frame and all extra data; the recording stays."""
        ...

    def close(self) -> None:
        """Finish the recording."""
        ...


@runtime_checkable
class WaitsForRoom(Protocol):
    """A sink that stores in other threads, and takes an image at once where there is room for it."""

    def wait_for_room(self) -> None:
        """Wait until `append` need not wait. Ctrl-C may end this, and changes nothing."""
        ...


@runtime_checkable
class InsertsChunks(Protocol):
    """A sink that takes finished files as chunks (`ImgStoreWriter.insert_chunk`)."""

    def insert_chunk(
        self, path: Path, frame_numbers: Int64s, frame_times: Float64s, *, move: bool
    ) -> None:
        """Make a file the next chunk; see `ImgStoreWriter.insert_chunk`."""
        ...


def window_shape(shape: tuple[int, ...], count: int, window: Window | None) -> tuple[int, ...]:
    """Return the shape of `count` frames of a source of this shape, cut to a window."""
    return (count, *(window.shape if window else shape[1:3]), *shape[3:])


def output_array(
    shape: tuple[int, ...], dtype: np.dtype[Any], out: NDArray[Any] | None
) -> NDArray[Any]:
    """Return `out` after a check, or a new array."""
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"out has shape {out.shape} and dtype {out.dtype}; "
            f"needed is a C-contiguous array of {shape}, {dtype}"
        )
    return out


class ConvertedSource:
    """A source whose images are converted when they are read (decoded, made gray or colour)."""

    def __init__(self, source: FrameSource, conversion: Conversion) -> None:
        self._source = source
        self._conversion = conversion
        self._image_shape = conversion.output_shape(source.shape[1:])

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, y, x) or (frame, y, x, 3)."""
        return (self._source.shape[0], *self._image_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the pixels."""
        return self._source.dtype

    @property
    def preferred_chunks(self) -> tuple[int, ...]:
        """Whole images, as many as the stored frames prefer."""
        return (self._source.preferred_chunks[0], *self._image_shape)

    def read(
        self, positions: Positions, window: Window | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read and convert; see `FrameSource.read`."""
        out = output_array(window_shape(self.shape, len(positions), window), self.dtype, out)
        # Decoding looks at neighbouring pixels, so that a window can only be cut afterwards.
        cut = window.slices if window else (slice(None), slice(None))
        # Several at once, so that the source decodes what they share once; not all, for memory.
        for i in range(0, len(positions), _CONVERTED_AT_ONCE):
            stored = self._source.read(positions[i : i + _CONVERTED_AT_ONCE])
            for j, image in enumerate(stored, i):
                out[j] = self._conversion.apply(image)[cut]
        return out

    def boundaries(self, start: int = 0, stop: int | None = None) -> Int64s | None:
        """Return those of the stored frames; see `HasBoundaries`."""
        source = self._source
        return source.boundaries(start, stop) if isinstance(source, HasBoundaries) else None

    def rest(self) -> int:
        """Let the stored frames rest; see `Rests`."""
        return self._source.rest() if isinstance(self._source, Rests) else 0

    def close(self) -> None:
        """Release the handles of the stored frames."""
        self._source.close()


class Frames:
    """NumPy indexing over a FrameSource: ``frames[100:200, ::2, 50:90]``, integer arrays, lists.

    Only the frames and the rectangle that are asked for are read; the result is a new array.

    Parameters
    ----------
    source
        Where the frames come from.
    """

    def __init__(self, source: FrameSource) -> None:
        self._source = source

    @property
    def source(self) -> FrameSource:
        """The source of the frames."""
        return self._source

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, y, x) or (frame, y, x, channel)."""
        return self._source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the pixels."""
        return self._source.dtype

    @property
    def ndim(self) -> int:
        """3 for gray, 4 with channels."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of pixels, counted per channel."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def nbytes(self) -> int:
        """Size of all frames in memory, in bytes."""
        return self.size * self.dtype.itemsize

    def boundaries(self, start: int = 0, stop: int | None = None) -> Int64s:
        """Return where reading can begin without reading, or decoding, what lies before.

        What lies from one boundary to the next is best read together: a GOP of video, a shard of the
        Zarr layout, an image of a directory or of MJPEG. Blocks, batches and parts of work are well
        cut there. Any frame can be read all the same, from wherever it lies.

        Parameters
        ----------
        start, stop
            The positions to look at, as a half-open range with the meaning that a slice has. Of video
            every file in it is opened, which takes some milliseconds each.

        Returns
        -------
        ndarray
            int64 (boundary,), positions, ascending, ``start <= position < stop``. Position 0 is one
            wherever there are frames.

        Raises
        ------
        ChunkMissingError, CorruptChunkError
            A video file in the range that is not there, or damaged at its start.

        Examples
        --------
        >>> store.frames.boundaries(0, 100)  # doctest: +SKIP
        array([ 0, 25, 50, 75])
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        if isinstance(self._source, HasBoundaries):
            known = self._source.boundaries(start, stop)
            if known is not None:
                return known
        unit = self._source.preferred_chunks[0]
        return np.arange(-(-start // unit) * unit, stop, unit, dtype=np.int64)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<Frames {self.shape} {self.dtype}>"

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for position in range(len(self)):
            yield self[position]

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        if copy is False:
            raise ValueError("frames lie on storage: they cannot become an array without a copy")
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if isinstance(key, int | np.integer) and not isinstance(key, bool):
            if not -len(self) <= key < len(self):
                raise _out_of_bounds(key, 0, len(self))
            position = int(key) % len(self)
            image: NDArray[Any] = self._source.read(np.array([position], np.int64))[0]
            return image
        parts, dots = _expand(key, self.shape)
        cuts = [
            _cut(part, size, axis)
            for axis, (part, size) in enumerate(zip(parts, self.shape, strict=False))
        ]
        positions, frame_key = cuts[0].places, cuts[0].key
        (y0, y1), (x0, x1) = cuts[1].bounds, cuts[2].bounds
        whole = (y0, y1, x0, x1) == (0, self.shape[1], 0, self.shape[2])
        block = self._source.read(positions, None if whole else Window(y0, y1, x0, x1))
        inner = [frame_key, *(cut.key for cut in cuts[1:])]
        if dots is not None:
            # Even where it stands for no axis, NumPy takes indices on its two sides as separate.
            inner.insert(dots, ...)
        result: NDArray[Any] = block[tuple(inner)]
        # A view would keep the whole block alive for a part of it.
        return result if result.size == block.size else result.copy()


class _Cut(NamedTuple):
    """One axis of an index: what to read, and how to index what was read."""

    places: Positions  # the places to read, ascending (axis 0)
    bounds: tuple[int, int]  # the range that covers them (axes 1 and 2)
    key: Any  # the index into what was read


def _expand(key: Any, shape: tuple[int, ...]) -> tuple[tuple[Any, ...], int | None]:
    """One entry per axis, and where an Ellipsis stood that is filled in."""
    parts = key if isinstance(key, tuple) else (key,)
    dots = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can have only one Ellipsis")
    if any(part is None for part in parts):
        raise IndexError("frames cannot be indexed with None: index first, then add axes")
    given = len(parts) - len(dots)
    if given > len(shape):
        raise IndexError(f"{given} indices for frames of {len(shape)} dimensions")
    fill = (slice(None),) * (len(shape) - given)
    at = dots[0] if dots else len(parts)
    expanded = (*parts[:at], *fill, *parts[at + len(dots) :])
    return expanded, at if dots else None


def _out_of_bounds(part: Any, axis: int, size: int) -> IndexError:
    part = part.item() if isinstance(part, np.generic) else part
    return IndexError(f"index {part!r} is out of bounds for axis {axis} of size {size}")


def _cut(part: Any, size: int, axis: int) -> _Cut:
    if isinstance(part, slice):
        places = range(size)[part]
        if not places:
            return _Cut(np.empty(0, np.int64), (0, 0), slice(0, 0))
        if axis == 3:
            return _Cut(np.asarray(places, np.int64), (0, size), part)
        low, high = min(places[0], places[-1]), max(places[0], places[-1]) + 1
        ascending = np.arange(low, high, abs(places.step), dtype=np.int64)
        if axis == 0:
            return _Cut(ascending, (low, high), slice(None, None, 1 if places.step > 0 else -1))
        stop = high - low if places.step > 0 else None
        first = places[0] - low
        return _Cut(ascending, (low, high), slice(first, stop, places.step))
    array = np.asarray(part)
    if array.dtype == bool and array.ndim == 1:
        if len(array) != size:
            raise IndexError(f"a mask of {len(array)} for axis {axis} of size {size}")
        array = np.flatnonzero(array)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise IndexError(
            f"axis {axis} cannot be indexed with {part!r}: "
            "give integers, slices, lists or arrays of integers, or a one-dimensional mask"
        )
    if array.size and (int(array.min()) < -size or int(array.max()) >= size):
        raise _out_of_bounds(part, axis, size)
    array = array.astype(np.int64)
    array = np.where(array < 0, array + size, array)
    unique, inverse = np.unique(array, return_inverse=True)
    inverse = inverse.reshape(array.shape)
    if not unique.size:
        return _Cut(unique, (0, 0), inverse)
    # Every channel is read.
    low, high = (0, size) if axis == 3 else (int(unique[0]), int(unique[-1]) + 1)
    inner = inverse if axis == 0 else array - low
    return _Cut(unique, (low, high), inner if array.ndim else int(inner))

"""ZarrFrames: reads frames out of shards, straight into the caller's array."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import ChunkMissingError, CorruptChunkError, RecordingAccessError
from imgstore_zarr.frames import Positions, Window, output_array, window_shape
from imgstore_zarr.native.codecs import CHECKSUM_BYTES, Bytes, DecodeError, as_bytes, verify
from imgstore_zarr.native.open_shards import OpenShard, OpenShards
from imgstore_zarr.native.read_ahead import ReadAhead
from imgstore_zarr.native.shards import MISSING, ShardEntries, ShardGeometry, decode_entries
from imgstore_zarr.storage import (
    Location,
    ReplacedError,
    RequestError,
    access_error,
    each,
    is_far,
)

OPEN_SHARDS = 32
"""How many files of shards one source keeps open at most, with their indexes."""

INDEX_BYTES = 64 * 2**20
"""How much memory the indexes of these take at most; one is kept however large it is."""

# What one read brings, and one request, of which many are under way at the same time.
_RUN_BYTES = 16 * 2**20
_FAR_RUN_BYTES = 8 * 2**20

# An object that is replaced again and again is not waited for.
_ATTEMPTS = 3


class ZarrFrames:
    """The frames of a recording of the Zarr layout.

    Parameters
    ----------
    location
        The recording.
    geometry
        Its shards.
    frame_count
        Frames that are committed.
    """

    def __init__(self, location: Location, geometry: ShardGeometry, frame_count: int) -> None:
        self._location = location
        self._geometry = geometry
        self._count = frame_count
        self._forget()

    def _forget(self) -> None:
        geometry = self._geometry
        keeps = INDEX_BYTES // geometry.index_bytes
        if not is_far(self._location):
            keeps = min(keeps, OPEN_SHARDS)
        self._shards = OpenShards(max(1, keeps))
        frame_bytes = math.prod(geometry.image_shape) * geometry.dtype.itemsize
        self._ahead = ReadAhead(self._read_alone, self._count, geometry.chunksize, frame_bytes)
        # Last: who sees it finds the new ones.
        self._process = os.getpid()

    def __getstate__(self) -> tuple[Location, ShardGeometry, int]:
        return self._location, self._geometry, self._count

    def __setstate__(self, state: tuple[Location, ShardGeometry, int]) -> None:
        self._location, self._geometry, self._count = state
        self._forget()

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, y, x) or (frame, y, x, channel)."""
        return (self._count, *self._geometry.image_shape)

    def __len__(self) -> int:
        return self._count

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the pixels, in native byte order."""
        return self._geometry.dtype.newbyteorder("=")

    @property
    def preferred_chunks(self) -> tuple[int, ...]:
        """Whole shards."""
        return (self._geometry.chunksize, *self._geometry.image_shape)

    @property
    def tile(self) -> tuple[int, int]:
        """(y, x) of an inner chunk."""
        y, x = self._geometry.inner_shape[1:3]
        return y, x

    def read(
        self, positions: Positions, window: Window | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read frames; see `FrameSource.read`."""
        out = output_array(window_shape(self.shape, len(positions), window), self.dtype, out)
        whole = self._geometry.whole_images and window is None
        if not is_far(self._location):
            for start, stop in _runs(positions, self._geometry, whole, _RUN_BYTES):
                self._read_part(positions[start:stop], window, out[start:stop])
            return out
        self._enter()
        if whole and _is_range(positions) and self._ahead.fill(int(positions[0]), out):
            return out

        def read(run: tuple[int, int]) -> None:
            part = slice(*run)
            self._read_far(positions[part], window, out[part])

        runs = _runs(positions, self._geometry, whole, _FAR_RUN_BYTES)
        if len(runs) == 1:
            read(runs[0])
        else:
            each(read, runs)
        return out

    def _read_alone(self, start: int, stop: int) -> NDArray[Any]:
        """Read frames of one shard, without the help of other threads."""
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        positions = np.arange(start, stop, dtype=np.int64)
        whole = self._geometry.whole_images
        for low, high in _runs(positions, self._geometry, whole, _FAR_RUN_BYTES):
            self._read_far(positions[low:high], None, out[low:high])
        return out

    def _read_far(self, positions: Positions, window: Window | None, out: NDArray[Any]) -> None:
        """Read from an object that may have been replaced since its index was read, by a flush."""
        chunk = int(positions[0]) // self._geometry.chunksize
        known = chunk in self._shards
        for attempt in range(_ATTEMPTS):
            try:
                self._read_part(positions, window, out)
            except CorruptChunkError as error:
                self._shards.forget(chunk)
                replaced = isinstance(error.__cause__, ReplacedError)
                if attempt == _ATTEMPTS - 1 or not (replaced or (known and attempt == 0)):
                    raise
            else:
                return

    def _read_part(self, positions: Positions, window: Window | None, out: NDArray[Any]) -> None:
        """Read what one call reads, see `_runs`."""
        if not self._geometry.whole_images or window is not None:
            self._read_group(positions, window, out)
        elif self._geometry.codec.compressor is None:
            self._read_raw(int(positions[0]), out)
        else:
            self._read_run(int(positions[0]), out)

    def _read_raw(self, first: int, out: NDArray[Any]) -> None:
        """Read consecutive uncompressed frames of one shard without a copy."""
        if len(out) == 1:
            self._read_one(first, out[0])
            return
        geometry = self._geometry
        chunk, place = divmod(first, geometry.chunksize)
        entries = self._entries(chunk, first, place, place + len(out))
        size = geometry.inner_bytes
        steps = np.full(len(out), size + CHECKSUM_BYTES, np.uint64)
        if bool(np.any(entries[:, 1] != steps)):
            bad = int(np.flatnonzero(entries[:, 1] != steps)[0])
            raise self._corrupt(chunk, first + bad, f"it takes {entries[bad, 1]} bytes")
        if bool(np.any(np.diff(entries[:, 0]) != steps[1:])):
            for i in range(len(out)):
                self._read_raw(first + i, out[i : i + 1])
            return
        checksums = np.empty((len(out), CHECKSUM_BYTES), np.uint8)
        pixels = [as_bytes(frame) for frame in out]
        buffers = [part for pair in zip(pixels, checksums, strict=True) for part in pair]
        self._fill(chunk, first, int(entries[0, 0]), buffers)
        for i, frame in enumerate(pixels):
            try:
                verify(frame, checksums[i])
            except DecodeError as error:
                raise self._corrupt(chunk, first + i, str(error)) from error

    def _read_one(self, position: int, out: NDArray[Any]) -> None:
        """Read one uncompressed frame: what a run costs beyond the read is more than half of it."""
        geometry = self._geometry
        chunk, place = divmod(position, geometry.chunksize)
        shard = self._shard(chunk, position)
        offset, size = shard.entries[place].tolist()
        if size != geometry.inner_bytes + CHECKSUM_BYTES:
            self._entries(chunk, position, place, place + 1)
            raise self._corrupt(chunk, position, f"it takes {size} bytes")
        checksum = np.empty(CHECKSUM_BYTES, np.uint8)
        pixels = as_bytes(out)
        self._fill(chunk, position, offset, [pixels, checksum])
        try:
            verify(pixels, checksum)
        except DecodeError as error:
            raise self._corrupt(chunk, position, str(error)) from error

    def _read_run(self, first: int, out: NDArray[Any]) -> None:
        """Read consecutive compressed frames of one shard by one read."""
        chunk, place = divmod(first, self._geometry.chunksize)
        entries = self._entries(chunk, first, place, place + len(out))
        encoded = self._encoded(chunk, first, entries, 1)
        for i, data in enumerate(encoded):
            self._decode(chunk, first + i, data, out[i])

    def _read_group(self, positions: Positions, window: Window | None, out: NDArray[Any]) -> None:
        """Read frames that share inner chunks, or part of a frame: decode each tile once."""
        geometry = self._geometry
        chunk, place = divmod(int(positions[0]), geometry.chunksize)
        group = place // geometry.group_frames
        inside = positions % geometry.group_frames
        cut = window.slices if window else tuple(slice(0, n) for n in geometry.image_shape[:2])
        pixels = np.empty(geometry.inner_shape, geometry.dtype)
        for tile in geometry.iter_tiles(cut):
            inner = group * geometry.tiles + tile.number
            entries = self._entries(chunk, int(positions[0]), inner, inner + 1)
            (encoded,) = self._encoded(chunk, int(positions[0]), entries, geometry.group_frames)
            self._decode(chunk, int(positions[0]), encoded, pixels)
            source: list[slice] = []
            target: list[slice] = []
            for axis, inner_part in enumerate(tile.slices):
                wanted = cut[axis] if axis < 2 else inner_part
                low, high = max(inner_part.start, wanted.start), min(inner_part.stop, wanted.stop)
                source.append(slice(low - inner_part.start, high - inner_part.start))
                offset = wanted.start if axis < 2 else 0
                target.append(slice(low - offset, high - offset))
            part: tuple[Any, ...] = (inside, *source)
            out[(slice(None), *target)] = pixels[part]

    def iter_encoded(self, chunk: int, groups: int) -> Iterator[list[Bytes]]:
        """Iterate over the first groups of a chunk: their inner chunks as they lie there, checked."""
        geometry = self._geometry
        for group in range(groups):
            position = chunk * geometry.chunksize + group * geometry.group_frames
            first = group * geometry.tiles
            entries = self._entries(chunk, position, first, first + geometry.tiles)
            encoded = self._encoded(chunk, position, entries, 0)
            for data in encoded:
                try:
                    verify(data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:])
                except DecodeError as error:
                    raise self._corrupt(chunk, position, str(error)) from error
            yield encoded

    def _entries(self, chunk: int, position: int, start: int, stop: int) -> ShardEntries:
        """Index entries of some inner chunks, all of which must be there."""
        entries = self._shard(chunk, position).entries[start:stop]
        missing = np.flatnonzero((entries == MISSING).any(axis=1))
        if len(missing):
            frame = position + int(missing[0]) if self._geometry.whole_images else position
            raise ChunkMissingError(
                f"{self._location.name}: the frame at position {frame} is not in chunk {chunk} "
                f"({self._geometry.key(chunk)}), though the recording counts it; "
                "restore the chunk from a backup"
            )
        return entries

    def _encoded(
        self, chunk: int, position: int, entries: ShardEntries, frames: int
    ) -> list[Bytes]:
        """Read inner chunks: in one read where they follow each other, else one by one."""
        # A damaged index cannot make this allocate more than the data could need.
        limit = self._geometry.encoded_limit
        if bool(np.any(entries[:, 1] > limit)):
            bad = int(np.flatnonzero(entries[:, 1] > limit)[0])
            raise self._corrupt(chunk, position + bad * frames, f"it takes {entries[bad, 1]} bytes")
        if bool(np.any(entries[:-1].sum(axis=1) != entries[1:, 0])):
            return [
                self._encoded(chunk, position + i * frames, entries[i : i + 1], frames)[0]
                for i in range(len(entries))
            ]
        data = np.empty(int(entries[:, 1].sum()), np.uint8)
        self._fill(chunk, position, int(entries[0, 0]), [data])
        return np.split(data, np.cumsum(entries[:-1, 1]).astype(np.int64))

    def _fill(
        self, chunk: int, position: int, offset: int, buffers: list[NDArray[np.uint8]]
    ) -> None:
        wanted = sum(len(buffer) for buffer in buffers)
        shard = self._shard(chunk, position)
        try:
            got = shard.blob.read_into(offset, buffers)
        except FileNotFoundError as error:
            raise self._missing(chunk, position) from error
        except ReplacedError as error:
            raise self._corrupt(chunk, position, "its shard was replaced meanwhile") from error
        except RequestError as error:
            raise self._unreachable(chunk, position, error) from error
        except (OSError, OverflowError) as error:
            raise self._corrupt(chunk, position, f"it cannot be read ({error})") from error
        if got != wanted:
            raise self._corrupt(
                chunk, position, f"the file is truncated: {got} of {wanted} bytes are there"
            )

    def _decode(self, chunk: int, position: int, encoded: Bytes, out: NDArray[Any]) -> None:
        try:
            self._geometry.codec.decode(encoded, out)
        except DecodeError as error:
            raise self._corrupt(chunk, position, str(error)) from error

    def _enter(self) -> None:
        # A forked process must not wait for a thread of its parent.
        if self._process != os.getpid():
            self._forget()

    def _shard(self, chunk: int, position: int) -> OpenShard:
        """Return an open shard; opening one may close the one that was used longest ago."""
        self._enter()
        return self._shards.get(chunk, lambda: self._open_shard(chunk, position))

    def _open_shard(self, chunk: int, position: int) -> OpenShard:
        try:
            blob = self._location.open(self._geometry.key(chunk))
            footer = blob.tail(self._geometry.index_bytes)
        except FileNotFoundError as error:
            raise self._missing(chunk, position) from error
        except (PermissionError, RequestError) as error:
            raise self._unreachable(chunk, position, error) from error
        except OSError as error:
            raise self._corrupt(chunk, position, f"it cannot be read ({error})") from error
        try:
            return OpenShard(blob, decode_entries(footer, self._geometry))
        except DecodeError as error:
            raise self._corrupt(chunk, position, str(error)) from error

    def _unreachable(self, chunk: int, position: int, error: OSError) -> RecordingAccessError:
        what = f"the frame at position {position} of chunk {chunk} ({self._geometry.key(chunk)})"
        return access_error(self._location, f"reading {what}", error)

    def _missing(self, chunk: int, position: int) -> ChunkMissingError:
        return ChunkMissingError(
            f"{self._location.name}: chunk {chunk} ({self._geometry.key(chunk)}) is missing, so "
            f"the frame at position {position} cannot be read; restore it from a backup"
        )

    def _corrupt(self, chunk: int, position: int, reason: str) -> CorruptChunkError:
        return CorruptChunkError(
            f"{self._location.name}: the frame at position {position} in chunk {chunk} "
            f"({self._geometry.key(chunk)}) is damaged: {reason}; restore the chunk from a backup"
        )

    def rest(self) -> int:
        """Give up what was requested ahead; see `Rests`."""
        self._ahead.drop()
        return len(self._shards) * self._geometry.index_bytes

    def close(self) -> None:
        """Close every shard, as soon as no thread reads it any more."""
        self._ahead.drop()
        self._shards.clear()


def _is_range(positions: Positions) -> bool:
    return len(positions) > 0 and bool(np.all(np.diff(positions) == 1))


def _runs(
    positions: Positions, geometry: ShardGeometry, whole: bool, most: int
) -> list[tuple[int, int]]:
    """Cut positions into ranges that one call reads.

    With one frame an inner chunk: consecutive positions of one shard, of so many bytes at most.
    Otherwise: neighbours in `positions` that lie in one group of frames.
    """
    if len(positions) < 2:
        return [(0, 1)] * len(positions)
    if whole:
        broken = np.diff(positions) != 1
        unit = geometry.chunksize
    else:
        broken = np.zeros(len(positions) - 1, bool)
        unit = geometry.group_frames
    blocks = positions // unit
    cuts = np.flatnonzero(broken | (np.diff(blocks) != 0)) + 1
    edges = [0, *cuts.tolist(), len(positions)]
    limit = max(1, most // geometry.inner_bytes) if whole else len(positions)
    return [
        (low, min(low + limit, stop))
        for start, stop in itertools.pairwise(edges)
        for low in range(start, stop, limit)
    ]

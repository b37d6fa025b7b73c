"""Shards: where each inner chunk of a chunk of frames lies inside its file.

The format is that of the ``sharding_indexed`` codec of Zarr v3, index at the end:
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.cached import cached_property
from imgstore_zarr.errors import UnsupportedFormatError
from imgstore_zarr.native.codecs import (
    BLOSC_MAX_BYTES,
    BYTES_CODEC,
    CHECKSUM_BYTES,
    CRC32C_CODEC,
    Bytes,
    DecodeError,
    InnerCodec,
    as_bytes,
    checksum_bytes,
    verify,
)

MISSING = np.uint64(2**64 - 1)

ShardEntries = NDArray[np.uint64]
"""uint64 (inner chunk, 2): offset and size of each inner chunk, MISSING where there is none."""


# An index of 256 MiB.
_MAX_INNER_CHUNKS = 2**24


class Tile(NamedTuple):
    """One inner chunk's place in an image: its number within the frame group, and its slices."""

    number: int
    slices: tuple[slice, ...]


@dataclass(frozen=True)
class ShardGeometry:
    """How frames are cut into shards and inner chunks.

    Attributes
    ----------
    image_shape
        (y, x) or (y, x, channel).
    dtype
        Of the pixels, little endian.
    chunksize
        Frames in a shard.
    inner_shape
        (frames, y, x[, channel]) of an inner chunk.
    codec
        How inner chunks are encoded.
    """

    image_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunksize: int
    inner_shape: tuple[int, ...]
    codec: InnerCodec

    def __post_init__(self) -> None:
        if len(self.inner_shape) != len(self.image_shape) + 1 or min(self.inner_shape) < 1:
            raise UnsupportedFormatError(
                f"inner_chunks {self.inner_shape} do not fit frames of shape {self.image_shape}: "
                "give (frames, y, x), and channel where there is one, each at least 1"
            )
        if self.chunksize % self.inner_shape[0]:
            raise UnsupportedFormatError(
                f"chunksize {self.chunksize} is not a multiple of the {self.inner_shape[0]} frames "
                "of an inner chunk"
            )
        if self.inner_count > _MAX_INNER_CHUNKS:
            raise UnsupportedFormatError(
                f"a chunk of {self.chunksize} frames has {self.inner_count} inner chunks, more than "
                f"the {_MAX_INNER_CHUNKS} whose index fits in memory; give a smaller chunksize"
            )
        if self.codec.compressor and self.inner_bytes > BLOSC_MAX_BYTES:
            raise UnsupportedFormatError(
                f"an inner chunk of {self.inner_bytes} bytes is more than Blosc can take "
                f"({BLOSC_MAX_BYTES}); give smaller inner_chunks"
            )

    @cached_property
    def inner_bytes(self) -> int:
        """Size of a decoded inner chunk."""
        return prod(self.inner_shape) * self.dtype.itemsize

    @property
    def encoded_limit(self) -> int:
        """Bytes that an encoded inner chunk may take: more only a damaged index says."""
        return self.inner_bytes + self.inner_bytes // 8 + 4096

    @property
    def group_frames(self) -> int:
        """Frames that share inner chunks."""
        return self.inner_shape[0]

    @cached_property
    def tile_grid(self) -> tuple[int, ...]:
        """Inner chunks along each axis of an image."""
        return tuple(
            ceil(n / m) for n, m in zip(self.image_shape, self.inner_shape[1:], strict=True)
        )

    @cached_property
    def tiles(self) -> int:
        """Inner chunks in a group of frames."""
        return prod(self.tile_grid)

    @cached_property
    def inner_count(self) -> int:
        """Inner chunks in a shard."""
        return self.chunksize // self.group_frames * self.tiles

    @cached_property
    def index_bytes(self) -> int:
        """Size of the index at the end of a shard, checksum included."""
        return 16 * self.inner_count + CHECKSUM_BYTES

    @cached_property
    def shard_shape(self) -> tuple[int, ...]:
        """Shape of a shard in pixels: whole inner chunks, so it may reach beyond the image."""
        image = (n * m for n, m in zip(self.tile_grid, self.inner_shape[1:], strict=True))
        return (self.chunksize, *image)

    @property
    def whole_images(self) -> bool:
        """Whether an inner chunk is exactly one image."""
        return self.inner_shape == (1, *self.image_shape)

    def key(self, chunk: int) -> str:
        """Return the key of a shard, relative to the recording."""
        return "image/c/" + "/".join(str(n) for n in (chunk, *[0] * len(self.image_shape)))

    def iter_tiles(self, window: tuple[slice, ...] | None = None) -> Iterator[Tile]:
        """Iterate over the inner chunks of an image that touch a window, in their order."""
        sizes = self.inner_shape[1:]
        for number, place in enumerate(np.ndindex(*self.tile_grid)):
            slices = tuple(
                slice(i * size, min((i + 1) * size, n))
                for i, size, n in zip(place, sizes, self.image_shape, strict=True)
            )
            if window is None or all(
                tile.start < wanted.stop and wanted.start < tile.stop
                for tile, wanted in zip(slices, window, strict=False)
            ):
                yield Tile(number, slices)

    def new_group(self) -> NDArray[Any]:
        """Return memory for the frames of one group: (group_frames, y, x[, channel])."""
        return np.empty((self.group_frames, *self.image_shape), self.dtype)

    def encode_group(self, frames: NDArray[Any]) -> list[Sequence[Bytes | bytes]]:
        """Encode the frames of one group.

        Parameters
        ----------
        frames
            (n, y, x[, channel]) with n up to `group_frames`; what is missing is stored as zeros.

        Returns
        -------
        list
            Per inner chunk the buffers to be written one after the other.
        """
        if frames.shape[1:] == self.inner_shape[1:] and len(frames) == self.group_frames:
            return [self.codec.encode(frames)]
        encoded = []
        for tile in self.iter_tiles():
            part = frames[(slice(None), *tile.slices)]
            padded = np.zeros(self.inner_shape, self.dtype)
            padded[tuple(slice(0, n) for n in part.shape)] = part
            encoded.append(self.codec.encode(padded))
        return encoded

    def codecs_metadata(self) -> list[dict[str, Any]]:
        """Return the array's codecs as ``zarr.json`` lists them."""
        return [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": list(self.inner_shape),
                    "codecs": self.codec.metadata(),
                    "index_codecs": [BYTES_CODEC, CRC32C_CODEC],
                    "index_location": "end",
                },
            }
        ]


def empty_entries(geometry: ShardGeometry) -> ShardEntries:
    """Return the entries of a shard that holds nothing yet."""
    return np.full((geometry.inner_count, 2), MISSING, "<u8")


def encode_entries(entries: ShardEntries) -> list[Bytes | bytes]:
    """Return the index as it stands at the end of a shard, as buffers to be written."""
    # No copies: the index of 10,000 frames in tiles takes tens of megabytes.
    data = as_bytes(entries)
    return [data, checksum_bytes(data)]


def decode_entries(footer: bytes, geometry: ShardGeometry) -> ShardEntries:
    """Read the index from the end of a shard.

    Raises
    ------
    DecodeError
        It is cut off, its checksum is wrong, or inner chunks overlap.
    """
    if len(footer) != geometry.index_bytes:
        raise DecodeError(
            f"the file is truncated: {len(footer)} bytes where the index alone takes "
            f"{geometry.index_bytes}"
        )
    data = np.frombuffer(footer, np.uint8)
    try:
        verify(data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:])
    except DecodeError as error:
        raise DecodeError(f"the index at its end is damaged: {error}") from error
    entries = np.frombuffer(footer, "<u8", geometry.inner_count * 2).reshape(-1, 2)
    used = entries[entries[:, 0] != MISSING]
    used = used[np.argsort(used[:, 0], kind="stable")]
    if bool(np.any(used[:-1, 1] > np.diff(used[:, 0]))):
        raise DecodeError("its index gives one place to several frames")
    return entries

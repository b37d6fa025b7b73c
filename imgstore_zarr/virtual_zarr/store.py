"""VirtualZarr: a virtual group as a ``zarr.abc.store.Store``."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)

from imgstore_zarr.errors import InvalidMetadataError
from imgstore_zarr.native.codecs import checksum
from imgstore_zarr.virtual_zarr.recording import virtual_group

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype

    from imgstore_zarr.analysed import Analysed
    from imgstore_zarr.virtual_zarr.group import VirtualGroup

# Stores that were unpickled and are kept for the tasks that follow.
_KEPT = 4


class VirtualZarr(Store):
    """A recording as a Zarr v3 group, for reading; `imgstore_zarr.ImgStore.as_zarr` makes these.

    It is what the recording was then, whatever a writer adds. It can be pickled: what travels is where
    the recording lies, and it is an error if that does not begin with the same frames any more.

    Parameters
    ----------
    recording
        What is read.
    """

    supports_writes: bool = False
    supports_deletes: bool = False
    supports_listing: bool = True

    def __init__(self, recording: Analysed) -> None:
        super().__init__(read_only=True)
        self._recording = recording
        self._index = recording.index
        self._frame_count = len(recording.index)
        self._group = virtual_group(recording)

    @property
    def group(self) -> VirtualGroup:
        """The keys, and the bytes behind them."""
        return self._group

    def _seal(self) -> tuple[bytes, int, int]:
        """What is the same where two of these give the same."""
        index, count = self._index, self._frame_count
        columns = (index.frame_number[:count], index.frame_time[:count])
        numbers, times = (checksum(np.ascontiguousarray(column)) for column in columns)
        return self._group.document, numbers, times

    def __reduce__(self) -> tuple[Any, ...]:
        lengths = tuple(self._group.lengths.items())
        return _reopened, (pickle.dumps(self._recording), lengths, self._seal())

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, VirtualZarr)
            and self._group.name == other._group.name
            and self._seal() == other._seal()
        )

    __hash__ = None  # type: ignore[assignment] # as zarr's own stores

    def __str__(self) -> str:
        return f"virtual://{self._group.name}"

    def __repr__(self) -> str:
        return f"VirtualZarr({str(self)!r})"

    def with_read_only(self, read_only: bool = False) -> Store:
        """Return the same; there is none that can be written to."""
        if not read_only:
            return super().with_read_only(read_only)
        same = VirtualZarr.__new__(VirtualZarr)
        same.__dict__ |= self.__dict__ | {"_is_open": False}
        return same

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the bytes of a key, None where the group has no such key.

        Raises
        ------
        ChunkMissingError, CorruptChunkError
            Frames that cannot be read.
        """
        await self._ensure_open()
        size = self._group.size(key)
        if size is None:
            return None
        start, stop = _bounds(byte_range, size)
        data = await asyncio.to_thread(self._group.read, key, start, stop)
        return prototype.buffer.from_array_like(data)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return the bytes of several keys, or of parts of them."""
        return await asyncio.gather(
            *(self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
        )

    async def exists(self, key: str) -> bool:
        """Whether the group has a key; decodes nothing."""
        return self._group.size(key) is not None

    async def getsize(self, key: str) -> int:
        """Return how many bytes a key has; decodes nothing."""
        size = self._group.size(key)
        if size is None:
            raise FileNotFoundError(key)
        return size

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002
        """Raise ValueError."""
        self._check_writable()

    async def delete(self, key: str) -> None:  # noqa: ARG002
        """Raise ValueError."""
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        """Iterate over all keys."""
        for key in self._group.all_keys():
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Iterate over the keys that begin with some text."""
        for key in self._group.all_keys(prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Iterate over the names directly below a key."""
        for name in self._group.names(prefix):
            yield name


def _bounds(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    """The part of an object that is asked for, cut to what there is."""
    match byte_range:
        case None:
            start, stop = 0, size
        case RangeByteRequest(start, stop):
            pass
        case OffsetByteRequest(start):
            stop = size
        case SuffixByteRequest(suffix):
            start, stop = size - suffix, size
        case _:
            raise ValueError(f"Unexpected byte_range, got {byte_range}.")
    stop = min(max(stop, 0), size)
    return min(max(start, 0), stop), stop


@lru_cache(_KEPT)
def _reopened(
    pickled: bytes, lengths: tuple[tuple[str, int], ...], seal: tuple[bytes, int, int]
) -> VirtualZarr:
    store = VirtualZarr(pickle.loads(pickled))
    store._group = store._group.first_rows(dict(lengths))
    store._frame_count = dict(lengths)["frame_number"]
    if store._seal() != seal:
        raise InvalidMetadataError(
            f"{store._group.name} is not what it was when its Zarr group was made; open it again"
        )
    return store

"""Any ``zarr.abc.store.Store``: fsspec, zip, memory, ..."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.storage.recollection import recalled

if TYPE_CHECKING:
    from typing_extensions import Buffer
    from zarr.abc.store import ByteRequest, Store

_T = TypeVar("_T")


@dataclass(frozen=True)
class StoreBlob:
    """An object of a Zarr store; every read is one request."""

    store: Store
    key: str

    @property
    def size(self) -> int:
        """Bytes in the object; a request of its own."""
        try:
            return _wait(self.store.getsize(self.key))
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.store} has no object {self.key!r}") from None

    def tail(self, nbytes: int) -> bytes:
        """Return the last bytes, by a suffix request."""
        from zarr.abc.store import SuffixByteRequest

        data = _get(self.store, self.key, SuffixByteRequest(nbytes))
        # Asked for more than there is, zarr's MemoryStore gives less than there is.
        return data if len(data) == nbytes else _get(self.store, self.key, None)[-nbytes:]

    def read_into(self, offset: int, buffers: Sequence[NDArray[np.uint8]]) -> int:
        """Read one range and hand it out."""
        from zarr.abc.store import RangeByteRequest

        wanted = sum(len(buffer) for buffer in buffers)
        data = np.frombuffer(
            _get(self.store, self.key, RangeByteRequest(offset, offset + wanted)), np.uint8
        )
        at = 0
        for buffer in buffers:
            part = data[at : at + len(buffer)]
            buffer[: len(part)] = part
            at += len(part)
        return at


@dataclass(frozen=True)
class ZarrStore:
    """Any ``zarr.abc.store.Store``; the recording is its root, or a group below it."""

    store: Store
    prefix: str = ""

    @property
    def name(self) -> str:
        """The store's own name, and the prefix."""
        return f"{self.store}/{self.prefix}" if self.prefix else str(self.store)

    @property
    def path(self) -> None:
        """None: what a store holds has no path."""
        return

    def _key(self, key: str) -> str:
        return "/".join(part for part in (self.prefix, key) if part)

    def read(self, key: str) -> bytes:
        """Return a whole object, by one request."""
        full = self._key(key)
        return recalled(self.store, full, lambda: _get(self.store, full, None))

    def write(self, key: str, data: Buffer, *, durable: bool = False) -> None:  # noqa: ARG002
        """Put an object; how durable it is depends on the store."""
        from zarr.core.buffer import default_buffer_prototype

        buffer = default_buffer_prototype().buffer.from_bytes(bytes(data))
        _wait(self.store.set(self._key(key), buffer))

    def open(self, key: str) -> StoreBlob:
        """Return a handle; no request is made, so a missing object shows when it is read."""
        return StoreBlob(self.store, self._key(key))

    def exists(self, key: str) -> bool:
        """Whether the object, or any below it, is there."""
        full = self._key(key)
        return _wait(self.store.exists(full)) or bool(self.names(key))

    def names(self, key: str = "") -> list[str]:
        """Return the names below a key, by one listing."""

        async def listing() -> list[str]:
            return [name async for name in self.store.list_dir(self._key(key))]

        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in _wait(listing()))

    def below(self, key: str) -> ZarrStore:
        """Return what lies below a key, as a place of its own."""
        return ZarrStore(self.store, self._key(key))

    def objects(self) -> Iterator[tuple[str, int | None]]:
        """Iterate over the key of every object; of their sizes a listing tells nothing."""
        prefix = f"{self.prefix}/" if self.prefix else ""

        async def listing() -> list[str]:
            return [key async for key in self.store.list_prefix(prefix)]

        for key in _wait(listing()):
            yield key.removeprefix(prefix), None

    def delete(self, key: str) -> None:
        """Delete an object and everything below it."""
        full = self._key(key)
        if _wait(self.store.exists(full)):
            _wait(self.store.delete(full))
        else:
            self.delete_below(key)

    def delete_below(self, key: str) -> None:
        """Delete everything below a key that is no object."""
        _wait(self.store.delete_dir(self._key(key)))


def _get(store: Store, key: str, byte_range: ByteRequest | None) -> bytes:
    from zarr.core.buffer import default_buffer_prototype

    buffer = _wait(store.get(key, default_buffer_prototype(), byte_range))
    if buffer is None:
        raise FileNotFoundError(f"{store} has no object {key!r}")
    return buffer.to_bytes()


def opened(store: Store) -> Store:
    """Return a store that is open: not every method of a ZipStore opens it by itself."""
    _wait(store._ensure_open())
    return store


def _wait(coroutine: Coroutine[Any, Any, _T]) -> _T:
    # A store's connections belong to the event loop that opened them, and the user may have opened
    # them through zarr: so its loop is the one to use.
    from zarr.core.sync import sync

    return sync(coroutine)

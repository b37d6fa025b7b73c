"""The shards that a reader has open, with their indexes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from imgstore_zarr.native.shards import ShardEntries
from imgstore_zarr.storage import Blob


@dataclass(frozen=True)
class OpenShard:
    """The bytes of a shard, and its index."""

    blob: Blob
    entries: ShardEntries


class OpenShards:
    """Keeps the shards that were used last; several threads may open different ones at once.

    Parameters
    ----------
    keeps
        How many, at most.
    """

    def __init__(self, keeps: int) -> None:
        self._keeps = keeps
        self._lock = threading.Lock()
        self._shards: OrderedDict[int, OpenShard] = OrderedDict()
        self._opening: dict[int, threading.Lock] = {}

    def __len__(self) -> int:
        return len(self._shards)

    def __contains__(self, chunk: int) -> bool:
        return chunk in self._shards

    def get(self, chunk: int, open_it: Callable[[], OpenShard]) -> OpenShard:
        """Return a shard, which is opened where it is not open; others wait for that one alone."""
        with self._lock:
            shard = self._shards.get(chunk)
            if shard is not None:
                self._shards.move_to_end(chunk)
                return shard
            opening = self._opening.setdefault(chunk, threading.Lock())
        with opening:
            with self._lock:
                shard = self._shards.get(chunk)
            if shard is not None:
                return shard
            try:
                shard = open_it()
                with self._lock:
                    self._shards[chunk] = shard
                    if len(self._shards) > self._keeps:
                        self._shards.popitem(last=False)
            finally:
                with self._lock:
                    self._opening.pop(chunk, None)
            return shard

    def forget(self, chunk: int) -> None:
        """Forget a shard, if it is known."""
        with self._lock:
            self._shards.pop(chunk, None)

    def clear(self) -> None:
        """Forget all; each is closed when no thread reads it any more."""
        with self._lock:
            self._shards.clear()

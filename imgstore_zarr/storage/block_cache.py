"""BlockCache: what was read from objects, kept in memory for who reads it again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any


class BlockCache:
    """Ranges of objects, those that were read last; safe in threads.

    Pickled, only its size travels: each process fills its own.

    Parameters
    ----------
    limit
        How many bytes are kept, at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[Hashable, bytes] = OrderedDict()
        self._size = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return BlockCache, (self._limit,)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    def get(self, key: Hashable) -> bytes | None:
        """Return a block, if it is kept."""
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
            return block

    def put(self, key: Hashable, block: bytes) -> None:
        """Keep a block, and give up those that were not read for longest."""
        if len(block) > self._limit:
            return
        with self._lock:
            self._size += len(block) - len(self._blocks.pop(key, b""))
            self._blocks[key] = block
            while self._size > self._limit:
                self._size -= len(self._blocks.popitem(last=False)[1])

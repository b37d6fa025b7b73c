"""BoundedCache: what may serve again, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

_Value = TypeVar("_Value")


class BoundedCache(Generic[_Value]):
    """Values by key; those not used for longest are given up first. For any thread.

    Pickled, only its limit travels: each process fills its own.

    Parameters
    ----------
    limit
        How much memory the values may take, in bytes. What is larger by itself is not kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[_Value, int]] = OrderedDict()
        self._bytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return BoundedCache, (self._limit,)

    @property
    def used(self) -> int:
        """How much memory the values take, in bytes."""
        return self._bytes

    def get(self, key: Hashable) -> _Value | None:
        """Return a value, if it is still there."""
        with self._lock:
            entry = self._values.get(key)
            if entry is None:
                return None
            self._values.move_to_end(key)
            return entry[0]

    def put(self, key: Hashable, value: _Value, size: int) -> None:
        """Keep a value of `size` bytes."""
        with self._lock:
            _, before = self._values.pop(key, (None, 0))
            self._bytes -= before
            if size > self._limit:
                return
            self._values[key] = (value, size)
            self._bytes += size
            while self._bytes > self._limit:
                _, (_, given_up) = self._values.popitem(last=False)
                self._bytes -= given_up

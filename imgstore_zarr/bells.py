"""Bells: waiting for a change that another thread makes."""

from __future__ import annotations

import threading
from typing import Any

from imgstore_zarr.interruption import Deferred


class Bells:
    """In place of ``threading.Condition``, whose ``wait`` Ctrl-C may leave with its lock held, or not.

    Who waits looks whether it must with a lock held, asks for a bell, gives the lock up, and acquires
    the bell. An interruption ends that and leaves nothing behind but a bell that nobody hears.
    """

    def __init__(self) -> None:
        self._bells: list[Any] = []

    def ask(self) -> Any:
        """Return a lock that the next `ring` releases; with the lock of what is watched held."""
        bell = threading.Lock()
        bell.acquire()
        self._bells.append(bell)
        return bell

    def ring(self) -> None:
        """Wake all who wait; with the same lock held."""
        if self._bells:
            with Deferred():
                for bell in self._bells:
                    bell.release()
                self._bells.clear()

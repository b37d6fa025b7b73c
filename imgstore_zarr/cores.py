"""The cores that this process may use, and work that is spread over them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Cores that this process may use."""

_one = threading.local()


@contextmanager
def one_core() -> Iterator[None]:
    """Let this thread read with one core: others beside it do the like."""
    before = getattr(_one, "only", False)
    _one.only = True
    try:
        yield
    finally:
        _one.only = before


def usable_cores() -> int:
    """How many cores the work of this thread may be spread over."""
    return 1 if getattr(_one, "only", False) else CORES


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_order(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Do work in one thread for each core, and give back the results in the order of the items.

    At most ``2 * CORES + 1`` of them are begun and not yet taken.
    """
    with ThreadPoolExecutor(CORES, "imgstore-work") as pool:
        running: deque[Future[_Result]] = deque()
        try:
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) > 2 * CORES:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            # Whoever gives up does not wait for what was not begun.
            pool.shutdown(cancel_futures=True)

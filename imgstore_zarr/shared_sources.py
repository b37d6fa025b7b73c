"""Sources that travel: small when pickled, and opened once in each process that they come to."""

from __future__ import annotations

import os
import pickle
import threading
import uuid
import zlib
from collections import OrderedDict

import numpy as np

from imgstore_zarr.frames import FrameSource
from imgstore_zarr.index import Int64s

KEPT = 8
"""How many sources that were unpickled a process keeps open for the tasks that follow."""


class SharedSource:
    """A source, and what others need to open the same one.

    Whatever is unpickled in one process under one name is one source, with its handles, decoders and
    caches. So a worker that gets a thousand tasks of one recording opens it once.

    Parameters
    ----------
    source
        The source. The name that it gets is a new one: a recording that was made anew at the same place
        is never mixed up with what a process still has open.
    """

    def __init__(self, source: FrameSource) -> None:
        self.source = source
        self._name = uuid.uuid4().hex
        self._pickled: bytes | None = None

    def __reduce__(self) -> tuple[object, ...]:
        if self._pickled is None:
            self._pickled = pickle.dumps(self.source)
        return _unpickled, (self._name, self._pickled)


_lock = threading.Lock()
_kept: OrderedDict[str, SharedSource] = OrderedDict()


def _unpickled(name: str, pickled: bytes) -> SharedSource:
    with _lock:
        shared = _kept.pop(name, None)
        if shared is None:
            shared = SharedSource.__new__(SharedSource)
            shared.source, shared._name, shared._pickled = pickle.loads(pickled), name, pickled
        _kept[name] = shared
        unused = [_kept.popitem(last=False)[1] for _ in range(len(_kept) - KEPT)]
    for other in unused:
        # Who still has it may go on: a later read opens it again.
        other.source.close()
    return shared


def _start_afresh() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)


def packed(values: Int64s) -> bytes:
    """Return integers as few bytes where they go on by regular steps."""
    return zlib.compress(np.diff(values, prepend=np.int64(0)).tobytes(), 1)


def unpacked(data: bytes) -> Int64s:
    """Return the integers that were packed."""
    return np.cumsum(np.frombuffer(zlib.decompress(data), np.int64))

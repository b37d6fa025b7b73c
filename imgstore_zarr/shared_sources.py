"""Sources that travel: small when pickled, and opened once in each process that they come to."""

from __future__ import annotations

import os
import pickle
import resource
import threading
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from weakref import WeakValueDictionary

import numpy as np

from imgstore_zarr.frames import FrameSource, Rests
from imgstore_zarr.index import Int64s

KEPT = 64
"""How many sources that were unpickled a process keeps open at most for the tasks that follow."""

KEPT_BYTES = 2**30
"""How much memory those may take, about, of which nobody reads."""

FILES_SHARE = 0.5
"""Which part of the files that the process may have open can be in use, by whomever, before one of
these sources is closed."""


class SharedSource:
    """A source, and what others need to open the same one.

    Whatever is unpickled in one process under one name is one source, with its handles, decoders and
    caches. So a worker that gets a thousand tasks of one recording opens it once, and one that gets them
    of many recordings keeps as many open as memory and files allow.

    Parameters
    ----------
    source
        The source. The name that it gets is a new one: a recording that was made anew at the same place
        is never mixed up with what a process still has open.
    """

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._name = uuid.uuid4().hex
        self._pickled: bytes | None = None
        # Whoever made it closes it.
        self._travelled = False
        self._resting_bytes = 0

    @property
    def source(self) -> FrameSource:
        """The source, which is to be read now."""
        if self._travelled:
            _keep(self)
        return self._source

    def __reduce__(self) -> tuple[object, ...]:
        if self._pickled is None:
            self._pickled = pickle.dumps(self._source)
        return _unpickled, (self._name, self._pickled)

    def _rest(self) -> None:
        self._resting_bytes = self._source.rest() if isinstance(self._source, Rests) else 0


_lock = threading.Lock()
_known: WeakValueDictionary[str, SharedSource] = WeakValueDictionary()
# The one that was used last is the last one.
_kept: OrderedDict[str, SharedSource] = OrderedDict()


def _unpickled(name: str, pickled: bytes) -> SharedSource:
    with _lock:
        shared = _known.get(name)
        if shared is None:
            shared = SharedSource(pickle.loads(pickled))
            shared._name, shared._pickled, shared._travelled = name, pickled, True
            _known[name] = shared
    _keep(shared)
    return shared


def _keep(shared: SharedSource) -> None:
    """Keep a source that is used now, at the expense of those not used for longest."""
    with _lock:
        before = next(reversed(_kept.values()), None)
        if before is shared:
            return
        _kept[shared._name] = shared
        _kept.move_to_end(shared._name)
    if before is not None:
        before._rest()
    for other in _too_many():
        # Who still has it may go on: a later read opens it again, and keeps it.
        other._source.close()


def _too_many() -> Iterator[SharedSource]:
    while True:
        with _lock:
            if len(_kept) < 2 or not (
                len(_kept) > KEPT
                or sum(shared._resting_bytes for shared in _kept.values()) > KEPT_BYTES
                or _files_are_scarce()
            ):
                return
            _, shared = _kept.popitem(last=False)
        yield shared


def _files_are_scarce() -> bool:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        open_files = len(os.listdir("/dev/fd"))  # noqa: PTH208 - paths of them say no more
    except OSError:
        return False  # a root of its own, without /dev: nobody can tell
    return limit != resource.RLIM_INFINITY and open_files > FILES_SHARE * limit


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

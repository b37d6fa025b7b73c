"""Pipeline: groups of frames are encoded on all cores, and stored in their order, while more arrive."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from typing import Any

from numpy.typing import NDArray

from imgstore_zarr.bells import Bells
from imgstore_zarr.cores import CORES
from imgstore_zarr.interruption import Deferred
from imgstore_zarr.native.codecs import Bytes
from imgstore_zarr.native.shards import ShardGeometry

BUFFER_BYTES = 24 * 2**20
"""How much memory the frames take that are not stored yet, and what compression makes of them. At
least two groups fit, whatever their size."""

_MAX_GROUPS = 64

# Handing over a smaller group takes longer than storing it: measured, for raw and compressed ones.
_SMALL_RAW, _SMALL_COMPRESSED = 2**19, 2**16

_MAX_THREADS = 8

Encoded = list[Sequence[Bytes | bytes]]


@dataclass(eq=False)
class Group:
    """Frames that share inner chunks, on their way to storage.

    Attributes
    ----------
    frames
        (group_frames, y, x[, channel]), of which the first are filled.
    metadata
        Frame number and time of each of these.
    encoded
        Per inner chunk the buffers to be written one after the other, once that is done.
    failure
        What kept the group from being encoded.
    """

    frames: NDArray[Any]
    metadata: list[tuple[int, float]] = field(default_factory=list)
    encoded: Encoded | None = None
    failure: Exception | None = None

    def __len__(self) -> int:
        return len(self.metadata)

    @property
    def filled(self) -> NDArray[Any]:
        """The frames that are there."""
        return self.frames[: len(self.metadata)]


class Pipeline:
    """Takes groups from one thread; others encode and store them, unless they are small.

    A group that cannot be stored stays the first one, and nothing behind it is stored, until `retry`.

    Parameters
    ----------
    geometry
        How frames are encoded.
    store
        Stores a group that is encoded. It is called for one group after the other, in their order,
        never by two threads at once. If it raises, it will be called with the same group again.
    """

    def __init__(self, geometry: ShardGeometry, store: Callable[[Group], None]) -> None:
        self._geometry = geometry
        self._store = store
        group_bytes = geometry.group_frames * prod(geometry.image_shape) * geometry.dtype.itemsize
        small = _SMALL_COMPRESSED if geometry.codec.compressor else _SMALL_RAW
        self._is_small = group_bytes < small
        held = group_bytes * (2 if geometry.codec.compressor else 1)
        self._room = max(2, min(_MAX_GROUPS, BUFFER_BYTES // held))
        self._buffers: list[NDArray[Any]] = []
        self._queue: deque[Group] = deque()
        self._to_encode: deque[Group] = deque()
        self._lock = threading.Lock()
        self._bells = Bells()
        self._storing = False
        self._error: BaseException | None = None
        self._threads = min(self._room, _MAX_THREADS, CORES)
        self._working = 0
        self._executor = ThreadPoolExecutor(self._threads, "imgstore-writer")

    @property
    def error(self) -> BaseException | None:
        """What keeps the first group from being stored."""
        return self._error

    @property
    def waiting(self) -> tuple[Group, ...]:
        """The groups that are not stored yet."""
        with Deferred(), self._lock:
            return tuple(self._queue)

    def new_group(self) -> Group:
        """Return an empty group, as soon as there is room; None of it counts before `put`."""
        self._wait_until(lambda: len(self._queue) < self._room or self._error is not None)
        # Only this thread takes any.
        frames = self._buffers.pop() if self._buffers else self._geometry.new_group()
        return Group(frames)

    def put(self, group: Group) -> None:
        """Have a group encoded and stored, behind those that were put before."""
        with self._lock:
            self._queue.append(group)
            self._to_encode.append(group)
            if self._working == self._threads:
                return
            self._working += 1
        if self._is_small:
            self._work()
        else:
            self._submit()

    def _submit(self) -> None:
        # What could not be handed over may be in the executor's queue nevertheless.
        turn = threading.Lock()

        def work() -> None:
            if turn.acquire(blocking=False):
                self._work()

        try:
            self._executor.submit(work)
        except RuntimeError:  # no thread can be started, or the interpreter is about to end
            work()

    def drain(self) -> None:
        """Wait until everything is stored, or something cannot be."""
        self._wait_until(lambda: not self._working and (not self._queue or self._error is not None))

    def _wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait for other threads; Ctrl-C ends it between two looks, when no lock is held."""
        while True:
            with Deferred(), self._lock:
                if reached():
                    return
                bell = self._bells.ask()
            bell.acquire()

    def retry(self) -> None:
        """Try again to store what could not be stored, and wait for the end of that."""
        with Deferred():
            with self._lock:
                self._error = None
                failed = [group for group in self._queue if group.failure is not None]
                for group in failed:
                    group.failure = None
                self._to_encode.extend(failed)
                self._working += 1
            self._submit()
        self.drain()

    def clear(self) -> None:
        """Forget everything that is not stored yet."""
        with Deferred(), self._lock:
            self._queue.clear()
            self._to_encode.clear()
        self._wait_until(lambda: not self._working)
        self._error = None

    def close(self) -> None:
        """Wait until nothing is stored any more, and end the threads.

        Ctrl-C may end the waiting: then this can be called again.
        """
        self._wait_until(lambda: not self._working)
        with Deferred():
            self._executor.shutdown()

    def _work(self) -> None:
        """Encode and store as long as there is anything to encode."""
        try:
            self._store_in_order()
            while (group := self._next_to_encode()) is not None:
                self._encode(group)
                self._store_in_order()
        except BaseException as error:
            with self._lock:
                self._leave()
            # Who finds it in `error` says which frame it is of; an interruption ends the caller.
            if not isinstance(error, Exception):
                raise

    def _encode(self, group: Group) -> None:
        group.failure = None
        try:
            group.encoded = self._geometry.encode_group(group.filled)
        except (MemoryError, OSError, RuntimeError, ValueError) as error:
            # It is raised when the groups before this one are stored.
            group.failure = error
        except BaseException as error:
            with self._lock:
                self._to_encode.appendleft(group)
                self._error = error
            raise

    def _next_to_encode(self) -> Group | None:
        with self._lock:
            if self._to_encode and self._error is None:
                return self._to_encode.popleft()
            # In the same step, since `put` relies on those that are working.
            self._leave()
            return None

    def _leave(self) -> None:
        self._working -= 1
        self._bells.ring()

    def _store_in_order(self) -> None:
        """Store the first groups, as far as they are encoded, unless another thread does it."""
        with self._lock:
            if self._storing:
                return
            self._storing = True
        try:
            while (group := self._next()) is not None:
                if group.failure is not None:
                    raise group.failure
                self._store(group)
                with self._lock:
                    if self._queue and self._queue[0] is group:
                        self._queue.popleft()
                    if len(self._buffers) < self._room:
                        self._buffers.append(group.frames)
                    self._bells.ring()
        except BaseException as error:
            with self._lock:
                self._error, self._storing = error, False
                self._bells.ring()
            raise

    def _next(self) -> Group | None:
        with self._lock:
            first = self._queue[0] if self._queue and self._error is None else None
            if first is not None and (first.encoded is not None or first.failure is not None):
                return first
            self._storing = False
            self._bells.ring()
            return None

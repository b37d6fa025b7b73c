"""ReadAhead: frames requested before they are asked for, while somebody reads one after the other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from numpy.typing import NDArray

from imgstore_zarr.storage import submit

AHEAD_BYTES = 64 * 2**20
"""How much memory the frames take, decoded, that are requested ahead for one reader."""

# What one request brings; more at once would only make the first frame wait.
_REQUEST_BYTES = 4 * 2**20

_IN_FLIGHT = 8

# So many reads one after the other before anything is requested ahead.
_STREAK = 3

ReadRun = Callable[[int, int], NDArray[Any]]


class ReadAhead:
    """Notices that frames are read in order, and has the following ones requested.

    Parameters
    ----------
    read
        Reads frames from a position to another, which lie in one shard; called by other threads.
    count
        Frames in the recording.
    chunksize
        Frames in a shard.
    frame_bytes
        How large a frame is.
    """

    def __init__(self, read: ReadRun, count: int, chunksize: int, frame_bytes: int) -> None:
        self._read = read
        self._count = count
        self._chunksize = chunksize
        self._length = max(1, min(_REQUEST_BYTES // frame_bytes, chunksize))
        self._runs = min(_IN_FLIGHT, AHEAD_BYTES // (self._length * frame_bytes))
        self._lock = threading.Lock()
        self._next = self._planned = -1
        self._streak = 0
        self._ahead: deque[tuple[int, Future[NDArray[Any]]]] = deque()

    def fill(self, start: int, out: NDArray[Any]) -> bool:
        """Fill an array with the frames from a position on; False where they were not requested."""
        # Two who read at once would only disturb each other.
        if not self._runs or not self._lock.acquire(blocking=False):
            return False
        try:
            follows = start == self._next
            self._next = start + len(out)
            self._streak = self._streak + 1 if follows else 0
            if not follows:
                self._drop()
            if self._streak < _STREAK or len(out) > self._length * self._runs:
                return False
            if not self._ahead:
                self._planned = start
            if not self._taken(start, out):
                self._drop()
                return False
            return True
        finally:
            self._lock.release()

    def _taken(self, start: int, out: NDArray[Any]) -> bool:
        done = 0
        while done < len(out):
            self._request()
            if not self._ahead:
                return False
            first, future = self._ahead[0]
            try:
                frames = future.result()
            except (OSError, ValueError):
                return False  # reading it now says which frame it is
            part = frames[start + done - first :][: len(out) - done]
            out[done : done + len(part)] = part
            done += len(part)
            if start + done == first + len(frames):
                self._ahead.popleft()
        self._request()
        return True

    def _request(self) -> None:
        while len(self._ahead) < self._runs and self._planned < self._count:
            start = self._planned
            end = start - start % self._chunksize + self._chunksize
            stop = min(start + self._length, end, self._count)
            self._ahead.append((start, submit(self._read, start, stop)))
            self._planned = stop

    def _drop(self) -> None:
        while self._ahead:
            self._ahead.pop()[1].cancel()

    def drop(self) -> None:
        """Give up what was requested."""
        with self._lock:
            self._drop()
            self._next, self._streak = -1, 0

"""FrameCache: frames that were decoded on the way to others, so that stepping back costs nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

CACHE_BYTES = 64 * 2**20
"""How much memory the decoded frames of all video files take together, in each process."""


class FrameCache:
    """Decoded frames of all decoders; those not used for longest are given up first.

    An owner is a number that no other decoder of the process ever has.

    Parameters
    ----------
    limit
        How much memory the frames may take, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._frames: OrderedDict[tuple[int, int], tuple[VideoFrame, int]] = OrderedDict()
        self._bytes = 0
        self._forgotten: deque[int] = deque()

    @property
    def used(self) -> int:
        """How much memory the frames take, in bytes."""
        return self._bytes

    def get(self, owner: int, position: int) -> VideoFrame | None:
        """Return the frame of a decoder at a position, if it is there."""
        with self._lock:
            entry = self._frames.get((owner, position))
            if entry is None:
                return None
            self._frames.move_to_end((owner, position))
            return entry[0]

    def put(self, owner: int, position: int, frame: VideoFrame, size: int) -> None:
        """Keep a frame of `size` bytes."""
        with self._lock:
            self._give_up()
            key = (owner, position)
            if key in self._frames:
                self._frames.move_to_end(key)
                return
            self._frames[key] = (frame, size)
            self._bytes += size
            while self._bytes > self._limit:
                _, (_, given_up) = self._frames.popitem(last=False)
                self._bytes -= given_up

    def forget(self, owner: int) -> None:
        """Give up all frames of a decoder, at the latest when the next frame is kept."""
        # A finalizer may come here in the middle of `put`, so that it must not wait for the lock.
        self._forgotten.append(owner)
        if self._lock.acquire(blocking=False):
            try:
                self._give_up()
            finally:
                self._lock.release()

    def _give_up(self) -> None:
        while self._forgotten:
            owner = self._forgotten.popleft()
            for key in [key for key in self._frames if key[0] == owner]:
                self._bytes -= self._frames.pop(key)[1]

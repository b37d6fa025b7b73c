"""Frames between the thread that reads a source and the one that writes a recording."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from imgstore_zarr.capture.source import Captured, CapturedFrames

BUFFER_BYTES = 64 * 2**20
"""How much memory frames take that were read and not taken yet."""

_LEAST_ROOM, _MOST_ROOM = 4, 1024

# How often somebody who waits looks whether the end was asked for, in seconds.
_LOOK = 0.1

# How long to wait for a source that was told to end, in seconds.
_PATIENCE = 2.0


class Buffer:
    """A thread that reads frames ahead; one other thread takes them.

    Parameters
    ----------
    frames
        Are read, and closed, by a thread.
    drops
        Whether a frame that finds no room is dropped, since a camera does not wait.
    stop
        Once it is set, nothing more is read; what was read can still be taken.

    Attributes
    ----------
    dropped
        How many frames were dropped.
    error
        What ended the source too early.
    """

    def __init__(self, frames: CapturedFrames, *, drops: bool, stop: threading.Event) -> None:
        self._drops = drops
        self._stop = stop
        self._waiting: deque[Captured] = deque()
        self._changed = threading.Condition()
        self._room = _LEAST_ROOM
        self._ended = False
        self.dropped = 0
        self.error: Exception | None = None
        # A camera that hangs must not keep the process.
        self._thread = threading.Thread(target=self._read, args=(frames,), daemon=True)
        self._thread.start()

    @property
    def fill(self) -> float:
        """Which part of the room is taken, 0 to 1."""
        return len(self._waiting) / self._room

    def close(self) -> None:
        """Read no more, and wait for the end of that; for a camera that hangs not for long."""
        self._stop.set()
        self._thread.join(_PATIENCE)

    def __iter__(self) -> Iterator[Captured]:
        """Take frames: until there are no more, or, after ``stop``, those that are there."""
        while True:
            with self._changed:
                while not self._waiting:
                    if self._ended or self._stop.is_set():
                        return
                    self._changed.wait(_LOOK)
                frame = self._waiting.popleft()
                self._changed.notify_all()
            yield frame

    def _read(self, frames: CapturedFrames) -> None:
        try:
            for frame in frames:
                if not self._put(frame):
                    break
        except Exception as error:  # noqa: BLE001 - whoever takes the frames raises it
            self.error = error
        finally:
            frames.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, frame: Captured) -> bool:
        """Whether to go on after a frame."""
        most = BUFFER_BYTES // max(frame.image.nbytes, 1)
        self._room = max(_LEAST_ROOM, min(_MOST_ROOM, most))
        with self._changed:
            while len(self._waiting) >= self._room and not self._stop.is_set():
                if self._drops:
                    self.dropped += 1
                    return True
                self._changed.wait(_LOOK)
            if self._stop.is_set():
                return False
            self._waiting.append(frame)
            self._changed.notify_all()
        return True

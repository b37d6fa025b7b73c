"""DecoderPool: the decoders of one file, lent to whoever reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.video.codec_threads import CORES
from imgstore_zarr.video.decoder import Decoder
from imgstore_zarr.video.frame_images import FrameImages

LANES = min(4, CORES)
"""How many decoders of one thread a file has at most, beside the one that uses several."""


@dataclass
class Lane:
    """A decoder, and what makes images of its frames."""

    decoder: Decoder
    images: FrameImages
    wide: bool


class DecoderPool:
    """At most one decoder that uses several threads (wide), and `LANES` that use one.

    The wide one gives one frame soonest. Narrow ones side by side give most frames, each from GOPs of
    its own: measured, 1.4 times as many on two cores.

    Parameters
    ----------
    open_lane
        Opens a lane, wide or narrow.
    """

    def __init__(self, open_lane: Callable[[bool], Lane]) -> None:
        self._open_lane = open_lane
        self._change = threading.Condition()
        self._idle: list[Lane] = []
        self._narrow = self._wide = 0
        self._generation = 0
        self._resting = False

    @contextmanager
    def lend(self, wide: bool, position: int = 0) -> Iterator[Lane]:
        """Lend a lane, if there is a choice the one that is nearest to a position."""
        lane, generation = self._take(wide, position)
        usable = False
        try:
            yield lane
            usable = True
        except (CorruptChunkError, GeneratorExit):
            usable = True
            raise
        finally:
            # After an interruption nobody knows how far the decoder came.
            with self._change:
                if generation != self._generation:
                    lane.decoder.close()
                elif usable and not (self._resting and self._idle):
                    self._idle.append(lane)
                else:
                    self._close(lane)
                self._change.notify()

    def _close(self, lane: Lane) -> None:
        if lane.wide:
            self._wide -= 1
        else:
            self._narrow -= 1
        lane.decoder.close()

    def _take(self, wide: bool, position: int) -> tuple[Lane, int]:
        with self._change:
            while True:
                if wide and not self._wide:
                    return self._new(True), self._generation
                fit = [lane for lane in self._idle if wide or not lane.wide]
                if not fit and self._narrow < LANES:
                    return self._new(False), self._generation
                if fit := fit or self._idle:
                    lane = min(fit, key=lambda lane: lane.decoder.steps_to(position))
                    self._idle.remove(lane)
                    return lane, self._generation
                self._change.wait()

    def _new(self, wide: bool) -> Lane:
        lane = self._open_lane(wide)
        if wide:
            self._wide += 1
        else:
            self._narrow += 1
        return lane

    def wake(self) -> None:
        """Keep lanes that come back, as long as `rest` is not called."""
        self._resting = False

    def rest(self) -> None:
        """Close every lane but one; those that are lent, when they come back."""
        with self._change:
            self._resting = True
            while len(self._idle) > 1:
                self._close(self._idle.pop())

    def close(self) -> None:
        """Close every lane; those that are lent, when they come back."""
        with self._change:
            self._generation += 1
            self._narrow = self._wide = 0
            for lane in self._idle:
                lane.decoder.close()
            self._idle.clear()
            self._change.notify_all()

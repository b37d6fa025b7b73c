"""DecoderPool: the decoders of one file, lent to whoever reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.video.codec_threads import CORES
from imgstore_zarr.video.decoder import Decoder
from imgstore_zarr.video.frame_images import FrameImages
from imgstore_zarr.video.packets import PacketTable

LANES = min(4, CORES)
"""How many decoders of one thread a file has at most, beside the one that uses several."""


@dataclass(frozen=True)
class VideoSource:
    """Which file, and how it is read; see `VideoFile`."""

    path: Path
    name: str
    color: bool | None
    first: int


@dataclass(frozen=True)
class Facts:
    """What is known of a file once it was opened.

    Attributes
    ----------
    table
        Its packets.
    image_shape
        (y, x), or (y, x, 3) in colour.
    """

    table: PacketTable
    image_shape: tuple[int, ...]

    @property
    def color(self) -> bool:
        """Whether images are BGR or gray."""
        return len(self.image_shape) == 3


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
    source
        The file.
    """

    def __init__(self, source: VideoSource) -> None:
        self._source = source
        self._facts: Facts | None = None
        self._change = threading.Condition()
        self._idle: list[Lane] = []
        self._narrow = self._wide = 0
        self._generation = 0
        self._resting = False

    @property
    def facts(self) -> Facts:
        """What is known of the file, which is opened for that if need be."""
        if self._facts is None:
            with self.lend(wide=True):
                pass
        assert self._facts is not None
        return self._facts

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
        source, facts = self._source, self._facts
        decoder = Decoder(
            str(source.path),
            source.name,
            facts.table if facts else None,
            CORES if wide else 1,
            source.first,
        )
        if facts is None:
            color = source.color
            if color is None:
                color = not decoder.pixel_format.startswith("gray")
            facts = Facts(decoder.table, (*decoder.frame_shape, *((3,) if color else ())))
            self._facts = facts
        if wide:
            self._wide += 1
        else:
            self._narrow += 1
        return Lane(decoder, FrameImages(facts.color), wide)

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

"""DecoderPool: the decoders of one file, lent to whoever reads."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from weakref import WeakSet

from imgstore_zarr.bells import Bells
from imgstore_zarr.cores import CORES
from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.video.decoder import Decoder
from imgstore_zarr.video.frame_images import FrameImages
from imgstore_zarr.video.media import Media
from imgstore_zarr.video.packets import PacketTable

LANES = min(4, CORES)
"""How many decoders of one thread a file has at most, beside the one that uses several."""

# What an open file takes, as measured with H.264: whatever it holds, the frames to which the decoder
# refers and those that it works on, and what is known of each packet.
_LANE_BYTES = 2 * 2**20
_PIXEL_BYTES = 16
_PACKET_BYTES = 280


@dataclass(frozen=True)
class VideoSource:
    """Which file, and how it is read; see `VideoFile`."""

    media: Media
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
    identity
        That of the file, and not of another one that has its name.
    """

    table: PacketTable
    image_shape: tuple[int, ...]
    identity: Hashable

    @property
    def color(self) -> bool:
        """Whether images are BGR or gray."""
        return len(self.image_shape) == 3


@dataclass(eq=False)
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

    Attributes
    ----------
    media
        The file, and what of a remote one all its decoders share.
    """

    def __init__(self, source: VideoSource) -> None:
        self._source = source
        self.media = source.media.afresh()
        self._facts: Facts | None = None
        self._lock = threading.Lock()
        self._bells = Bells()
        self._idle: list[Lane] = []
        # One that is lost by an interruption is counted no longer.
        self._lent: WeakSet[Lane] = WeakSet()
        self._generation = 0
        self._resting = False

    @property
    def facts(self) -> Facts:
        """What is known of the file, which is opened for that if need be."""
        while (facts := self._facts) is None:
            with self.lend(wide=True):
                pass
        return facts

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
            with self._lock:
                self._give_back(lane, generation, usable)

    def _give_back(self, lane: Lane, generation: int, usable: bool) -> None:
        self._lent.discard(lane)
        facts, table = self._facts, lane.decoder.table
        if facts and facts.table is not table and generation == self._generation:
            # Its timestamps are not believed any more, or its list of packets.
            self._facts = replace(facts, table=table)
            self._close_idle(0)
        # After an interruption nobody knows how far the decoder came.
        stays = usable and not lane.decoder.closed and generation == self._generation
        if stays and not (self._resting and self._idle):
            self._idle.append(lane)
        else:
            lane.decoder.close()
        self._bells.ring()

    def _close_idle(self, keep: int) -> None:
        while len(self._idle) > keep:
            self._idle.pop().decoder.close()

    def _count(self, wide: bool) -> int:
        return sum(lane.wide is wide for lane in [*self._idle, *self._lent])

    def _take(self, wide: bool, position: int) -> tuple[Lane, int]:
        while True:
            with self._lock:
                lane = self._free(wide, position)
                if lane is not None:
                    self._lent.add(lane)
                    return lane, self._generation
                bell = self._bells.ask()
            bell.acquire()

    def _free(self, wide: bool, position: int) -> Lane | None:
        """Return a lane that nobody has, or a new one; None where all that there may be are lent."""
        fit = [lane for lane in self._idle if wide or not lane.wide]
        if wide and not self._count(True):
            return self._new(True)
        if not fit and self._count(False) < LANES:
            return self._new(False)
        fit = fit or self._idle
        if not fit:
            return None
        lane = min(fit, key=lambda lane: lane.decoder.steps_to(position))
        self._idle.remove(lane)
        return lane

    def _new(self, wide: bool) -> Lane:
        source, facts = self._source, self._facts
        decoder = Decoder(
            self.media,
            source.name,
            facts.table if facts else None,
            CORES if wide else 1,
            source.first,
            facts.identity if facts else None,
        )
        if facts is None:
            color = source.color
            if color is None:
                color = not decoder.pixel_format.startswith("gray")
            shape = (*decoder.frame_shape, *((3,) if color else ()))
            facts = self._facts = Facts(decoder.table, shape, decoder.identity)
        return Lane(decoder, FrameImages(facts.color), wide)

    def wake(self) -> None:
        """Keep lanes that come back, as long as `rest` is not called."""
        with self._lock:
            self._resting = False

    def rest(self) -> int:
        """Close every lane but one; those that are lent, when they come back.

        Returns
        -------
        int
            About how much memory the lanes take that are open now, in bytes.
        """
        with self._lock:
            self._resting = True
            self._close_idle(1)
            lanes, facts = len(self._idle) + len(self._lent), self._facts
            held = self.media.rest()
        if facts is None:
            return held
        y, x = facts.image_shape[:2]
        lane_bytes = _LANE_BYTES + _PIXEL_BYTES * y * x
        return held + lanes * lane_bytes + _PACKET_BYTES * len(facts.table.pts)

    def close(self) -> None:
        """Close every lane; those that are lent, when they come back."""
        with self._lock:
            self._generation += 1
            self._facts = None
            self.media = self.media.afresh()
            self._close_idle(0)
            self._bells.ring()

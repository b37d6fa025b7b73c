"""ReadAhead: frames decoded before they are asked for, while somebody reads one after the other."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.bells import Bells
from imgstore_zarr.cores import CORES
from imgstore_zarr.frames import Window, window_shape
from imgstore_zarr.video.decoder_pool import LANES, DecoderPool
from imgstore_zarr.video.packets import PacketTable

AHEAD_BYTES = 256 * 2**20
"""How much memory the images take that are decoded ahead for one file."""

AHEAD_REQUESTED = 16 * 2**20
"""How much of a remote file is requested before it is decoded ahead."""

# A slice of fewer frames is not worth a task.
_SHORTEST = 16

# So many frames one after the other before anything is decoded ahead.
_STREAK = 3

Image = NDArray[Any]
Decode = Callable[[list[int], bool], Iterator[Image]]


@dataclass
class _Slice:
    """Neighbouring frames, decoded by one task."""

    positions: range
    wide: bool
    images: deque[tuple[int, Image]] = field(default_factory=deque)
    taken: int = 0
    done: bool = False
    error: Exception | None = None

    @property
    def left(self) -> int:
        """How many images there are, or will be."""
        return len(self.images) if self.done else len(self.positions) - self.taken


class ReadAhead:
    """Reads on from a position: whole GOPs side by side, or, where these are too long, slices of them.

    Parameters
    ----------
    table
        The packets of the file.
    position
        The first frame.
    image_bytes
        How large an image is.
    decode
        Gives the images at positions; the second argument asks for the decoder that uses several
        threads.
    """

    def __init__(self, table: PacketTable, position: int, image_bytes: int, decode: Decode) -> None:
        self._table = table
        self._planned = position
        self._decode = decode
        self._lanes = min(LANES, CORES)
        self._capacity = AHEAD_BYTES // max(image_bytes, 1)
        # Two are being decoded, at least, while a third one is taken.
        self._longest = self._capacity // 3
        self._slices: deque[_Slice] = deque()
        self._following: _Slice | None = None
        self._lock = threading.Lock()
        self._bells = Bells()
        self._dropped = threading.Event()

    @property
    def is_possible(self) -> bool:
        """Whether the memory is enough for anything."""
        return self._longest > 0

    def take(self, position: int) -> Image | None:
        """Return the image at a position, None unless it is the next; raises what decoding it raised."""
        while True:
            with self._lock:
                self._schedule()
                if not self._slices:
                    return None
                current = self._slices[0]
                if current.images:
                    current.taken += 1
                    place, image = current.images.popleft()
                    return image if place == position else None
                if current.error is not None:
                    raise current.error
                if current.done:
                    self._slices.popleft()
                    continue
                bell = self._bells.ask()
            bell.acquire()

    def drop(self) -> None:
        """End what is being decoded; nothing can be taken any more."""
        with self._lock:
            self._dropped.set()
            self._slices.clear()

    def _schedule(self) -> None:
        while self._planned < len(self._table) and len(self._slices) <= self._lanes:
            running = sum(not piece.done for piece in self._slices)
            if running >= self._lanes:
                return
            following = self._following or self._plan()
            self._following = following
            held = sum(piece.left for piece in self._slices) + len(following.positions)
            # The slices of one GOP must be decoded one after the other.
            if held > self._capacity or (following.wide and running):
                return
            if help_with(self._run, following) is None:
                return
            self._following = None
            self._planned = following.positions.stop
            self._slices.append(following)

    def _plan(self) -> _Slice:
        """Plan the next slice: whole GOPs if they fit, else as many frames as fit."""
        table, start = self._table, self._planned
        entry = table.likely_entry_for(start)
        end = start
        # Whoever begins amid a GOP must decode what is before.
        while (
            table.first_position(entry) == start
            and table.timed
            and self._lanes > 1
            and end < len(table)
            and end - start < _SHORTEST
        ):
            after = table.likely_entry_after(int(table.rank_of_position[end]))
            following = table.first_position(after) if after < len(table.pts) else len(table)
            if following - start > self._longest:
                break
            end = following
        if end > start:
            return _Slice(range(start, end), wide=False)
        after = table.likely_entry_after(entry) if table.timed else len(table.pts)
        last = table.first_position(after) if after < len(table.pts) else len(table)
        return _Slice(range(start, min(start + min(self._longest, _SHORTEST), last)), wide=True)

    def _run(self, piece: _Slice) -> None:
        error: Exception | None = None
        try:
            if self._dropped.is_set():
                return
            decoded = self._decode(list(piece.positions), piece.wide)
            for position, image in zip(piece.positions, decoded, strict=True):
                with self._lock:
                    if self._dropped.is_set():
                        break
                    piece.images.append((position, image))
                    self._bells.ring()
        except (OSError, ValueError) as failure:
            error = failure
        finally:
            with self._lock:
                piece.done, piece.error = True, error
                self._bells.ring()


class Steps:
    """Notices that frames are read one after the other, and reads ahead then.

    Parameters
    ----------
    pool
        The decoders of the file.
    """

    def __init__(self, pool: DecoderPool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._ahead: ReadAhead | None = None
        self._next: tuple[int, Window | None] = (-1, None)
        self._expected: tuple[int, Window | None] = (-1, None)
        self._streak = 0

    def take(self, position: int, window: Window | None) -> Image | None:
        """Return an image that was decoded ahead, or None: then somebody must decode it now."""
        # Two who step through a file at once would only disturb each other.
        if not self._lock.acquire(blocking=False):
            return None
        try:
            step = (position, window)
            if self._ahead is None or step != self._next:
                self._streak = self._streak + 1 if step == self._expected else 0
                self._expected = (position + 1, window)
                if self._streak < _STREAK:
                    return None
                self._drop()
                self._ahead = self._begin(position, window)
            self._streak = 0
            self._next = (position + 1, window)
            return self._take(position)
        finally:
            self._lock.release()

    def _begin(self, position: int, window: Window | None) -> ReadAhead | None:
        """Begin to read ahead, where that is of use."""
        pool, facts = self._pool, self._pool.facts
        cut = window.slices if window else (slice(None), slice(None))
        shape = window_shape((0, *facts.image_shape), 0, window)[1:]

        def decode(positions: list[int], wide: bool) -> Iterator[Image]:
            if pool.media.is_far:
                pool.media.prefetch([_bytes_from(facts.table, positions[0])], AHEAD_REQUESTED)
            with pool.lend(wide, positions[0]) as lane:
                for _, frame in lane.decoder.frames(positions):
                    yield lane.images.image(frame, cut, shape)

        if position >= len(facts.table):
            return None
        ahead = ReadAhead(facts.table, position, int(np.prod(shape)), decode)
        return ahead if ahead.is_possible else None

    def _take(self, position: int) -> Image | None:
        image = None
        try:
            if self._ahead is not None:
                image = self._ahead.take(position)
        finally:
            # After an error, an interruption, or the last frame.
            if image is None:
                self._drop()
        return image

    def _drop(self) -> None:
        if self._ahead is not None:
            self._ahead.drop()
            self._ahead = None

    def rest(self) -> None:
        """Give up what was decoded ahead."""
        with self._lock:
            self._drop()


def _bytes_from(table: PacketTable, position: int) -> tuple[int, int]:
    """Where in the file what somebody reads on from a position begins, and ends."""
    return table.byte_range(int(table.rank_of_position[position]), len(table.pts))


_executors: dict[int, ThreadPoolExecutor] = {}


def help_with(work: Callable[..., None], *arguments: object) -> Future[None] | None:
    """Have a thread help whoever reads; a forked process has threads of its own.

    Returns
    -------
    Future or None
        None where nobody helps any more, since the interpreter is about to end.
    """
    executor = _executors.get(os.getpid())
    if executor is None:
        executor = _executors.setdefault(os.getpid(), ThreadPoolExecutor(CORES, "imgstore-video"))
    try:
        return executor.submit(work, *arguments)
    except RuntimeError:
        return None

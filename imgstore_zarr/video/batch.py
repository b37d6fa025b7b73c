"""Batch: many frames at once, each GOP decoded once, several side by side."""

from __future__ import annotations

from collections import deque
from concurrent.futures import wait
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.cores import CORES, usable_cores
from imgstore_zarr.frames import Positions
from imgstore_zarr.video.decoder_pool import DecoderPool, Lane
from imgstore_zarr.video.frame_images import Cut
from imgstore_zarr.video.packets import PacketTable
from imgstore_zarr.video.read_ahead import help_with

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# So many packets are worth a seek of their own.
_TASK = 32


class Batch:
    """The frames at some positions, and where they go.

    Parameters
    ----------
    positions
        int64 (n,), in any order, repeats allowed.
    cut
        The part of each image.
    out
        uint8 (n, y, x) or (n, y, x, 3), what is to be filled.
    """

    def __init__(self, positions: Positions, cut: Cut, out: NDArray[np.uint8]) -> None:
        self._cut = cut
        self._out = out
        order = np.argsort(positions, kind="stable")
        self._unique, starts = np.unique(positions[order], return_index=True)
        places = np.split(order, starts[1:]) if len(order) else []
        self._ranges: list[tuple[int, int]] = []
        self._places = dict(zip(self._unique.tolist(), places, strict=True))

    def read(self, pool: DecoderPool, table: PacketTable) -> None:
        """Read all frames; raises what fails first in the file."""
        tasks = self._tasks(table)
        # One frame may still be in memory, though the file's bytes are not.
        if pool.media.is_far and table.timed and len(self._unique) > 1:
            self._ranges = [_bytes_of(table, task) for task in tasks]
        several = usable_cores() > 1
        if len(tasks) > 1 and several:
            self._read_side_by_side(pool, tasks)
            return
        for i, task in enumerate(tasks):
            with pool.lend(wide=several, position=task[0]) as lane:
                self._prefetch(pool, i)
                self._run(lane, task)

    def _tasks(self, table: PacketTable) -> list[list[int]]:
        """Cut the positions where a seek is due, or would cost little."""
        positions = self._unique.tolist()
        if len(positions) < 2 or not table.timed or positions[-1] >= len(table):
            return [positions] if positions else []
        tasks: list[list[int]] = []
        begun = end = -1
        for position, rank in zip(positions, table.rank_of_position[self._unique], strict=True):
            entry = table.likely_entry_before(int(rank))
            # In another GOP, which is not reached by simply going on for a while.
            if entry >= end and (entry > end or entry - begun >= _TASK):
                begun = entry
                tasks.append([])
            tasks[-1].append(position)
            end = table.likely_entry_after(int(rank))
        return tasks

    def _prefetch(self, pool: DecoderPool, task: int) -> None:
        """Request the bytes of a task, and of those that come after it."""
        if self._ranges:
            pool.media.prefetch(self._ranges[task:])

    def _run(self, lane: Lane, task: list[int]) -> None:
        for position, frame in lane.decoder.frames(task):
            self._write(lane, frame, self._places[position].tolist())

    def _write(self, lane: Lane, frame: VideoFrame, places: list[int]) -> None:
        first, *others = places
        lane.images.write(frame, self._cut, self._out[first])
        for place in others:
            self._out[place] = self._out[first]

    def _read_side_by_side(self, pool: DecoderPool, tasks: list[list[int]]) -> None:
        waiting = deque(enumerate(tasks))
        failed: dict[int, Exception] = {}

        def work() -> None:
            with pool.lend(wide=False, position=tasks[0][0]) as lane:
                while True:
                    try:
                        i, task = waiting.popleft()
                    except IndexError:
                        return
                    try:
                        self._prefetch(pool, i)
                        self._run(lane, task)
                    except (OSError, ValueError) as error:
                        failed[task[0]] = error
                        waiting.clear()

        asked = [help_with(work) for _ in range(min(CORES, len(tasks)) - 1)]
        helping = [helper for helper in asked if helper is not None]
        try:
            work()
        finally:
            waiting.clear()
            # Nobody writes into `out` any more when it is handed back.
            begun = [helper for helper in helping if not helper.cancel()]
            wait(begun)
        for helper in begun:
            helper.result()
        if failed:
            raise failed[min(failed)]


def _bytes_of(table: PacketTable, task: list[int]) -> tuple[int, int]:
    """Where in the file the GOPs lie that hold some frames."""
    if task[0] >= len(table):
        return 0, 0
    first, last = (int(table.rank_of_position[min(i, len(table) - 1)]) for i in (task[0], task[-1]))
    start, stop = table.likely_entry_before(first), table.likely_entry_after(last)
    return table.byte_range(start, stop)

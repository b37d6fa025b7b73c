"""Frames of a source that cannot be read, found before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from imgstore_zarr.conversion_job import blocks
from imgstore_zarr.cores import in_order
from imgstore_zarr.errors import ChunkMissingError, CorruptChunkError
from imgstore_zarr.frames import FrameSource, Window
from imgstore_zarr.index import FrameIndex, Int64s
from imgstore_zarr.report import counted
from imgstore_zarr.verification import unreadable_frames

# In messages: a report has all of them.
_TOLD = 3


@dataclass(frozen=True)
class DamagedFrames:
    """Selected frames of a source that follow each other in one of its chunks, and cannot be read.

    Attributes
    ----------
    chunk
        The number of the chunk.
    start, stop
        Their positions in the source, half-open.
    frames
        How many of these were selected, and are left out.
    reason
        Why the first of them cannot be read.
    """

    chunk: int
    start: int
    stop: int
    frames: int
    reason: str

    def __str__(self) -> str:
        if self.frames == 1:
            return f"the frame at position {self.start}, in chunk {self.chunk}: {self.reason}"
        return (
            f"{self.frames} frames at positions {self.start} to {self.stop - 1}, in chunk {self.chunk}; "
            f"the first: {self.reason}"
        )


def told(damaged: Sequence[DamagedFrames]) -> list[str]:
    """Say which frames cannot be read, in a few texts."""
    more = sum(one.frames for one in damaged[_TOLD:])
    rest = [f"{counted(more, 'more frame')} that cannot be read"] if more else []
    return [*map(str, damaged[:_TOLD]), *rest]


def find_damaged(
    images: FrameSource,
    window: Window | None,
    index: FrameIndex,
    positions: Int64s,
    progress: Callable[[int, int], None],
) -> tuple[DamagedFrames, ...]:
    """Read frames, and return those that cannot be.

    Parameters
    ----------
    images, window
        What is read of each.
    index
        Of the source.
    positions
        int64 (n,), in any order.
    progress
        Called with the number of frames that are done, and of all.
    """
    wanted = np.unique(positions)
    found: list[DamagedFrames] = []
    done = 0
    progress(done, len(wanted))

    def read(block: Int64s) -> tuple[int, list[tuple[int, str]]]:
        damage = []
        for position, error in unreadable_frames(images, block, window):
            if not isinstance(error, ChunkMissingError | CorruptChunkError):
                raise error
            damage.append((position, str(error)))  # an error would keep the image in memory
        return len(block), damage

    for count, damage in in_order(read, blocks(images, wanted)):
        for position, reason in damage:
            chunk, _ = index.chunk_at(position)
            before = int(wanted[np.searchsorted(wanted, position) - 1])
            if found and (found[-1].chunk, found[-1].stop - 1) == (chunk, before):
                last = found[-1]
                found[-1] = replace(last, stop=position + 1, frames=last.frames + 1)
            else:
                found.append(DamagedFrames(chunk, position, position + 1, 1, reason))
        done += count
        progress(done, len(wanted))
    return tuple(found)


def without_damaged(positions: Int64s, damaged: tuple[DamagedFrames, ...], name: str) -> Int64s:
    """Return the positions that can be read, in their order.

    Raises
    ------
    CorruptChunkError
        There is none.
    """
    lost = [np.arange(one.start, one.stop) for one in damaged]
    left = positions[~np.isin(positions, np.concatenate([*lost, np.empty(0, np.int64)]))]
    if len(positions) and not len(left):
        raise CorruptChunkError(
            f"{name}: none of the frames that are selected can be read; the first: "
            f"{damaged[0].reason}"
        )
    return left

"""``imgstore.index``: the index of a recording as imgstore saves it, over a FrameIndex."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from imgstore_compat.chunk_index import Columns, read_chunk_index
from imgstore_compat.imgstore.constants import FRAME_MD
from imgstore_zarr import FrameIndex, FrameNotFoundError, sqlite_index
from imgstore_zarr.storage import Directory

__all__ = ["FRAME_MD", "ImgStoreIndex"]

NOT_FOUND = (-1, -1)


class ImgStoreIndex:
    """Which frame is in which chunk.

    Parameters
    ----------
    columns
        The frame numbers, frame times and chunks.
    """

    VERSION = sqlite_index.INDEX_VERSION

    def __init__(self, columns: FrameIndex) -> None:
        self.columns = columns

    @classmethod
    def new_from_file(cls, path: str | PathLike[str]) -> Self:
        """Load an index that was saved as SQLite.

        Raises
        ------
        InvalidMetadataError
            The file is no index, or is damaged.
        UnsupportedVersionError
            It is of a version that is not known.
        """
        return cls(sqlite_index.load_sqlite(Path(path)))

    @classmethod
    def new_from_chunks(cls, chunk_n_and_chunk_paths: Iterable[tuple[int, str]]) -> Self:
        """Build an index from those of the chunks.

        Parameters
        ----------
        chunk_n_and_chunk_paths
            The number of each chunk, and the path of its index without the ending. A chunk without
            an index is left out with a warning, one without frames silently.

        Raises
        ------
        CorruptChunkError
            The index of a chunk is damaged.
        """
        chunks: dict[int, Columns] = {}
        for number, stem in sorted(chunk_n_and_chunk_paths, key=operator.itemgetter(0)):
            path = Path(stem)
            columns = read_chunk_index(Directory(path.parent), path.name)
            if columns is None:
                warnings.warn(f"chunk {number} has no index {stem}.npz: left out", stacklevel=2)
            elif len(columns[0]):
                chunks[number] = columns
        lengths = [len(numbers) for numbers, _ in chunks.values()]
        return cls(
            FrameIndex(
                np.concatenate([np.empty(0, np.int64), *(n for n, _ in chunks.values())]),
                np.concatenate([np.empty(0), *(times for _, times in chunks.values())]),
                np.cumsum([0, *lengths], dtype=np.int64)[:-1],
                np.array(list(chunks), np.int64),
            )
        )

    def to_file(self, path: str | PathLike[str]) -> None:
        """Save the index as SQLite; a file that is there is replaced."""
        sqlite_index.save_sqlite(self.columns, Path(path))

    @property
    def frame_count(self) -> int:
        """Frames in the recording."""
        return len(self.columns)

    @property
    def frame_min(self) -> float:
        """The smallest frame number; NaN where there are no frames."""
        return int(self.columns.frame_number.min()) if self.columns else np.nan

    @property
    def frame_max(self) -> float:
        """The largest frame number; NaN where there are no frames."""
        return int(self.columns.frame_number.max()) if self.columns else np.nan

    @property
    def frame_time_min(self) -> float:
        """The earliest frame time in seconds; 0 without frames, NaN where none is known."""
        return float(np.fmin.reduce(self.columns.frame_time)) if self.columns else 0.0

    @property
    def frame_time_max(self) -> float:
        """The latest frame time in seconds; 0 without frames, NaN where none is known."""
        return float(np.fmax.reduce(self.columns.frame_time)) if self.columns else 0.0

    @property
    def chunks(self) -> tuple[int, ...]:
        """The numbers of the chunks that hold frames."""
        return tuple(self.columns.chunk_numbers.tolist())

    def get_chunk_metadata(self, chunk_n: int) -> dict[str, list[Any]]:
        """Return the frame numbers and times of a chunk; no frames where there is no such chunk."""
        try:
            chunk = self.columns.chunk(chunk_n)
        except KeyError:
            return self._metadata(slice(0))
        return self._metadata(slice(chunk.start, chunk.stop))

    def get_all_metadata(self) -> dict[str, list[Any]]:
        """Return the frame numbers and times of the recording."""
        return self._metadata(slice(None))

    def _metadata(self, rows: slice) -> dict[str, list[Any]]:
        return {
            "frame_number": self.columns.frame_number[rows].tolist(),
            "frame_time": self.columns.frame_time[rows].tolist(),
        }

    def find_chunk(
        self, what: Literal["frame_number", "frame_time", "index"], value: float
    ) -> tuple[int, int]:
        """Return where a frame is.

        Parameters
        ----------
        what
            What `value` is: a frame number, a frame time, or a position in the recording.
        value
            Exactly that of the frame; where it occurs more than once, the first frame counts.

        Returns
        -------
        chunk_n, frame_idx
            The number of its chunk, and its place in the chunk; (-1, -1) where there is none.

        Raises
        ------
        FrameNotFoundError
            `what` is something else.
        """
        if what == "index":
            position = int(value)
            return self._place(position if 0 <= position < len(self.columns) else None)
        if what == "frame_number":
            return self._place(self.columns.position_of_number(value))
        _check_is_time(what)
        return self._place(self.columns.position_of_time(value))

    def find_chunk_nearest(
        self, what: Literal["frame_number", "frame_time"], value: float
    ) -> tuple[int, int]:
        """Return where the frame of the nearest number or time is; see `find_chunk`."""
        if what == "frame_number":
            return self._place(self.columns.position_nearest_number(value))
        _check_is_time(what)
        return self._place(self.columns.position_nearest_time(value))

    def _place(self, position: int | None) -> tuple[int, int]:
        return NOT_FOUND if position is None else self.columns.chunk_at(position)


def _check_is_time(what: str) -> None:
    if what != "frame_time":
        raise FrameNotFoundError(
            f"frames are found by their frame_number or frame_time, not by {what!r}"
        )

"""What is converted: the parts of a recording or of a video file, and which of its frames."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imgstore_zarr.errors import FrameNotFoundError, RecordingNotFoundError, UnsupportedFormatError
from imgstore_zarr.formats import open as open_recording
from imgstore_zarr.frames import ConvertedSource, FrameSource, Window
from imgstore_zarr.index import FrameIndex, Int64s
from imgstore_zarr.layouts import Parts
from imgstore_zarr.plain_video import parts_of_video
from imgstore_zarr.store import ImgStore

Record = dict[str, Any]

_ABOUT_FRAMES = ("frame_index", "frame_number", "frame_time")

# Rows of extra data that become records at once.
_ROWS = 10_000


@dataclass(frozen=True)
class Selection:
    """Which frames, and which part of each; None is all.

    See `convert` for what each is.
    """

    frames: slice | range | Sequence[int] | None = None
    time: tuple[float, float] | None = None
    stride: int = 1
    roi: tuple[slice, slice] | None = None

    def positions(self, index: FrameIndex, name: str) -> Int64s:
        """Return int64 (n,), the positions that are selected, in the order in which they are wanted.

        Raises
        ------
        FrameNotFoundError
            A position that there is not, or nothing is selected.
        """
        count = len(index)
        if self.frames is None or isinstance(self.frames, slice):
            positions = np.arange(count)[self.frames or slice(None)]
        else:
            positions = np.asarray(self.frames, np.int64)
            outside = positions[(positions < 0) | (positions >= count)]
            if len(outside):
                raise FrameNotFoundError(
                    f"{name}: there is no position {outside[0]}; the recording has positions 0 .. "
                    f"{count - 1}"
                )
        if self.time is not None:
            times = index.frame_time[positions]
            start, stop = self.time
            positions = positions[(times >= start) & (times < stop)]
        if self.stride < 1:
            raise UnsupportedFormatError(f"stride must be at least 1, not {self.stride}")
        positions = positions[:: self.stride]
        if not len(positions):
            known = index.frame_time[np.isfinite(index.frame_time)]
            span = f", with times from {known.min()} to {known.max()}" if len(known) else ""
            raise FrameNotFoundError(f"{name}: no frame is selected; it has {count}{span}")
        return positions

    def window(self, image_shape: tuple[int, ...]) -> Window | None:
        """Return the part of each image that is selected, None for all of it.

        Raises
        ------
        UnsupportedFormatError
            Not two slices of neighbouring rows and columns, or nothing of the images is in them.
        """
        if self.roi is None:
            return None
        bounds: list[int] = []
        for part, size in zip(self.roi, image_shape, strict=False):
            start, stop, step = part.indices(size)
            if step != 1 or start >= stop or len(self.roi) != 2:
                raise UnsupportedFormatError(
                    f"roi must be slices of rows and of columns that hold some of the {image_shape[0]} "
                    f"x {image_shape[1]} pixels, without a step, not {self.roi}"
                )
            bounds += [start, stop]
        return Window(*bounds)

    def to_dict(self) -> dict[str, Any]:
        """Return what was selected, as JSON holds it."""
        chosen: dict[str, Any] = {}
        if self.time is not None:
            ends = [float(value) for value in self.time]
            chosen["time"] = [value if np.isfinite(value) else None for value in ends]
        if self.stride != 1:
            chosen["stride"] = self.stride
        if self.roi is not None:
            chosen["roi"] = [[part.start, part.stop] for part in self.roi]
        return chosen


@dataclass(frozen=True)
class Source:
    """The parts of what is converted.

    Attributes
    ----------
    parts
        Of the recording, or of the video file.
    decodes
        Whether images are decoded from the recording's encoding.
    """

    parts: Parts
    decodes: bool = True

    @classmethod
    def of(cls, source: object) -> Source:
        """Open what a user gave; a file that is no recording is taken for a video.

        Raises
        ------
        RecordingNotFoundError
            There is nothing.
        CorruptChunkError
            A file that is no video.
        """
        if isinstance(source, ImgStore):
            return cls(source.parts, source.decodes)
        try:
            return cls(open_recording(source).parts)
        except RecordingNotFoundError:
            if isinstance(source, str | os.PathLike) and Path(source).expanduser().is_file():
                return cls(parts_of_video(Path(source).expanduser()))
            raise

    @property
    def name(self) -> str:
        """For messages."""
        return self.parts.info.name

    @property
    def encoding(self) -> str | None:
        """How stored images are to be interpreted."""
        return self.parts.info.encoding if self.decodes else None

    def images(self, *, stored: bool = False) -> FrameSource:
        """Return the images as they are handed out, or as they are before they are decoded."""
        frames, conversion = self.parts.frames, self.parts.info.conversion
        if stored or not self.decodes:
            conversion = conversion.without_decoding()
        return frames if conversion.kind == "none" else ConvertedSource(frames, conversion)

    def provenance(self, selection: Selection) -> Mapping[str, Any]:
        """Return where a conversion comes from, for its metadata."""
        info = self.parts.info
        facts = {"uuid": info.uuid, "location": info.name, "format": info.format}
        return {**facts, "frames": len(self.parts.index), **selection.to_dict()}

    def records(self, positions: Int64s, target: FrameIndex) -> Iterator[Record]:
        """Iterate over the extra data of some frames, in the order of the destination.

        Parameters
        ----------
        positions
            int64 (n,) in the source.
        target
            The index of the destination, of n frames.
        """
        table = self.parts.extra.read()
        if table is None or table.empty:
            return
        index = self.parts.index
        at = _positions_of(index, table)
        place = np.full(len(index) + 1, -1, np.int64)
        # Of a frame that is taken several times, the first has its records.
        place[positions[::-1]] = np.arange(len(positions))[::-1]
        places = place[at]
        order = np.flatnonzero(places >= 0)
        order = order[np.argsort(places[order], kind="stable")]
        fields = table.drop(columns=[name for name in _ABOUT_FRAMES if name in table.columns])
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            records: list[Record] = fields.iloc[rows].to_dict("records")  # type: ignore[assignment]
            for record, new in zip(records, places[rows].tolist(), strict=True):
                yield {
                    **record,
                    "frame_time": float(target.frame_time[new]),
                    "frame_number": int(target.frame_number[new]),
                    "frame_index": new,
                }


def _positions_of(index: FrameIndex, table: Any) -> Int64s:
    """The position of the frame of each record: by what it says itself, if that fits, or its number."""
    count = len(index)
    at = np.full(len(table), count, np.int64)
    numbers = table["frame_number"].to_numpy() if "frame_number" in table.columns else None
    if "frame_index" in table.columns:
        said = table["frame_index"].to_numpy(np.float64)
        fits = (said >= 0) & (said < count)
        at[fits] = said[fits].astype(np.int64)
    if numbers is not None and count:
        wrong = index.frame_number[np.minimum(at, count - 1)] != numbers
        wrong |= at == count
        unique, first = np.unique(index.frame_number, return_index=True)
        found = np.minimum(np.searchsorted(unique, numbers), len(unique) - 1)
        known = unique[found] == numbers
        at[wrong & known] = first[found[wrong & known]]
    return at

"""What is converted: the parts of a recording or of a video file, and which of its frames."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.cached import cached_property
from imgstore_zarr.clock import ClockCorrection
from imgstore_zarr.conversion_samples import Beside
from imgstore_zarr.described import NAN
from imgstore_zarr.errors import FrameNotFoundError, RecordingNotFoundError, UnsupportedFormatError
from imgstore_zarr.formats import is_recording
from imgstore_zarr.formats import open as open_recording
from imgstore_zarr.frames import ConvertedSource, FrameSource, Window
from imgstore_zarr.index import FrameIndex, Int64s
from imgstore_zarr.layouts import Parts
from imgstore_zarr.pixels import Conversion, is_color
from imgstore_zarr.plain_video import parts_of_video
from imgstore_zarr.storage import Directory
from imgstore_zarr.store import ImgStore

Record = dict[str, Any]

PROVENANCE = "converted_from"
"""The key of the user's metadata that says where a converted recording comes from."""

_OF_FRAMES = ("frame_index", "frame_number")

# Places of records: before the first frame, as writers have them, and of no frame that is taken.
_BEFORE, _NOWHERE = -1, -2

# Rows of extra data that become records at once.
_ROWS = 10_000


@dataclass(frozen=True)
class Selection:
    """Which frames, and which part of each; None is all.

    See `convert` for what each is.
    """

    frames: slice | range | Sequence[int] | NDArray[Any] | None = None
    time: tuple[float | None, float | None] | None = None
    stride: int = 1
    roi: tuple[slice, slice] | None = None

    def positions(self, index: FrameIndex, name: str) -> Int64s:
        """Return int64 (n,), the positions that are selected, in the order in which they are wanted.

        Raises
        ------
        FrameNotFoundError
            A position that there is not, or nothing is selected.
        """
        positions = self._cut(index, name)
        if isinstance(self.stride, bool) or not isinstance(self.stride, int | np.integer):
            raise UnsupportedFormatError(f"stride must be an integer, not {self.stride!r}")
        if self.stride < 1:
            raise UnsupportedFormatError(f"stride must be at least 1, not {self.stride}")
        positions = positions[:: int(self.stride)]
        if not len(positions) and (len(index) or self.to_dict()):
            known = index.frame_time[np.isfinite(index.frame_time)]
            span = f", with times from {known.min()} to {known.max()}" if len(known) else ""
            raise FrameNotFoundError(f"{name}: no frame is selected; it has {len(index)}{span}")
        return positions

    def _cut(self, index: FrameIndex, name: str) -> Int64s:
        """The positions, before the stride."""
        positions = self._asked_for(len(index), name)
        if self.time is None:
            return positions
        start, stop = _ends(self.time)
        times = index.frame_time[positions]
        return positions[(times >= start) & (times < stop)]

    def span(self, index: FrameIndex, name: str) -> tuple[float, float] | None:
        """Return the times (half-open) of what else was recorded then; None where nothing is cut off.

        A cut by ``time`` alone is cut there. Otherwise it goes from the first frame time that is kept up
        to that which comes after the last one: so what is cut in two is in one of both parts. Where no
        frame is earlier, or later, there is no end. NaN where no frame that is kept has a time.
        """
        if self.frames is None and self.time is not None:
            begin, end = self.time
            return -np.inf if begin is None else begin, np.inf if end is None else end
        times = index.frame_time
        kept = times[self._cut(index, name)]
        known = kept[np.isfinite(kept)]
        if len(known):
            first, last = known.min(), known.max()
            start = float(first) if (times < first).any() else -np.inf
            stop = float(np.min(times, where=times > last, initial=np.inf))
            return None if np.isinf([start, stop]).all() else (start, stop)
        return None if len(kept) == len(times) else (np.nan, np.nan)

    def _asked_for(self, count: int, name: str) -> Int64s:
        if self.frames is None or isinstance(self.frames, slice):
            return np.arange(count)[self.frames or slice(None)]
        asked = np.asarray(self.frames)
        if asked.dtype.kind == "b" and asked.shape == (count,):
            return np.flatnonzero(asked)
        if asked.ndim != 1 or (asked.size and asked.dtype.kind not in "iu"):
            raise UnsupportedFormatError(
                f"{name}: frames must be a slice, a range, positions, or a mask of {count} booleans, "
                f"not {self.frames!r:.80}"
            )
        positions = asked.astype(np.int64)
        positions = np.where(positions < 0, positions + count, positions)
        outside = np.flatnonzero((positions < 0) | (positions >= count))
        if len(outside):
            raise FrameNotFoundError(
                f"{name}: there is no position {asked[outside[0]]}; the recording has positions 0 .. "
                f"{count - 1}"
            )
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
        given: Any = self.roi
        is_pair = isinstance(given, tuple | list) and len(given) == 2
        if not is_pair or not all(isinstance(part, slice) for part in given):
            raise UnsupportedFormatError(
                f"roi must be two slices, of rows and of columns, not {self.roi!r}"
            )
        bounds: list[int] = []
        for part, size in zip(self.roi, image_shape, strict=False):
            start, stop, step = part.indices(size)
            if step != 1 or start >= stop:
                raise UnsupportedFormatError(
                    f"roi must be slices of rows and of columns that hold some of the {image_shape[0]} "
                    f"x {image_shape[1]} pixels, without a step, not {part.start}:{part.stop}"
                )
            bounds += [start, stop]
        return Window(*bounds)

    def to_dict(self) -> dict[str, Any]:
        """Return what was selected, as JSON holds it."""
        chosen: dict[str, Any] = {}
        if isinstance(self.frames, slice | range):
            part = self.frames
            ends_and_step = (part.start, part.stop, part.step)
            chosen["frames"] = [None if n is None else int(n) for n in ends_and_step]
        elif self.frames is not None:
            asked = np.asarray(self.frames)
            chosen["frames"] = (
                f"{int(asked.sum() if asked.dtype.kind == 'b' else asked.size)} of a list"
            )
        if self.time is not None:
            chosen["time"] = [value if np.isfinite(value) else None for value in _ends(self.time)]
        if self.stride != 1:
            chosen["stride"] = int(self.stride)
        if self.roi is not None:
            rows_and_columns = [(part.start, part.stop) for part in self.roi]
            chosen["roi"] = [
                [None if n is None else int(n) for n in ends] for ends in rows_and_columns
            ]
        return chosen


def _ends(time: Any) -> tuple[float, float]:
    """The first time, and that before which selected frames are; None is no end."""
    try:
        start, stop = time
        ends = (
            -np.inf if start is None else float(start),
            np.inf if stop is None else float(stop),
        )
    except (TypeError, ValueError) as error:
        raise UnsupportedFormatError(
            f"time must be (start, stop) in seconds, of which one may be None, not {time!r}"
        ) from error
    return ends


@dataclass(frozen=True)
class Source:
    """The parts of what is converted.

    Attributes
    ----------
    parts
        Of the recording, or of the video file.
    decodes
        Whether images are decoded from the recording's encoding.
    gray
        Whether images are made gray.
    clocks
        How its times were corrected.
    skips
        Whether what cannot be read is left out.
    """

    parts: Parts
    decodes: bool = True
    gray: bool = False
    clocks: tuple[ClockCorrection, ...] = ()
    skips: bool = False

    @classmethod
    def of(cls, source: object, *, gray: bool = False, skips: bool = False) -> Source:
        """Open what a user gave; a file that is no recording is taken for a video.

        Raises
        ------
        RecordingNotFoundError
            There is nothing.
        CorruptChunkError
            A file that is no video.
        """
        if isinstance(source, ImgStore):
            return cls(source.parts, source.decodes, gray, source.clocks, skips)
        try:
            return cls(open_recording(source).parts, gray=gray, skips=skips)
        except RecordingNotFoundError:
            if not isinstance(source, str | os.PathLike):
                raise
            path = Path(source).expanduser()
            # The video of a chunk has numbers and times, which are not in it.
            if not path.is_file() or is_recording(Directory(path.absolute().parent)):
                raise
            return cls(parts_of_video(path, color=False if gray else None), skips=skips)

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
        source = frames if conversion.kind == "none" else ConvertedSource(frames, conversion)
        shape = source.shape[1:]
        if self.gray and is_color(shape):
            return ConvertedSource(source, Conversion.between(shape, shape[:2], None))
        return source

    def provenance(self, selection: Selection, damaged: int) -> Mapping[str, Any]:
        """Return where a conversion comes from, for its metadata.

        Parameters
        ----------
        selection
            What is taken.
        damaged
            How many frames of that cannot be read.
        """
        info = self.parts.info
        facts: dict[str, Any] = {
            "uuid": info.uuid,
            "location": info.name,
            "format": info.format,
            "frame_count": len(self.parts.index),
            **selection.to_dict(),
        }
        if self.gray:
            facts["gray"] = True
        if self.clocks:
            facts["clock"] = [repr(clock) for clock in self.clocks]
        if damaged:
            facts["damaged_frames"] = damaged
        if PROVENANCE in info.user_metadata:
            facts[PROVENANCE] = info.user_metadata[PROVENANCE]
        return facts

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells this source from another one, wherever it lies."""
        info = self.parts.info
        if info.uuid:
            return {"source": info.name, "source_uuid": info.uuid}
        path = Path(info.name)
        facts = path.stat() if path.is_file() else None
        file = None if facts is None else [facts.st_size, facts.st_mtime_ns]
        return {"source": info.name, "source_uuid": None, "source_file": file}

    @cached_property
    def beside(self) -> Beside:
        """What was recorded beside the frames, of which the records are read once."""
        return Beside.of(self.parts.extra, skip=self.skips)

    def records(self, positions: Int64s, target: FrameIndex) -> Iterator[Record]:
        """Iterate over the extra data of some frames, in the order of the destination.

        Parameters
        ----------
        positions
            int64 (n,) in the source.
        target
            The index of the destination, of n frames.
        """
        table, at = self.beside.records, self._places
        if table is None:
            return
        index = self.parts.index
        # The last but one is for those before the first frame, the last for those of no frame.
        place = np.full(len(index) + 2, _NOWHERE, np.int64)
        place[-2] = _BEFORE
        # Of a frame that is taken several times, the first has its records.
        place[positions[::-1]] = np.arange(len(positions))[::-1]
        places = place[at]
        order = np.flatnonzero(places > _NOWHERE)
        order = order[np.argsort(places[order], kind="stable")]
        fields = table.drop(columns=[name for name in _OF_FRAMES if name in table.columns])
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            records: list[Record] = fields.iloc[rows].to_dict("records")  # type: ignore[assignment]
            for record, new in zip(records, places[rows].tolist(), strict=True):
                number = NAN if new == _BEFORE else int(target.frame_number[new])
                record.setdefault("frame_time", NAN if new == _BEFORE else target.frame_time[new])
                texts = {
                    name: value.decode(errors="replace")
                    for name, value in record.items()
                    if isinstance(value, bytes)
                }
                yield {**record, **texts, "frame_number": number, "frame_index": new}

    def records_of_no_frame(self) -> int:
        """How many records there are of frames that are not there."""
        return self.records_of(np.array([len(self.parts.index) + 1]))

    def records_of(self, positions: Int64s) -> int:
        """How many records the frames at some positions have."""
        return int(np.isin(self._places, positions).sum())

    @cached_property
    def _places(self) -> Int64s:
        """int64 (record,), the position of the frame of each."""
        table = self.beside.records
        empty = table is None or table.empty
        return np.empty(0, np.int64) if empty else _positions_of(self.parts.index, table)


def _positions_of(index: FrameIndex, table: Any) -> Int64s:
    """The position of the frame of each record: by what it says itself, if that fits, or its number."""
    count = len(index)
    before, nowhere = count, count + 1
    at = np.full(len(table), nowhere, np.int64)
    if "frame_index" in table.columns:
        said = table["frame_index"].to_numpy(np.float64)
        fits = (said >= 0) & (said < count)
        at[fits] = said[fits].astype(np.int64)
        at[said == -1] = before
    if "frame_number" in table.columns and count:
        numbers = table["frame_number"].to_numpy()
        wrong = (at == nowhere) | (
            (at < count) & (index.frame_number[np.minimum(at, count - 1)] != numbers)
        )
        unique, first = np.unique(index.frame_number, return_index=True)
        found = np.minimum(np.searchsorted(unique, numbers), len(unique) - 1)
        at[wrong] = np.where(unique[found] == numbers, first[found], nowhere)[wrong]
    return at

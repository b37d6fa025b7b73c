"""ImgStore: the interface of imgstore for reading, once, for every layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.analysed import Analysed
from imgstore_zarr.cached import cached_property
from imgstore_zarr.clock import ClockCorrection
from imgstore_zarr.corrected_extra import CorrectedExtra
from imgstore_zarr.described import NAN, FrameMetadata
from imgstore_zarr.errors import (
    EndOfRecordingError,
    FrameNotFoundError,
    InvalidMetadataError,
    UnsupportedFormatError,
)
from imgstore_zarr.extra import EXTRA_DATA_FILE_EXTENSIONS
from imgstore_zarr.frames import ConvertedSource, Frames, FrameSource
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.layouts import Layout, Parts, Renumbers, refreshed
from imgstore_zarr.lookup import Lookup
from imgstore_zarr.recording import RecordingInfo
from imgstore_zarr.sqlite_index import index_file, save_sqlite
from imgstore_zarr.storage import Location

if TYPE_CHECKING:
    import pandas as pd

_CURSOR = ("_cursor", "frame_number", "frame_time")


class ImgStore(Analysed):
    """A recording, opened for reading.

    `imgstore_zarr.open` makes these. A store can be pickled, forked and sent to dask workers: it
    opens the recording again when it is used there, with the index that it was given, which travels
    with it. Reading frames is safe from several threads; the cursor (`get_next_image` and what moves
    it) belongs to one thread.

    Parameters
    ----------
    location
        Where the recording lies.
    layout
        How it lies there.
    index
        The recording's index, where somebody has kept it; it is then not read from storage.

    Attributes
    ----------
    frame_number, frame_time
        Of the image that was read last; NaN before the first.
    """

    mode: Literal["r"] = "r"

    def __init__(self, location: Location, layout: Layout, index: FrameIndex | None = None) -> None:
        self._location = location
        self._layout = layout
        self._given_index = index
        self._clocks: tuple[ClockCorrection, ...] = ()
        self._decoding = True
        self._cursor = -1
        self.frame_number: int | float = NAN
        self.frame_time = NAN
        # After unpickling it opens when it is used.
        self._parts: Parts = layout.open(location, index)
        self._parts.log_problems()

    def __getstate__(self) -> dict[str, Any]:
        # Positions, the cursor among them, mean something only with the index they belong to.
        opened = ("_location", "_layout", "_given_index", "_clocks", "_decoding")
        return {name: self.__dict__[name] for name in (*opened, *_CURSOR)}

    def __getattr__(self, name: str) -> Any:
        if name == "_parts" and "_layout" in self.__dict__:
            parts = self._layout.open(self._location, self._given_index)
            for clock in self._clocks:
                parts = dataclasses.replace(parts, extra=CorrectedExtra(parts.extra, clock))
            self._parts = parts
            return parts
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def parts(self) -> Parts:
        """The four parts of the recording, for those who build on them."""
        return self._parts

    @property
    def decodes(self) -> bool:
        """Whether images are converted from the recording's encoding; see `disable_decoding`."""
        return self._decoding

    @property
    def clocks(self) -> tuple[ClockCorrection, ...]:
        """How frame times were corrected, one after the other; see `with_clock`."""
        return self._clocks

    @property
    def info(self) -> RecordingInfo:
        """What is known of the recording apart from its frames."""
        return self._parts.info

    @cached_property
    def _source(self) -> FrameSource:
        frames, conversion = self._parts.frames, self.info.conversion
        if not self._decoding:
            conversion = conversion.without_decoding()
        return frames if conversion.kind == "none" else ConvertedSource(frames, conversion)

    @property
    def frames(self) -> Frames:
        """All frames, behind NumPy indexing: ``store.frames[100:200, ::2, 50:90]``."""
        return Frames(self._source)

    # What imgstore calls things.

    @property
    def frame_count(self) -> int:
        """Frames in the recording."""
        return len(self.index)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def frame_min(self) -> int | float:
        """The smallest frame number; NaN in an empty recording."""
        return int(self.index.frame_number.min()) if len(self) else NAN

    @property
    def frame_max(self) -> int | float:
        """The largest frame number; NaN in an empty recording."""
        return int(self.index.frame_number.max()) if len(self) else NAN

    @property
    def frame_time_min(self) -> float:
        """The earliest frame time, in seconds; 0 in an empty recording, NaN where none is known."""
        return float(np.fmin.reduce(self.index.frame_time)) if len(self) else 0.0

    @property
    def frame_time_max(self) -> float:
        """The latest frame time, in seconds; 0 in an empty recording, NaN where none is known."""
        return float(np.fmax.reduce(self.index.frame_time)) if len(self) else 0.0

    @property
    def duration(self) -> float:
        """From the earliest to the latest frame time, in seconds."""
        return self.frame_time_max - self.frame_time_min

    @property
    def chunks(self) -> list[int]:
        """The numbers of the chunks that hold frames."""
        return [int(number) for number in self.index.chunk_numbers]

    def get_next_framenumber(self) -> int:
        """Return the frame number that `get_next_image` will read, without reading.

        Raises
        ------
        EndOfRecordingError
            There is no next frame.
        """
        return int(self.index.frame_number[self._next()])

    def _next(self) -> int:
        position = self._cursor + 1
        if position >= len(self):
            raise EndOfRecordingError(
                f"{self.filename}: there is no frame after position {self._cursor}, the last one"
            )
        return position

    def get_next_image(self) -> tuple[NDArray[Any], FrameMetadata]:
        """Read the next image, and move the cursor to it.

        Returns
        -------
        image : ndarray
            (y, x) or (y, x, channel).
        (frame_number, frame_time)
            Of that frame.

        Raises
        ------
        EndOfRecordingError
            There is no next frame.
        """
        return self._image_at(self._next())

    def get_image(
        self,
        frame_number: int | None = None,
        exact_only: bool = True,
        frame_index: float | None = None,
    ) -> tuple[NDArray[Any], FrameMetadata]:
        """Read one image, and move the cursor to it.

        Parameters
        ----------
        frame_number
            The camera's number of the frame. On repeats, the first in recording order is read.
        exact_only
            False reads the frame with the nearest number.
        frame_index
            The position of the frame, 0 .. frame_count-1, instead of its number.

        Returns
        -------
        image : ndarray
            (y, x) or (y, x, channel).
        (frame_number, frame_time)
            Of that frame.

        Raises
        ------
        FrameNotFoundError
            No such frame.
        """
        if frame_index is not None:
            return self._image_at(self._lookup.position(frame_index))
        if frame_number is None:
            raise FrameNotFoundError(f"{self.filename}: give a frame_number or a frame_index")
        return self._image_at(self._lookup.number(frame_number, exact_only))

    def get_nearest_image(self, frame_time: float) -> tuple[NDArray[Any], FrameMetadata]:
        """Read the image whose frame time is nearest, and move the cursor to it.

        Parameters
        ----------
        frame_time
            In seconds, as the recording has them. On a tie, the first in recording order is read.

        Raises
        ------
        FrameNotFoundError
            The recording is empty, no time is known, or the one asked for is NaN.
        """
        return self._image_at(self._lookup.nearest_time(frame_time))

    @property
    def _lookup(self) -> Lookup:
        return Lookup(self._parts)

    def _image_at(self, position: int) -> tuple[NDArray[Any], FrameMetadata]:
        image = self._source.read(np.array([position], np.int64))[0]
        self._cursor = position
        number, time = self._metadata_at(position)
        self.frame_number, self.frame_time = number, time
        return image, (number, time)

    def _metadata_at(self, position: int) -> FrameMetadata:
        index = self.index
        return int(index.frame_number[position]), float(index.frame_time[position])

    def __iter__(self) -> Iterator[tuple[NDArray[Any], FrameMetadata]]:
        """Iterate over (image, (frame_number, frame_time)) from the first; the cursor stays."""
        for position in range(len(self)):
            image = self._source.read(np.array([position], np.int64))[0]
            yield image, self._metadata_at(position)

    def get_frame_metadata(self) -> dict[str, list[Any]]:
        """Return the frame numbers and times as lists, as imgstore does; `index` has arrays."""
        return {
            "frame_number": self.index.frame_number.tolist(),
            "frame_time": self.index.frame_time.tolist(),
        }

    def disable_decoding(self) -> None:
        """Hand out stored pixels from now on, not converted from the recording's encoding."""
        self._decoding = False
        self.__dict__.pop("_source", None)

    # Extra data.

    @property
    def has_extra_data(self) -> bool:
        """Whether there is extra data; reads none."""
        return self._parts.extra.exists()

    def find_extra_data_files(
        self, extensions: Sequence[str] = EXTRA_DATA_FILE_EXTENSIONS
    ) -> list[str]:
        """Return where the extra data lie."""
        return self._parts.extra.files(extensions)

    def get_extra_data(self, ignore_corrupt_chunks: bool = False) -> pd.DataFrame | None:
        """Return the extra data, one row per record, or None where there is none.

        Parameters
        ----------
        ignore_corrupt_chunks
            Leave out, with a warning, what cannot be read, instead of raising.
        """
        return self._parts.extra.read(ignore_corrupt_chunks)

    def get_extra_data_samplerate(self) -> float:
        """Return the rate in Hz at which extra data were sampled.

        Raises
        ------
        InvalidMetadataError
            The recording does not say.
        """
        rate = self._parts.extra.samplerate()
        if rate is None:
            raise InvalidMetadataError(f"{self.filename} has no extra data with a sample rate")
        return rate

    # Beyond imgstore.

    def reindex(self) -> None:
        """Number the frames before the one with number 0 as -n .. -1, in storage too.

        The old numbers are kept beside the new ones.

        Raises
        ------
        FrameNotFoundError
            Not exactly one frame has the number 0; nothing is changed.
        InvalidMetadataError
            The store was opened with another index than the recording has; nothing is changed.
        """
        renumbered = self.index.numbered_from_zero()
        if renumbered is None:
            raise FrameNotFoundError(f"{self.filename}: not exactly one frame has the number 0")
        if not isinstance(self._layout, Renumbers):
            raise UnsupportedFormatError(
                f"{self.filename}: recordings of the layout {self._layout.name} cannot be renumbered"
            )
        if self._given_index is not None and self._layout.open(self._location).index != self.index:
            raise InvalidMetadataError(
                f"{self.filename}: the index that was given is not the one of the recording; open "
                "it without one to renumber"
            )
        self._layout.renumber(self._location, self.index, renumbered)
        self._given_index = None
        self._replace(self._layout.open(self._location))

    def refresh(self) -> int:
        """See what a writer has added since the recording was opened, or refreshed.

        `frames`, DataArrays and the index that were taken before stay as they were.

        Returns
        -------
        int
            How many frames were added; negative where frames were thrown away.

        Raises
        ------
        InvalidMetadataError
            The store was opened with an index of its own, which cannot grow.
        """
        if self._given_index is not None:
            raise InvalidMetadataError(
                f"{self.filename} was opened with an index, which cannot grow; open it without one"
            )
        before = len(self)
        self._replace(refreshed(self._layout, self._location, self._parts))
        return len(self) - before

    def _replace(self, parts: Parts) -> None:
        self._parts.frames.close()
        self._parts = parts
        self.__dict__.pop("_source", None)

    def with_clock(self, correction: ClockCorrection) -> ImgStore:
        """Return a view of the recording with other frame times; nothing is written.

        Parameters
        ----------
        correction
            From the times of the recording to those that are wanted.

        Returns
        -------
        ImgStore
            With corrected times everywhere: `index`, `get_nearest_image`, `to_xarray`, extra data,
            `align`. It cannot be refreshed or renumbered.
        """
        if not isinstance(correction, ClockCorrection):
            raise TypeError(
                f"with_clock needs a ClockCorrection(offset=..., drift=...), not {correction!r}"
            )
        view = self.__class__.__new__(self.__class__)
        view.__dict__ |= self.__getstate__()
        view._given_index = self.index.with_times(correction.apply(self.index.frame_time))
        view._clocks = (*self._clocks, correction)
        view._cursor, view.frame_number, view.frame_time = -1, NAN, NAN
        return view

    def save_index(self, path: str | Path | None = None) -> None:
        """Write the index as SQLite, in imgstore's form.

        Parameters
        ----------
        path
            The file; by default ``.index.sqlite`` in the recording.

        Raises
        ------
        UnsupportedFormatError
            The recording is in no directory, and no path is given.
        RecordingAccessError
            The file cannot be written.
        """
        save_sqlite(self.index, index_file(self._location, path), self._chunk_path)

    def close(self, save_index: bool = False) -> None:
        """Release every handle.

        Parameters
        ----------
        save_index
            Write the index first; see `save_index`.
        """
        if save_index:
            self.save_index()
        if "_parts" in self.__dict__:
            self._parts.frames.close()

    def _summary(self) -> dict[str, str]:
        shape = " x ".join(str(n) for n in self.image_shape)
        return {
            "format": f"{self.format} ({self.info.layout} layout)",
            "frames": f"{self.frame_count} of {shape} {self.dtype}",
            "frame numbers": f"{self.frame_min} .. {self.frame_max}",
            "duration": f"{self.duration:.3f} s",
            "created": self.info.created.isoformat(timespec="seconds"),
        }

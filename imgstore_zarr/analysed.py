"""What recordings give to those who analyse them: DataArrays, joins with other data, reports."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal

import numpy as np

from imgstore_zarr.dataarray import Chunks, to_dataarray
from imgstore_zarr.datatree import to_datatree
from imgstore_zarr.described import Described
from imgstore_zarr.errors import InvalidMetadataError
from imgstore_zarr.frames import Frames
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.layouts import Layout, Parts
from imgstore_zarr.report import Report, inspected_report

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from zarr.abc.store import Store

On = Literal["frame_time", "frame_number"]


class Analysed(Described):
    """What can be made of the parts of a recording that is read."""

    _layout: Layout

    @property
    @abstractmethod
    def parts(self) -> Parts:
        """The four parts of the recording, for those who build on them."""

    @property
    @abstractmethod
    def frames(self) -> Frames:
        """All frames, behind NumPy indexing: ``store.frames[100:200, ::2, 50:90]``."""

    @property
    def index(self) -> FrameIndex:
        """Which frame is where."""
        return self.parts.index

    def to_xarray(
        self,
        chunks: Chunks = None,
        index: Literal["frame_number", "frame_time"] | None = None,
        datetime: bool = False,
    ) -> xr.DataArray:
        """Return the recording as a DataArray; nothing is decoded until it is asked for.

        Parameters
        ----------
        chunks
            None: lazy without dask; whatever is selected, no other frames are read. ``"auto"``: dask
            blocks of about 128 MiB that begin where shards or GOPs begin. A number of frames or a
            mapping from dimension to size: such blocks. Of those, dask reads slices only as far as
            they are wanted, but for a list of frames whole blocks.
        index
            ``"frame_number"`` or ``"frame_time"``: what ``.sel`` looks up.
        datetime
            Add the coordinate ``time`` (datetime64[ns], UTC).

        Returns
        -------
        DataArray
            ``image`` with dimensions (frame, y, x[, channel]), coordinates ``frame_number`` (int64)
            and ``frame_time`` (float64, seconds) along ``frame``, ``channel`` = b, g, r for colour.
        """
        attributes = {
            "recording": self.filename,
            "format": self.format,
            "uuid": self.uuid or "",
            "created_utc": self.info.created.isoformat(),
            "timezone_local": str(self.info.timezone),
        }
        return to_dataarray(
            self.frames.source,
            self.index,
            attributes=attributes,
            chunks=chunks,
            by=index,
            datetime=datetime,
        )

    def to_datatree(self) -> xr.DataTree:
        """Return images, frame metadata and extra data together; images and samples are lazy.

        Returns
        -------
        DataTree
            ``/`` has ``image``, with the coordinates that `to_xarray` gives. ``/extra`` has a
            variable per field of the extra data along ``record``. What Motif sampled has a group
            for each dataset (``/daq``, ``/audio``, ...) with a variable per column along
            ``sample``, the coordinate ``time`` (seconds on the clock of ``frame_time``) and the
            attribute ``samplerate`` (Hz). Files of Motif do not say when audio begins: it is taken
            to begin with the first frame of its chunk. See `imgstore_zarr.datatree.to_datatree`.

        Raises
        ------
        CorruptChunkError
            A file of extra data is damaged.
        InvalidMetadataError
            What was sampled is not the same in two chunks.
        """
        return to_datatree(self.to_xarray(), self.parts.extra)

    def as_zarr(self) -> Store:
        """Return the recording as a Zarr v3 group, which any program with a Zarr reader can open.

        Its chunks are not compressed: frames are decoded when a chunk of them is asked for. It is what
        the recording is now, whatever a writer adds. ``imgstore-zarr serve`` gives it to other programs.

        Returns
        -------
        zarr.abc.store.Store
            For reading. ``image`` (frame, y, x[, channel]), in chunks of whole frames of up to 1 MiB,
            ``frame_number``, ``frame_time``, and extra data as the groups ``extra`` and ``sampled``,
            all with the names and attributes that recordings of the Zarr layout have. Extra data that
            cannot be read are left out, with a warning. Frames that cannot be read raise
            `ChunkMissingError` or `CorruptChunkError` when they are asked for.

        Examples
        --------
        >>> xarray.open_zarr(store.as_zarr())  # doctest: +SKIP
        """
        from imgstore_zarr.virtual_zarr import VirtualZarr

        return VirtualZarr(self)

    def report(self) -> Report:
        """Return gaps, drops, jitter, and chunks that are missing or damaged; decodes no pixels.

        Every file is looked into, with one small read for a chunk of the Zarr layout. Damage within
        pixels shows when they are read, or by `verify`.
        """
        return inspected_report(self._layout, self._location, self.parts)

    def extra_on_frames(
        self,
        method: Literal["nearest", "previous"] = "nearest",
        tolerance: float | None = None,
        on: Literal["frame_time", "frame_number", "frame_index"] = "frame_time",
    ) -> pd.DataFrame:
        """Return extra data with one row per frame.

        Parameters
        ----------
        method
            ``"nearest"``: to each frame belongs the nearest record, the earlier one on a tie.
            ``"previous"``: the last record at or before the frame.
        tolerance
            How far apart the two may be, at most, in seconds or numbers; by default any distance.
        on
            What tells which record belongs to a frame: times, numbers, or positions.

        Returns
        -------
        DataFrame
            In recording order, with the fields of the extra data, and ``record_index``, the row of
            `get_extra_data`, -1 where no record belongs to the frame.

        Raises
        ------
        InvalidMetadataError
            There is no extra data, or it does not have what `on` asks for.
        """
        from imgstore_zarr.joining import extra_on_frames

        extra = self.parts.extra.read()
        if extra is None:
            raise InvalidMetadataError(f"{self.filename} has no extra data")
        return extra_on_frames(self.index, extra, on=on, method=method, tolerance=tolerance)

    def events_on_frames(
        self,
        events: pd.DataFrame,
        on: On | None = None,
        column: str | None = None,
        method: Literal["nearest", "previous", "next"] = "nearest",
        tolerance: float | None = None,
    ) -> pd.DataFrame:
        """Find the frame of each event of a table that somebody else made.

        Parameters
        ----------
        events
            One row per event, in any order.
        on, column
            What tells the frame, ``"frame_time"`` (seconds, or datetimes, which are UTC where they have
            no time zone) or ``"frame_number"``, and the column that holds it, by default the one of that
            name. Without `on`, a column called ``frame_number`` holds numbers, and any other times.
        method
            ``"nearest"``, ``"previous"``: the last frame at or before the event, or ``"next"``: the
            first at or after it.
        tolerance
            How far apart the two may be, at most, in seconds or numbers; ``math.inf`` for any distance.
            By default one median interval for times, and any distance for numbers.

        Returns
        -------
        DataFrame
            The events with ``matched_index`` (the position of the frame, -1 where there is none),
            ``matched_number`` and ``matched_time``.

        Raises
        ------
        InvalidMetadataError
            No such column, or one that holds something else.
        """
        from imgstore_zarr.joining import events_on_frames

        columns = getattr(events, "columns", None)
        if columns is None:
            raise InvalidMetadataError(
                f"events must be a DataFrame with a row per event, not {type(events).__name__}; "
                "pandas.read_csv(...) makes one of a file"
            )
        if on is None:
            only_numbers = column is None and "frame_time" not in columns
            by_number = "frame_number" in (column, *(columns if only_numbers else ()))
            on = "frame_number" if by_number else "frame_time"
        if tolerance is None and on == "frame_time":
            intervals = np.abs(np.diff(self.index.frame_time))
            intervals = intervals[np.isfinite(intervals)]
            tolerance = float(np.median(intervals)) if len(intervals) else 0.0
        return events_on_frames(
            self.index, events, on=on, column=column, method=method, tolerance=tolerance
        )

    def _repr_html_(self) -> str:
        from imgstore_zarr.thumbnails import spread_positions, strip_html

        strip = strip_html(self.frames, spread_positions(len(self.index)))
        return f"{super()._repr_html_()}{strip}"

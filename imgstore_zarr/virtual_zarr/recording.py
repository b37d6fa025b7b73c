"""A recording as a virtual group, with the names and attributes that our own Zarr layout has."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr._version import __version__
from imgstore_zarr.errors import ImgStoreError
from imgstore_zarr.extra import (
    ExtraData,
    HasSampledData,
    RecordEncoder,
    SampledData,
    SampledSource,
)
from imgstore_zarr.frames import FrameSource, HasBoundaries
from imgstore_zarr.native.columns import chunk_length
from imgstore_zarr.native.extra_columns import array_name
from imgstore_zarr.native.metadata import (
    ATTRIBUTE,
    COLUMN_CHUNK,
    COLUMNS,
    LAYOUT_VERSION,
    SAMPLED,
)
from imgstore_zarr.native.sampled_columns import SAMPLED_CHUNK
from imgstore_zarr.recording import RecordingInfo, as_json
from imgstore_zarr.virtual_zarr.arrays import Rows, VirtualArray
from imgstore_zarr.virtual_zarr.group import VirtualGroup

if TYPE_CHECKING:
    import pandas as pd

    from imgstore_zarr.analysed import Analysed

CHUNK_BYTES = 2**20
"""How large a chunk of images is at most, unless a single image is larger."""

_TIME = "time"

_log = logging.getLogger("imgstore_zarr")


def virtual_group(recording: Analysed) -> VirtualGroup:
    """Return a recording, as it is now, as a Zarr v3 group; decodes no pixels.

    Parameters
    ----------
    recording
        What is read; frames come as it hands them out.

    Returns
    -------
    VirtualGroup
        With ``image``, ``frame_number``, ``frame_time``; extra data as ``extra`` and ``sampled``. Extra
        data that cannot be read are left out with a warning.
    """
    source, index = recording.frames.source, recording.index
    channel = ("channel",) if len(source.shape) == 4 else ()
    members = _Members()
    members.arrays["image"] = VirtualArray(
        source.shape,
        source.dtype.newbyteorder("<"),
        frames_per_chunk(source),
        _FrameRows(source),
        ("frame", "y", "x", *channel),
    )
    columns = {"frame_number": index.frame_number, "frame_time": index.frame_time}
    for name, values in columns.items():
        units = {"units": "s"} if name == "frame_time" else {}
        members.add_column(name, len(index), COLUMNS[name], partial(_part, values), "frame", units)
    try:
        extra = _sampled(recording.parts.extra)
        within = _Members()
        within.add_records(extra.records)
        within.add_datasets(extra.datasets)
    except (ImgStoreError, OSError) as error:
        _log.warning("%s; its Zarr group is without the extra data", error)
    else:
        members.arrays |= within.arrays
        members.groups |= within.groups
    return VirtualGroup(
        recording.filename, _attributes(recording.info, source), members.groups, members.arrays
    )


def frames_per_chunk(source: FrameSource) -> int:
    """Return how many frames a chunk of images has: a whole part of what is best read together."""
    frame_bytes = int(np.prod(source.shape[1:], dtype=np.int64)) * source.dtype.itemsize
    most = max(CHUNK_BYTES // frame_bytes, 1)
    unit = source.preferred_chunks[0]
    if unit <= most:
        return most // unit * unit
    # A part that is less than half as long as it may be is worse than one that cuts a unit.
    return next((n for n in range(most, most // 2, -1) if unit % n == 0), most)


class _FrameRows:
    """Reads frames, of video one chunk after the other.

    Zarr readers ask for several chunks at once, which are neighbours most of the time. Decoded one after
    the other they cost up to half as much: each begins where the one before it ended.
    """

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._turn = threading.Lock()
        self._process = os.getpid()

    def __call__(self, start: int, stop: int) -> NDArray[Any]:
        positions = np.arange(start, stop, dtype=np.int64)
        if not isinstance(self._source, HasBoundaries):
            return self._source.read(positions)
        # A forked process must not wait for a thread of its parent.
        if self._process != os.getpid():
            self._start_afresh()
        with self._turn:
            return self._source.read(positions)


def _part(values: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
    return values[start:stop]


def _attributes(info: RecordingInfo, source: FrameSource) -> dict[str, Any]:
    ours = {
        "layout": LAYOUT_VERSION,
        "uuid": info.uuid,
        "created_utc": info.created.replace(tzinfo=None).isoformat(),
        "timezone_local": str(info.timezone),
        "format": info.format,
        # Images were decoded, or whoever asks for them did not want that.
        "encoding": info.encoding if source.shape[1:] == info.stored_shape else None,
        "imgshape": list(source.shape[1:]),
        "imgdtype": source.dtype.name,
        "chunksize": info.chunksize,
        "writer": f"imgstore-zarr {__version__}",
    }
    return {
        ATTRIBUTE: ours,
        "user_metadata": as_json(info.user_metadata)[0],
        "coordinates": " ".join(COLUMNS),
    }


def _sampled(extra: ExtraData) -> SampledData:
    return extra.sampled() if isinstance(extra, HasSampledData) else SampledData(extra.read(), {})


@dataclass
class _Members:
    """Groups and arrays, as they are found."""

    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    arrays: dict[str, VirtualArray] = field(default_factory=dict)

    def add_column(
        self,
        key: str,
        count: int,
        dtype: np.dtype[Any],
        read: Rows,
        dimension: str,
        attributes: Mapping[str, Any],
        chunk: int = COLUMN_CHUNK,
    ) -> None:
        """Add an array of one axis."""
        self.arrays[key] = VirtualArray(
            (count,), dtype.newbyteorder("<"), chunk, read, (dimension,), attributes
        )

    def add_records(self, records: SampledSource | pd.DataFrame | None) -> None:
        """Add the group ``extra``, where there are records."""
        import pandas as pd

        if records is None:
            return
        if isinstance(records, pd.DataFrame):
            columns = self._table("extra", records)
        else:
            columns = self._columns("extra", records, "record", {}, COLUMN_CHUNK)
        if columns:
            self.groups["extra"] = {}

    def _table(self, key: str, table: pd.DataFrame) -> int:
        fields = [str(name) for name in table.columns]
        for i, name in enumerate(fields):
            array, values = array_name(name, fields), table.iloc[:, i].to_numpy()
            if values.dtype.kind in "iufb":
                read, attributes = partial(_part, values), _marks(name, array)
                self.add_column(
                    f"{key}/{array}", len(values), values.dtype, read, "record", attributes
                )
                continue
            width = max(map(len, _texts(values)), default=1) or 1
            self.arrays[f"{key}/{array}"] = VirtualArray(
                (len(values), width),
                np.dtype(np.uint8),
                chunk_length((width,)),
                partial(_text_rows, values, width),
                ("record", f"{array}_byte"),
                _marks(name, array, type="json"),
            )
        return len(fields)

    def _columns(
        self, key: str, source: SampledSource, dimension: str, rate: Mapping[str, Any], chunk: int
    ) -> int:
        count = int(source.lengths.sum())
        for name, dtype in source.dtypes.items():
            array = array_name(name, source.dtypes, reserved=(_TIME,))
            attributes = {**_marks(name, array), **rate}
            read = partial(source.read, name)
            self.add_column(f"{key}/{array}", count, dtype, read, dimension, attributes, chunk)
        return len(source.dtypes) if count else 0

    def add_datasets(self, datasets: Mapping[str, SampledSource]) -> None:
        """Add the group ``sampled``, where there are datasets."""
        if datasets:
            self.groups[SAMPLED] = {}
        for name, source in datasets.items():
            array = array_name(name, datasets)
            key = f"{SAMPLED}/{array}"
            rate: dict[str, Any] = {}
            if source.samplerate is not None:
                rate = {"samplerate": source.samplerate, "samplerate_units": "Hz"}
            coordinates = {"coordinates": _TIME} if source.timed else {}
            self.groups[key] = {**_marks(name, array), **rate, **coordinates}
            self._columns(key, source, "sample", rate, SAMPLED_CHUNK)
            if source.timed:
                count, dtype = int(source.lengths.sum()), np.dtype(np.float64)
                units = {"units": "s"}
                self.add_column(
                    f"{key}/{_TIME}", count, dtype, source.times, "sample", units, SAMPLED_CHUNK
                )


def _marks(name: str, array: str, **more: str) -> dict[str, Any]:
    """What says which field an array is of, where its name does not."""
    marks = {**more, **({} if name == array else {"field": name})}
    return {ATTRIBUTE: marks} if marks else {}


def _texts(values: NDArray[Any]) -> Iterator[bytes]:
    """Each value as JSON text; nothing where there is none."""
    for value in values:
        missing = isinstance(value, float) and value != value
        yield b"" if missing else json.dumps(value, cls=RecordEncoder).encode()


def _text_rows(values: NDArray[Any], width: int, start: int, stop: int) -> NDArray[np.uint8]:
    texts = np.array(list(_texts(values[start:stop])), f"S{width}")
    return texts.view(np.uint8).reshape(-1, width)

"""Motif's HDF5 files of extra data: the table by frames, and what was sampled beside the frames."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.cached import cached_property
from imgstore_zarr.errors import (
    ChunkMissingError,
    CorruptChunkError,
    ImgStoreError,
    InvalidMetadataError,
    RecordingAccessError,
)
from imgstore_zarr.index import Float64s, Int64s
from imgstore_zarr.storage import Location, RequestError, access_error

if TYPE_CHECKING:
    import h5py
    import pandas as pd

SUFFIX = ".extra_data.h5"

# What reading a damaged file raises.
DAMAGE = (ValueError, LookupError, TypeError, OSError, RuntimeError)

_CAMERA, _DELAY = "camera", "sample_delay"


def what(key: str) -> str:
    """Name a file of extra data, for messages."""
    match = re.match(r"\d+", key)
    return f"the extra data {key} of chunk {int(match[0])}" if match else f"the extra data {key}"


def damaged(
    location: Location, key: str, error: Exception
) -> CorruptChunkError | RecordingAccessError:
    """Return the error for a file of extra data that cannot be read."""
    if isinstance(error, RequestError):
        return access_error(location, f"reading {key}", error)
    return CorruptChunkError(
        f"{location.name}: {what(key)} are damaged ({type(error).__name__}: {error}); "
        "get_extra_data(ignore_corrupt_chunks=True) leaves them out"
    )


def _text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes | np.bytes_) else str(value)


def _split(value: Any) -> list[str]:
    return [name.strip() for name in _text(value).split(",")]


def datasets(file: h5py.File) -> list[str]:
    """Return the names of the datasets in Motif's HDF5 file."""
    if "datasets" not in file.attrs:
        raise ValueError("it has no attribute 'datasets', which names those that it has")
    return _split(file.attrs["datasets"])


def samplerate(file: h5py.File) -> float | None:
    """Return the rate in Hz of the only dataset; None where there are several, or it has none."""
    rates = [file[name].attrs.get("samplerate") for name in datasets(file)]
    return float(rates[0]) if len(rates) == 1 and rates[0] is not None else None


def check(file: h5py.File) -> None:
    """Raise one of `DAMAGE` where something is missing that every file has."""
    for name in (_CAMERA, _DELAY, *datasets(file)):
        _ = file[name].shape


def open_h5(location: Location, key: str) -> h5py.File:
    """Open a file; one that lies in no directory is fetched as a whole."""
    import h5py

    if location.path is not None:
        return h5py.File(location.path / key, "r")
    return h5py.File(io.BytesIO(location.read(key)), "r")


def read_table(location: Location, key: str, *, tell: bool = True) -> pd.DataFrame:
    """Read the table by frames: one row per frame.

    Parameters
    ----------
    location, key
        The file.
    tell
        Warn of datasets whose samples do not belong to frames one by one, and are left out.
    """
    import pandas as pd

    columns: dict[str, Any] = {}
    with open_h5(location, key) as file:
        camera = np.asarray(file[_CAMERA])
        # Rows are preallocated for a full chunk; those that were not used have negative numbers.
        used = camera["frame_number"] >= 0
        for dataset in datasets(file):
            samples = file[dataset].shape[-1]
            if samples != len(camera):
                if tell:
                    warnings.warn(
                        f"{location.name}: {dataset} in {key} has {samples} samples for "
                        f"{len(camera)} frames, so it fits no table by frames and is left out; "
                        "to_datatree() has it",
                        stacklevel=5,
                    )
                continue
            values = np.asarray(file[dataset])[..., used]
            names = _split(file[dataset].attrs["column_names"])
            columns |= dict(zip(names, values, strict=True))
        columns |= {name: camera[name][used] for name in camera.dtype.names or ()}
        columns[_DELAY] = np.asarray(file[_DELAY])[used]
    return pd.DataFrame(columns)


# What is read when it is asked for.


class Place(NamedTuple):
    """Where a column lies in every file.

    Attributes
    ----------
    dataset
        The name of the dataset.
    part
        Its row, or its field where it is compound; None where the column is all of it.
    """

    dataset: str
    part: int | str | None


@dataclass(frozen=True)
class _Sampled:
    """A dataset in one file, without its samples."""

    columns: tuple[str, ...]
    dtype: np.dtype[Any]
    samples: int
    samplerate: float | None
    by_frames: bool

    @property
    def told(self) -> dict[str, object]:
        """What all chunks must agree in, for messages."""
        return {
            "columns": ", ".join(self.columns),
            "samplerate": "none" if self.samplerate is None else f"{self.samplerate} Hz",
            "time axis": "that of the frames" if self.by_frames else "its own",
        }


@dataclass(frozen=True)
class Header:
    """What is in one file, apart from samples.

    Attributes
    ----------
    number
        The chunk.
    used
        Rows of `camera` that have a frame.
    first_time
        The frame time of the first of them, in seconds; NaN where there is none.
    columns
        The table by frames: where each column lies, and its dtype.
    sampled
        The datasets, by name.
    """

    number: int
    used: int
    first_time: float
    columns: Mapping[str, tuple[Place, np.dtype[Any]]]
    sampled: Mapping[str, _Sampled]


def read_header(location: Location, number: int) -> Header:
    """Read what a chunk's file has: names, lengths, rates, and which rows of `camera` are used.

    Raises
    ------
    CorruptChunkError
        Naming recording, chunk and file.
    RecordingAccessError
        The file may not be read.
    """
    with _opened(location, number) as file:
        camera, delay = _dataset(file, _CAMERA), _dataset(file, _DELAY)
        used = _used_rows(file)
        (rows,) = camera.shape
        if delay.shape != (rows,):
            raise ValueError(f"{_DELAY} has the shape {delay.shape} for {rows} rows of {_CAMERA}")
        sampled = {name: _describe(_dataset(file, name), name, rows) for name in datasets(file)}
        columns = {
            column: (Place(name, i), found.dtype)
            for name, found in sampled.items()
            if found.by_frames
            for i, column in enumerate(found.columns)
        }
        # As in `read_table`, the later one counts where a name occurs twice.
        fields = camera.dtype.names
        columns |= {field: (Place(_CAMERA, field), camera.dtype[field]) for field in fields}
        columns[_DELAY] = (Place(_DELAY, None), delay.dtype)
        first_time = float(camera.fields("frame_time")[int(used[0])]) if len(used) else np.nan
        return Header(number, len(used), first_time, columns, sampled)


def _describe(dataset: h5py.Dataset, name: str, rows: int) -> _Sampled:
    columns = tuple(_split(dataset.attrs["column_names"]))
    if dataset.ndim != 2 or dataset.shape[0] != len(columns):
        raise ValueError(f"{name} has the shape {dataset.shape} for {len(columns)} columns")
    rate = dataset.attrs.get("samplerate")
    if rate is not None:
        rate = float(np.asarray(rate).item())
        if not 0 < rate < np.inf:
            raise ValueError(f"{name} has the samplerate {rate}")
    samples = int(dataset.shape[1])
    return _Sampled(columns, dataset.dtype, samples, rate, samples == rows)


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    import h5py

    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{name} is no dataset")  # noqa: TRY004 - of the file, not of an argument
    return found


def _used_rows(file: h5py.File) -> Int64s:
    """The rows of `camera` that have a frame, ascending; the others were only preallocated."""
    numbers = _dataset(file, _CAMERA).fields("frame_number")[:]
    return np.flatnonzero(np.asarray(numbers) >= 0).astype(np.int64)


@contextmanager
def _opened(location: Location, number: int) -> Iterator[h5py.File]:
    """Open the file of a chunk, and say which one it is where it cannot be read."""
    key = f"{number:06d}{SUFFIX}"
    try:
        with open_h5(location, key) as file:
            yield file
    except ImgStoreError:
        raise
    except FileNotFoundError as error:
        raise ChunkMissingError(
            f"{location.name}: {what(key)} are gone; restore the file from a backup"
        ) from error
    except PermissionError as error:
        raise access_error(location, f"reading {key}", error) from error
    except DAMAGE as error:
        raise damaged(location, key, error) from error


@dataclass(frozen=True, eq=False)
class H5Columns:
    """Columns over the files of all chunks, read when they are indexed; see `SampledSource`.

    No file stays open between reads: opening one takes half a millisecond. So there is nothing to
    close, to share among threads, or to inherit by a fork, and what is pickled has no samples.

    Attributes
    ----------
    location
        The recording.
    numbers
        int64 (chunk,), the chunks that have a file.
    lengths
        int64 (chunk,), how many rows each has.
    origins
        float64 (chunk,), the frame time of the first frame of each, in seconds; NaN without frames.
    places, dtypes
        The columns.
    by_frames
        Whether a row belongs to a frame. Then rows of `camera` that were only preallocated are left
        out, and the time of a row is its frame time.
    samplerate
        In Hz.
    """

    location: Location
    numbers: Int64s
    lengths: Int64s
    origins: Float64s
    places: Mapping[str, Place]
    dtypes: Mapping[str, np.dtype[Any]]
    by_frames: bool
    samplerate: float | None = None

    @property
    def timed(self) -> bool:
        """Whether anything says when the rows were sampled."""
        return self.by_frames or self.samplerate is not None

    def read(self, column: str, start: int, stop: int) -> NDArray[Any]:
        """Read some rows of a column; see `SampledSource.read`."""
        return self._read(self.places[column], self.dtypes[column], start, stop)

    def times(self, start: int, stop: int) -> Float64s:
        """Return when some rows were sampled; see `SampledSource.times`."""
        if self.by_frames:
            return self._read(Place(_CAMERA, "frame_time"), np.dtype(np.float64), start, stop)
        if self.samplerate is None:
            raise ValueError("nothing says when these samples were taken")
        times = np.empty(stop - start, np.float64)
        for chunk, low, high, at in self._parts(start, stop):
            since = np.arange(low, high) / self.samplerate
            times[at : at + high - low] = self.origins[chunk] + since
        return times

    def _read(self, place: Place, dtype: np.dtype[Any], start: int, stop: int) -> NDArray[Any]:
        out = np.empty(stop - start, dtype)
        for chunk, low, high, at in self._parts(start, stop):
            with _opened(self.location, int(self.numbers[chunk])) as file:
                values = _values(_dataset(file, place.dataset), place, self._rows(file, low, high))
                # The file may be another one than when the recording was opened.
                if len(values) != high - low:
                    raise ValueError(f"{place.dataset} ends before sample {high}")
                if not np.can_cast(values.dtype, dtype, "safe"):
                    raise ValueError(f"{place.dataset} holds {values.dtype} where {dtype} was")
                out[at : at + high - low] = values
        return out

    @cached_property
    def _stops(self) -> Int64s:
        return np.cumsum(self.lengths, dtype=np.int64)

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Iterate over what a range has of each chunk: (place of the chunk, from, to, done)."""
        done = 0
        chunk = int(np.searchsorted(self._stops, start, side="right"))
        while start + done < stop:
            end = int(self._stops[chunk])
            low = start + done - (end - int(self.lengths[chunk]))
            count = min(stop, end) - start - done
            if count:
                yield chunk, low, low + count, done
            done += count
            chunk += 1

    def _rows(self, file: h5py.File, low: int, high: int) -> slice | Int64s:
        """The rows of a file that these are: a range where they follow each other."""
        if not self.by_frames:
            return slice(low, high)
        used = _used_rows(file)[low:high]
        if not len(used) or used[-1] - used[0] == len(used) - 1:
            return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
        return used


def _values(dataset: h5py.Dataset, place: Place, rows: slice | Int64s) -> NDArray[Any]:
    if not isinstance(rows, slice):
        # One range read and picked from: HDF5 is slow where it picks.
        first = int(rows[0])
        return _values(dataset, place, slice(first, int(rows[-1]) + 1))[rows - first]
    if isinstance(place.part, str):
        return np.asarray(dataset.fields(place.part)[rows])
    return np.asarray(dataset[rows] if place.part is None else dataset[place.part, rows])


def join_datasets(location: Location, headers: Sequence[Header]) -> dict[str, H5Columns]:
    """Join the datasets of all chunks.

    Returns
    -------
    dict
        By the name of the dataset. Chunks that do not have it have no samples in it.

    Raises
    ------
    InvalidMetadataError
        A dataset that is not the same in two chunks, which the message names.
    """
    names = dict.fromkeys(name for header in headers for name in header.sampled)
    return {
        name: _join(location, name, [header for header in headers if name in header.sampled])
        for name in names
    }


def _join(location: Location, name: str, headers: Sequence[Header]) -> H5Columns:
    first = headers[0].sampled[name]
    found = [header.sampled[name] for header in headers]
    for header, other in zip(headers, found, strict=True):
        for aspect, told in first.told.items():
            if other.told[aspect] != told:
                raise InvalidMetadataError(
                    f"{location.name}: the {aspect} of {name} in the extra data of chunk "
                    f"{headers[0].number} ({told}) and of chunk {header.number} "
                    f"({other.told[aspect]}) differ, so they are not joined; h5py reads each file"
                )
    columns = _unique(first.columns)
    dtype = _common([sampled.dtype for sampled in found])
    lengths = [
        header.used if sampled.by_frames else sampled.samples
        for header, sampled in zip(headers, found, strict=True)
    ]
    return _columns(
        location,
        headers,
        lengths,
        places={column: Place(name, i) for i, column in enumerate(columns)},
        dtypes=dict.fromkeys(columns, dtype),
        by_frames=first.by_frames,
        samplerate=first.samplerate,
    )


def join_tables(location: Location, headers: Sequence[Header]) -> H5Columns | None:
    """Join the tables by frames of all chunks; None where they have not the same columns."""
    headers = [header for header in headers if header.used] or headers[:1]
    places, *others = (
        {column: place for column, (place, _) in header.columns.items()} for header in headers
    )
    if any(other != places for other in others):
        return None
    dtypes = {c: _common([header.columns[c][1] for header in headers]) for c in places}
    # Fields that are compound, or arrays, are left to pandas.
    if any(dtype.kind == "V" for dtype in dtypes.values()):
        return None
    lengths = [header.used for header in headers]
    return _columns(location, headers, lengths, places=places, dtypes=dtypes, by_frames=True)


def _columns(
    location: Location, headers: Sequence[Header], lengths: Sequence[int], **options: Any
) -> H5Columns:
    return H5Columns(
        location,
        numbers=np.array([header.number for header in headers], np.int64),
        lengths=np.array(lengths, np.int64),
        origins=np.array([header.first_time for header in headers], np.float64),
        **options,
    )


def _common(dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """The dtype that holds the values of all, in native byte order."""
    kinds = {*dtypes}
    if len(kinds) == 1 or any(dtype.kind == "V" for dtype in kinds):
        return dtypes[0].newbyteorder("=")
    try:
        return np.result_type(*kinds).newbyteorder("=")
    except TypeError:
        return np.dtype(object)


def _unique(names: Sequence[str]) -> list[str]:
    """The names, with what tells those that occur twice from each other."""
    unique: list[str] = []
    for name in names:
        while name in unique:
            name += "_"
        unique.append(name)
    return unique

"""What was sampled beside the frames (DAQ, audio): a group per dataset, with an array per column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.cores import in_order
from imgstore_zarr.errors import InvalidMetadataError, UnsupportedFormatError
from imgstore_zarr.extra import SampledSource
from imgstore_zarr.index import Float64s, Int64s
from imgstore_zarr.lock import can_delete
from imgstore_zarr.native.codecs import CRC32C_CODEC, ZSTD_CODEC, bytes_codec, encode_column
from imgstore_zarr.native.columns import chunk_key, read_column
from imgstore_zarr.native.extra_columns import array_name
from imgstore_zarr.native.metadata import ATTRIBUTE, SAMPLED
from imgstore_zarr.native.nodes import array_metadata, group_metadata, parse_dtype, parse_shape
from imgstore_zarr.storage import Location

SAMPLED_CHUNK = 2**20
"""Samples in a chunk: a week at 10 kHz has 6e9, and so 46,000 chunks of the size of a coordinate's."""

SAMPLE_DTYPES = frozenset(np.dtype(code).name for code in "?bBhHiIqQefd")
"""The dtypes that the arrays can have."""

Documents = Mapping[str, Mapping[str, Any]]

_TIME = "time"
_TIME_DTYPE = np.dtype("<f8")


def write_sampled(
    location: Location, datasets: Mapping[str, SampledSource], *, durable: bool
) -> dict[str, dict[str, Any]]:
    """Write datasets chunk by chunk, on all cores; nobody looks until the metadata are committed.

    Parameters
    ----------
    location
        The recording.
    datasets
        By name; their dtypes are of `SAMPLE_DTYPES`.
    durable
        Whether what is written must survive power loss.

    Returns
    -------
    dict
        By key, the metadata of every group and array.
    """
    documents = {SAMPLED: group_metadata({})} if datasets else {}
    for name, source in datasets.items():
        group = array_name(name, datasets)
        key = f"{SAMPLED}/{group}"
        rate = {} if source.samplerate is None else _rate(source.samplerate)
        # For xarray, as in the recording's own group.
        coordinates = {"coordinates": _TIME} if source.timed else {}
        documents[key] = group_metadata({**_field(name, group), **rate, **coordinates})
        count = int(source.lengths.sum())
        for column, dtype in source.dtypes.items():
            array = array_name(column, source.dtypes, reserved=(_TIME,))
            stored = dtype.newbyteorder("<")
            read = partial(source.read, column)
            _write_array(location, f"{key}/{array}", read, count, stored, durable=durable)
            attributes = {**_field(column, array), **rate}
            documents[f"{key}/{array}"] = sampled_metadata(count, stored, attributes)
        if source.timed:
            _write_array(
                location, f"{key}/{_TIME}", source.times, count, _TIME_DTYPE, durable=durable
            )
            documents[f"{key}/{_TIME}"] = sampled_metadata(count, _TIME_DTYPE, {"units": "s"})
    if can_delete(location):
        _remove_left_over(location, documents)
    return documents


def _remove_left_over(location: Location, documents: Documents) -> None:
    """Remove what an interrupted run has written that took more, or did not finish writing."""
    if not documents:
        location.delete(SAMPLED)
    for key, document in documents.items():
        if document["node_type"] == "group":
            names = [name for name in location.names(key) if name != "zarr.json"]
            left = [f"{key}/{name}" for name in names if f"{key}/{name}" not in documents]
        else:
            (count,) = document["shape"]
            kept = {*map(str, range(-(-count // SAMPLED_CHUNK)))}
            left = [f"{key}/c/{name}" for name in location.names(f"{key}/c") if name not in kept]
        for one in left:
            location.delete(one)


def _field(name: str, array: str) -> dict[str, Any]:
    return {} if name == array else {ATTRIBUTE: {"field": name}}


def _rate(samplerate: float) -> dict[str, Any]:
    return {"samplerate": samplerate, "samplerate_units": "Hz"}


def sampled_metadata(
    count: int, dtype: np.dtype[Any], attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the ``zarr.json`` of an array of samples."""
    return array_metadata(
        shape=(count,),
        chunk_shape=(SAMPLED_CHUNK,),
        dtype=dtype,
        codecs=[bytes_codec(dtype.itemsize), ZSTD_CODEC, CRC32C_CODEC],
        dimension_names=("sample",),
        fill_value="NaN" if dtype.kind == "f" else False if dtype.kind == "b" else 0,
        attributes=attributes,
    )


def _write_array(
    location: Location,
    key: str,
    read: Callable[[int, int], NDArray[Any]],
    count: int,
    dtype: np.dtype[Any],
    *,
    durable: bool,
) -> None:
    def write(start: int) -> None:
        stop = min(start + SAMPLED_CHUNK, count)
        values = np.zeros(SAMPLED_CHUNK, dtype)
        values[: stop - start] = read(start, stop)
        encoded = encode_column(values)
        location.write(chunk_key(key, start // SAMPLED_CHUNK), encoded, durable=durable)

    for _ in in_order(write, range(0, count, SAMPLED_CHUNK)):
        pass


@dataclass(frozen=True, eq=False)
class ZarrSamples:
    """The arrays of one dataset, read when they are indexed; see `SampledSource`.

    Attributes
    ----------
    location
        The recording.
    arrays
        By the name of the column, the key of its array.
    dtypes
        In native byte order.
    count
        Samples in each.
    samplerate
        In Hz.
    time
        The key of the times, None where nothing says when the samples were taken.
    """

    location: Location
    arrays: Mapping[str, str]
    dtypes: Mapping[str, np.dtype[Any]]
    count: int
    samplerate: float | None
    time: str | None

    @property
    def lengths(self) -> Int64s:
        """int64 (chunk,), how many samples each chunk of the arrays has."""
        starts = np.arange(0, self.count, SAMPLED_CHUNK, dtype=np.int64)
        return np.minimum(SAMPLED_CHUNK, self.count - starts)

    @property
    def timed(self) -> bool:
        """Whether there are times."""
        return self.time is not None

    def read(self, column: str, start: int, stop: int) -> NDArray[Any]:
        """Read some samples of a column; see `SampledSource.read`."""
        return self._read(self.arrays[column], self.dtypes[column], start, stop)

    def times(self, start: int, stop: int) -> Float64s:
        """Return when some samples were taken; see `SampledSource.times`."""
        if self.time is None:
            raise ValueError("nothing says when these samples were taken")
        return self._read(self.time, _TIME_DTYPE, start, stop)

    def _read(self, key: str, dtype: np.dtype[Any], start: int, stop: int) -> NDArray[Any]:
        low = start - start % SAMPLED_CHUNK
        stored = dtype.newbyteorder("<")
        column = read_column(self.location, key, stop, stored, start=low, length=SAMPLED_CHUNK)
        return column[start - low :]


def sampled_sources(location: Location, documents: Documents) -> dict[str, ZarrSamples]:
    """Return the datasets of a recording by name; reads nothing.

    Raises
    ------
    InvalidMetadataError, UnsupportedFormatError
        Their metadata make no sense, or are not those that are written here.
    """
    sources: dict[str, ZarrSamples] = {}
    for key in documents:
        if key.count("/") == 1:
            try:
                name, source = _source(location, key, documents)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                if isinstance(error, UnsupportedFormatError):
                    raise
                raise InvalidMetadataError(
                    f"{location.name}: the metadata of {key} are damaged ({error!r})"
                ) from error
            sources[name] = source
    return sources


def _source(location: Location, key: str, documents: Documents) -> tuple[str, ZarrSamples]:
    arrays: dict[str, str] = {}
    dtypes: dict[str, np.dtype[Any]] = {}
    counts: set[int] = set()
    time = None
    for path, document in documents.items():
        group, _, array = path.rpartition("/")
        if group != key:
            continue
        (count,) = parse_shape(document["shape"])
        counts.add(count)
        dtype = parse_dtype(document["data_type"])
        _check_written_here(location, path, document, sampled_metadata(count, dtype, {}))
        if array == _TIME:
            if dtype != _TIME_DTYPE:
                raise ValueError(f"its times are {dtype}")
            time = path
            continue
        field = _field_of(document, array)
        arrays[field], dtypes[field] = path, dtype
    if len(counts) != 1:
        raise ValueError(f"its arrays have the lengths {sorted(counts)}")
    rate = documents[key]["attributes"].get("samplerate")
    source = ZarrSamples(
        location,
        arrays,
        dtypes,
        counts.pop(),
        None if rate is None else float(rate),
        time,
    )
    return _field_of(documents[key], key.rpartition("/")[2]), source


def _field_of(document: Mapping[str, Any], array: str) -> str:
    return str(document["attributes"].get(ATTRIBUTE, {}).get("field", array))


def _check_written_here(
    location: Location, key: str, found: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    for part in ("chunk_grid", "chunk_key_encoding", "codecs"):
        if found[part] != expected[part]:
            raise UnsupportedFormatError(
                f"{location.name}: the {part} of {key} is {found[part]}, not {expected[part]}: it was "
                "rewritten by another program; open it with zarr"
            )

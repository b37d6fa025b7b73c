"""ExtraData: what was recorded beside the frames (temperature, stimuli, DAQ channels, ...)."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import InvalidMetadataError
from imgstore_zarr.index import Float64s, Int64s

if TYPE_CHECKING:
    import pandas as pd

# Samples of a column.
_BLOCK = 2**20

EXTRA_DATA_FILE_EXTENSIONS = (".extra.json", ".extra_data.json", ".extra_data.h5")
"""The endings of extra data files in Motif and imgstore recordings."""


class ExtraData(Protocol):
    """The extra data of one recording."""

    def exists(self) -> bool:
        """Whether there is any; looks for files, reads none."""
        ...

    def files(self, extensions: Sequence[str] = EXTRA_DATA_FILE_EXTENSIONS) -> list[str]:
        """Return where it lies."""
        ...

    def read(self, ignore_corrupt_chunks: bool = False) -> pd.DataFrame | None:
        """Return one row per record, or None where there is no extra data.

        Parameters
        ----------
        ignore_corrupt_chunks
            Leave out, with a warning, what cannot be read, instead of raising.
        """
        ...

    def samplerate(self) -> float | None:
        """Return the rate in Hz at which the data was sampled, None where it was not."""
        ...


class SampledSource(Protocol):
    """Columns of equal length that are read when they are indexed; the chunks follow each other.

    A source can be pickled: what travels is where it lies, never samples or open handles. Reads may
    come from several threads at once, and in a forked process.
    """

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """The columns, and what each of them holds."""
        ...

    @property
    def lengths(self) -> Int64s:
        """int64 (chunk,), how many rows each chunk has."""
        ...

    @property
    def samplerate(self) -> float | None:
        """In Hz; None where the recording does not say."""
        ...

    @property
    def timed(self) -> bool:
        """Whether anything says when the rows were sampled: whether there are `times`."""
        ...

    def read(self, column: str, start: int, stop: int) -> NDArray[Any]:
        """Read the rows start .. stop-1 of a column, of its dtype.

        Raises
        ------
        ChunkMissingError, CorruptChunkError
            Naming recording, chunk and file.
        """
        ...

    def times(self, start: int, stop: int) -> Float64s:
        """Return when the rows start .. stop-1 were sampled.

        Returns
        -------
        ndarray
            float64, seconds on the clock of `frame_time`; NaN where a chunk does not say.
        """
        ...


@dataclass(frozen=True)
class SampledData:
    """Extra data whose values are read when they are asked for.

    Attributes
    ----------
    records
        What `ExtraData.read` gives, read or to be read.
    datasets
        What was sampled on a time axis of its own (DAQ channels, audio), by name.
    """

    records: SampledSource | pd.DataFrame | None
    datasets: Mapping[str, SampledSource]


@runtime_checkable
class HasSampledData(Protocol):
    """Extra data that may have been sampled at a rate, beside one record after the other."""

    def datasets(self, ignore_corrupt_chunks: bool = False) -> Mapping[str, SampledSource]:
        """Return what was sampled, by name; reads no samples.

        Parameters
        ----------
        ignore_corrupt_chunks
            Leave out, with a warning, files that cannot be read, instead of raising.

        Raises
        ------
        CorruptChunkError
            Naming recording, chunk and file.
        InvalidMetadataError
            What was sampled is not the same in two chunks, which the message names.
        """
        ...

    def sampled(self) -> SampledData:
        """Return this and the records, which are read where there is no other way.

        Raises
        ------
        CorruptChunkError
            Naming recording, chunk and file.
        InvalidMetadataError
            What was sampled is not the same in two chunks, which the message names.
        """
        ...


def sample_blocks(source: SampledSource) -> Iterator[tuple[int, int]]:
    """Iterate over ranges of rows that are good to read at once: none is of two chunks, or long."""
    ends = np.cumsum(source.lengths).tolist()
    for start, end in itertools.pairwise([0, *ends]):
        for low in range(start, end, _BLOCK):
            yield low, min(low + _BLOCK, end)


class RecordEncoder(json.JSONEncoder):
    """What imgstore accepted as extra data beyond JSON."""

    def default(self, o: Any) -> Any:
        """Return what JSON can hold in place of a value."""
        if isinstance(o, np.ndarray | np.generic):
            return o.tolist()
        if isinstance(o, complex):
            return [o.real, o.imag]
        if isinstance(o, set | frozenset):
            return list(o)
        if isinstance(o, bytes):
            return o.decode()
        if isinstance(o, dt.datetime | dt.date):
            return o.isoformat()
        return super().default(o)


def dump_record(record: dict[str, Any]) -> str:
    """Return one record of extra data as JSON text.

    NumPy arrays and scalars, complex numbers, sets, bytes and dates are converted as imgstore does.

    Raises
    ------
    InvalidMetadataError
        The field that JSON cannot hold.
    """
    for name, value in record.items():
        try:
            json.dumps(value, cls=RecordEncoder)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidMetadataError(
                f"the extra data field {name!r} is {reprlib.repr(value)}, which JSON cannot hold "
                f"({error}); the record was not written"
            ) from error
    return json.dumps(record, cls=RecordEncoder)


def table_of(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return columns of one length as a table.

    Text stays as objects where pandas cannot hold it: with pyarrow, half of a surrogate pair.
    """
    import pandas as pd

    def series(values: Any) -> pd.Series[Any]:
        try:
            return pd.Series(values)
        except UnicodeEncodeError:
            return pd.Series(values, dtype=object)

    return pd.DataFrame({name: series(values) for name, values in columns.items()})


def table_of_records(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return records as the rows of a table; see `table_of`."""
    import pandas as pd

    try:
        return pd.DataFrame([*records])
    except UnicodeEncodeError:
        names = dict.fromkeys(name for record in records for name in record)
        return table_of({name: [one.get(name, np.nan) for one in records] for name in names})

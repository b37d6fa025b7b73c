"""Extra data beside the chunks: JSON (imgstore and Motif) and HDF5 (Motif)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgstore_compat.h5_files import (
    DAMAGE,
    SUFFIX,
    Header,
    check,
    damaged,
    join_datasets,
    join_tables,
    open_h5,
    read_header,
    read_table,
    samplerate,
    what,
)
from imgstore_compat.h5_files import datasets as datasets  # handed on to imgstore_compat.imgstore
from imgstore_compat.json_records import Record, parse_records
from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.extra import (
    EXTRA_DATA_FILE_EXTENSIONS,
    SampledData,
    SampledSource,
    table_of_records,
)
from imgstore_zarr.layouts import Problem
from imgstore_zarr.storage import Location, RequestError

if TYPE_CHECKING:
    import pandas as pd

# Motif's process writes to the root of the recording; imgstore writes beside the chunk's index.
_MOTIF = (SUFFIX, ".extra_data.json")
_IMGSTORE = (".extra.json", ".extra_data.json")


@dataclass(frozen=True)
class ExtraFiles:
    """The extra data files of a recording.

    Attributes
    ----------
    location
        The recording.
    chunks
        Per chunk its number, and the key of its index without an ending. Files of other numbers do
        not belong to the recording, as in imgstore.
    """

    location: Location
    chunks: tuple[tuple[int, str], ...]

    def _keys(
        self, extensions: Sequence[str] = EXTRA_DATA_FILE_EXTENSIONS
    ) -> Iterator[tuple[bool, str]]:
        """Iterate over (whether it is Motif's, key); the first kind that a chunk has counts."""
        listed: dict[str, frozenset[str]] = {}

        def there(key: str) -> bool:
            folder, _, name = key.rpartition("/")
            if folder not in listed:
                listed[folder] = frozenset(self.location.names(folder))
            return name in listed[folder]

        for number, stem in self.chunks:
            motif = [f"{number:06d}{end}" for end in _MOTIF if end in extensions]
            beside = [f"{stem}{end}" for end in _IMGSTORE if end in extensions]
            found = next((key for key in motif if there(key)), None)
            if found is not None:
                yield True, found
            else:
                yield from ((False, key) for key in beside if there(key))

    def exists(self) -> bool:
        """Whether there is any."""
        return next(self._keys(), None) is not None

    def files(self, extensions: Sequence[str] = EXTRA_DATA_FILE_EXTENSIONS) -> list[str]:
        """Return the paths of the files."""
        return [f"{self.location.name}/{key}" for _, key in self._keys(extensions)]

    def read(self, ignore_corrupt_chunks: bool = False) -> pd.DataFrame | None:
        """Return one row per record; see `ExtraData.read`."""
        tables: list[pd.DataFrame] = []
        for is_motif, key in self._keys():
            try:
                tables.append(self.table(is_motif, key))
            except CorruptChunkError as error:
                if not ignore_corrupt_chunks:
                    raise
                warnings.warn(f"left out: {error}", stacklevel=3)
        return _joined(tables)

    def datasets(self, ignore_corrupt_chunks: bool = False) -> Mapping[str, SampledSource]:
        """Return what was sampled; see `sampled`."""
        return join_datasets(self.location, self._headers(ignore_corrupt_chunks))

    def _headers(self, ignore_corrupt_chunks: bool = False) -> list[Header]:
        headers = []
        for key in (key for _, key in self._keys() if key.endswith(SUFFIX)):
            try:
                headers.append(read_header(self.location, int(key.partition(".")[0])))
            except CorruptChunkError as error:
                if not ignore_corrupt_chunks:
                    raise
                warnings.warn(f"left out: {error}", stacklevel=3)
        return headers

    def sampled(self) -> SampledData:
        """Return what Motif's HDF5 files have, without reading samples; see `HasSampledData`.

        Each of these files is opened once, for names, lengths and rates, and for the column of its
        frame numbers, which tells how many of its rows have a frame: about two milliseconds a file.
        Where the table by frames is not the same in all chunks, or some chunks have JSON, that
        table is read as `read` does. In a store that is no directory, every file is fetched whole.

        The time of a sample at a rate of its own is that of the first frame of its chunk, and then
        one step further per sample: it is assumed that both begin together, since the files do not
        say when the first sample was taken.
        """
        found = [*self._keys()]
        headers = self._headers()
        records = None
        if headers and len(headers) == len(found):
            records = join_tables(self.location, headers)
        return SampledData(
            records=_joined([self.table(*file, tell=False) for file in found])
            if records is None
            else records,
            datasets=join_datasets(self.location, headers),
        )

    def table(self, is_motif: bool, key: str, *, tell: bool = True) -> pd.DataFrame:
        """Read one file; CorruptChunkError where it is damaged."""
        try:
            if key.endswith(SUFFIX):
                return read_table(self.location, key, tell=tell)
            table = table_of_records(_read_records(self.location, key))
            if is_motif and not table.empty:
                table = table[table["frame_number"] >= 0]
                columns = ["frame_index", *({"sensor_time"} & set(table.columns))]
                table = table.sort_values(by=columns, ignore_index=True)
        except DAMAGE as error:
            raise damaged(self.location, key, error) from error
        return table

    def problems(self) -> tuple[Problem, ...]:
        """Return what is wrong with the files, and which of them belong to no chunk."""
        chunks = {number for number, _ in self.chunks}
        found = [_problem(self.location, *found) for found in self._keys()]
        found += [
            Problem(
                "extra-data-without-chunk",
                f"{self.location.name}: there is no chunk {number} to which the extra data {name} "
                "could belong; they are left out",
                number,
            )
            for name in self.location.names()
            if (number := _number(name)) is not None and number not in chunks
        ]
        return tuple(problem for problem in found if problem is not None)

    def samplerate(self) -> float | None:
        """Return the one sample rate of Motif's data, in Hz; CorruptChunkError where it is damaged."""
        for _, key in self._keys((SUFFIX,)):
            try:
                with open_h5(self.location, key) as file:
                    rate = samplerate(file)
            except DAMAGE as error:
                raise damaged(self.location, key, error) from error
            if rate is not None:
                return rate
        return None


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame | None:
    import pandas as pd

    tables = [table for table in tables if not table.empty]
    return pd.concat(tables, axis=0, ignore_index=True) if tables else None


def _number(name: str) -> int | None:
    """The chunk of a file in the root of a recording, if it is one of extra data."""
    stem, dot, end = name.partition(".")
    return int(stem) if stem.isdecimal() and dot + end in EXTRA_DATA_FILE_EXTENSIONS else None


def _problem(location: Location, is_motif: bool, key: str) -> Problem | None:
    chunk = int(match[0]) if (match := re.match(r"\d+", key)) else None
    try:
        if key.endswith(SUFFIX):
            with open_h5(location, key) as file:
                check(file)
            return None
        records, complete = parse_records(location.read(key))
        if is_motif and records:
            names = {name for record in records for name in record}
            if missing := {"frame_number", "frame_index"} - names:
                raise KeyError(*sorted(missing))
    except RequestError as error:
        raise damaged(location, key, error) from error
    except DAMAGE as error:
        return Problem("extra-data-damaged", str(damaged(location, key, error)), chunk)
    if complete:
        return None
    message = (
        f"{location.name}: {what(key)} break off, as after a crash; {len(records)} whole records "
        "can be read; if no writer is at work, imgstore_zarr.repair(...) gives them an end"
    )
    return Problem("extra-data-damaged", message, chunk)


def read_records(location: Location, key: str) -> list[Record]:
    """Read a list of records in JSON; CorruptChunkError where it is damaged."""
    try:
        return _read_records(location, key)
    except DAMAGE as error:
        raise damaged(location, key, error) from error


def _read_records(location: Location, key: str) -> list[Record]:
    records, complete = parse_records(location.read(key))
    if not complete:
        warnings.warn(
            f"{location.name}: {what(key)} break off, as after a crash; "
            f"read were the {len(records)} whole records before",
            stacklevel=5,
        )
    return records

"""Extra data beside the chunks: JSON (imgstore and Motif) and HDF5 (Motif)."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from imgstore_compat.json_records import Record, parse_records
from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.extra import EXTRA_DATA_FILE_EXTENSIONS
from imgstore_zarr.layouts import Problem
from imgstore_zarr.storage import Location

if TYPE_CHECKING:
    import h5py
    import pandas as pd

# Motif's process writes to the root of the recording; imgstore writes beside the chunk's index.
_MOTIF = (".extra_data.h5", ".extra_data.json")
_IMGSTORE = (".extra.json", ".extra_data.json")

# What reading a damaged file raises.
_DAMAGE = (ValueError, KeyError, TypeError, OSError, RecursionError)


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
        import pandas as pd

        tables: list[pd.DataFrame] = []
        for is_motif, key in self._keys():
            try:
                tables.append(self.table(is_motif, key))
            except CorruptChunkError as error:
                if not ignore_corrupt_chunks:
                    raise
                warnings.warn(f"left out: {error}", stacklevel=3)
        tables = [table for table in tables if not table.empty]
        return pd.concat(tables, axis=0, ignore_index=True) if tables else None

    def table(self, is_motif: bool, key: str) -> pd.DataFrame:
        """Read one file; CorruptChunkError where it is damaged."""
        import pandas as pd

        try:
            if key.endswith(".h5"):
                return _from_h5(self.location, key)
            table = pd.DataFrame(_read_records(self.location, key))
            if is_motif and not table.empty:
                table = table[table["frame_number"] >= 0]
                columns = ["frame_index", *({"sensor_time"} & set(table.columns))]
                table = table.sort_values(by=columns, ignore_index=True)
        except _DAMAGE as error:
            raise _damaged(self.location, key, error) from error
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
        for _, key in self._keys((".extra_data.h5",)):
            try:
                with _open_h5(self.location, key) as file:
                    rates = [file[name].attrs.get("samplerate") for name in datasets(file)]
                if len(rates) == 1 and rates[0] is not None:
                    return float(rates[0])
            except _DAMAGE as error:
                raise _damaged(self.location, key, error) from error
        return None


def _number(name: str) -> int | None:
    """The chunk of a file in the root of a recording, if it is one of extra data."""
    stem, dot, end = name.partition(".")
    return int(stem) if stem.isdecimal() and dot + end in EXTRA_DATA_FILE_EXTENSIONS else None


def _problem(location: Location, is_motif: bool, key: str) -> Problem | None:
    chunk = int(match[0]) if (match := re.match(r"\d+", key)) else None
    try:
        if key.endswith(".h5"):
            with _open_h5(location, key) as file:
                _ = [file[name].shape for name in ("camera", "sample_delay", *datasets(file))]
            return None
        records, complete = parse_records(location.read(key))
        if is_motif and records:
            names = {name for record in records for name in record}
            if missing := {"frame_number", "frame_index"} - names:
                raise KeyError(*sorted(missing))
    except _DAMAGE as error:
        return Problem("extra-data-damaged", str(_damaged(location, key, error)), chunk)
    if complete:
        return None
    what = (
        f"{location.name}: {_what(key)} break off, as after a crash; {len(records)} whole records "
        "can be read; if no writer is at work, imgstore_zarr.repair(...) gives them an end"
    )
    return Problem("extra-data-damaged", what, chunk)


def read_records(location: Location, key: str) -> list[Record]:
    """Read a list of records in JSON; CorruptChunkError where it is damaged."""
    try:
        return _read_records(location, key)
    except _DAMAGE as error:
        raise _damaged(location, key, error) from error


def _read_records(location: Location, key: str) -> list[Record]:
    records, complete = parse_records(location.read(key))
    if not complete:
        warnings.warn(
            f"{location.name}: {_what(key)} break off, as after a crash; "
            f"read were the {len(records)} whole records before",
            stacklevel=5,
        )
    return records


def _what(key: str) -> str:
    match = re.match(r"\d+", key)
    return f"the extra data {key} of chunk {int(match[0])}" if match else f"the extra data {key}"


def _damaged(location: Location, key: str, error: Exception) -> CorruptChunkError:
    return CorruptChunkError(
        f"{location.name}: {_what(key)} are damaged ({type(error).__name__}: {error}); "
        "get_extra_data(ignore_corrupt_chunks=True) leaves them out"
    )


def _text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes | np.bytes_) else str(value)


def datasets(file: h5py.File) -> list[str]:
    """Return the names of the datasets in Motif's HDF5 file."""
    if "datasets" not in file.attrs:
        raise ValueError("it has no attribute 'datasets', which names those that it has")
    return [name.strip() for name in _text(file.attrs["datasets"]).split(",")]


def _open_h5(location: Location, key: str) -> h5py.File:
    import h5py

    if location.path is not None:
        return h5py.File(location.path / key, "r")
    return h5py.File(io.BytesIO(location.read(key)), "r")


def _from_h5(location: Location, key: str) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, Any] = {}
    with _open_h5(location, key) as file:
        camera = np.asarray(file["camera"])
        # Rows are preallocated for a full chunk; those that were not used have negative numbers.
        used = camera["frame_number"] >= 0
        for dataset in datasets(file):
            samples = file[dataset].shape[-1]
            if samples != len(camera):
                warnings.warn(
                    f"{location.name}: {dataset} in {key} has {samples} samples for {len(camera)} "
                    "frames, so it fits no table by frames and is left out; h5py reads it",
                    stacklevel=5,
                )
                continue
            values = np.asarray(file[dataset])[..., used]
            names = [n.strip() for n in _text(file[dataset].attrs["column_names"]).split(",")]
            columns |= dict(zip(names, values, strict=True))
        columns |= {name: camera[name][used] for name in camera.dtype.names or ()}
        columns["sample_delay"] = np.asarray(file["sample_delay"])[used]
    return pd.DataFrame(columns)

"""ExtraData: what was recorded beside the frames (temperature, stimuli, DAQ channels, ...)."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from imgstore_zarr.errors import InvalidMetadataError

if TYPE_CHECKING:
    import pandas as pd

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


# File systems take names of up to 255 bytes, and leave no room for those of temporary files.
_MAX_NAME = 200


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


def _is_field_name(name: str) -> bool:
    """Whether a Zarr array, and a directory, can have this name."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    reserved = name == "zarr.json" or name.startswith((".", "__"))
    return 0 < length <= _MAX_NAME and not reserved and not {"/", "\0"} & set(name)


def dump_record(record: dict[str, Any]) -> str:
    """Return one record of extra data as JSON text.

    NumPy arrays and scalars, complex numbers, sets, bytes and dates are converted as imgstore does.

    Raises
    ------
    InvalidMetadataError
        The field that JSON cannot hold.
    """
    for name, value in record.items():
        if not _is_field_name(name):
            raise InvalidMetadataError(
                f"{name!r} cannot name a field of extra data: use 1 to {_MAX_NAME} bytes without "
                "'/', not 'zarr.json', and not starting with '.' or '__'"
            )
        try:
            json.dumps(value, cls=RecordEncoder)
        except (TypeError, ValueError) as error:
            raise InvalidMetadataError(
                f"the extra data field {name!r} is {value!r}, which JSON cannot hold ({error}); "
                "the record was not written"
            ) from error
    return json.dumps(record, cls=RecordEncoder)

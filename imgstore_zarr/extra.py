"""ExtraData: what was recorded beside the frames (temperature, stimuli, DAQ channels, ...)."""

from __future__ import annotations

import datetime as dt
import json
import reprlib
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

"""Extra data as columns: one array per field, of the type that all of its values allow."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import CorruptChunkError, InvalidMetadataError
from imgstore_zarr.native.codecs import CRC32C_CODEC, ZSTD_CODEC, bytes_codec
from imgstore_zarr.native.columns import ColumnWriter, chunk_length, read_column
from imgstore_zarr.native.extra_log import Record
from imgstore_zarr.native.metadata import ATTRIBUTE, column_metadata
from imgstore_zarr.native.nodes import array_metadata, parse_dtype, parse_shape
from imgstore_zarr.storage import Location

_EXACT_IN_FLOAT = 2**53
# Records that are converted together, so that memory does not grow with the recording.
_BLOCK = 16384
# "-2.2250738585072014e-308" is as long as a float gets.
_FLOAT_BYTES = 24
_ABSENT = object()

# File systems take names of up to 255 bytes, and leave no room for those of temporary files.
_MAX_NAME = 200
_READABLE = 100


@dataclass
class _Field:
    """What is known of a field after a look at all its values."""

    present: int = 0
    types: set[type] = field(default_factory=set)
    least: int = 0
    most: int = 0
    json_bytes: int = len("null")

    def see(self, value: Any) -> None:
        kind = type(value)
        self.types.add(kind)
        self.present += value is not None
        if kind is int:
            self.least, self.most = min(self.least, value), max(self.most, value)
        elif kind is not float and value is not None:
            self.json_bytes = max(self.json_bytes, len(_json_bytes(value)))

    def dtype(self, records: int) -> np.dtype[Any] | None:
        """The dtype of its column, None where it must be JSON text."""
        complete = self.present == records
        if complete and self.types == {bool}:
            return np.dtype(bool)
        if complete and self.types == {int} and self.least >= -(2**63) and self.most < 2**63:
            return np.dtype("<i8")
        exact = self.least >= -_EXACT_IN_FLOAT and self.most <= _EXACT_IN_FLOAT
        if self.present and exact and self.types <= {int, float, type(None)}:
            return np.dtype("<f8")
        return None

    @property
    def width(self) -> int:
        """Bytes that hold the JSON text of every value."""
        numbers = max(len(str(self.least)), len(str(self.most)))
        floats = _FLOAT_BYTES if float in self.types else 0
        return max(self.json_bytes, numbers, floats)


def _json_bytes(value: Any) -> bytes:
    # ASCII, since Python's strings can hold what UTF-8 cannot.
    return json.dumps(value).encode()


def _texts(values: list[Any], width: int) -> NDArray[np.uint8]:
    texts = (b"" if value is _ABSENT else _json_bytes(value) for value in values)
    return np.array(list(texts), f"S{width}").view(np.uint8).reshape(-1, width)


def _numbers(values: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f":
        values = [np.nan if value is None or value is _ABSENT else value for value in values]
    return np.array(values, dtype)


def check_field_names(record: Record) -> None:
    """Refuse a field whose name Zarr metadata cannot hold.

    Raises
    ------
    InvalidMetadataError
        A name that is no Unicode text.
    """
    for name in record:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InvalidMetadataError(
                f"{name!r} cannot name a field of extra data in a Zarr recording ({error}); "
                "the record was not written"
            ) from error


def array_name(field_name: str, fields: Collection[str], reserved: Collection[str] = ()) -> str:
    """Return the name of the array of a field: its own, where Zarr and file systems allow it."""
    reserved = ("zarr.json", *reserved)
    allowed = 0 < len(field_name.encode()) <= _MAX_NAME and not {"/", "\0"} & set(field_name)
    if allowed and field_name not in reserved and not field_name.startswith((".", "__")):
        return field_name
    readable = re.sub(r"[^A-Za-z0-9]+", "_", field_name)[:_READABLE].strip("_") or "field"
    name = f"{readable}-{hashlib.sha256(field_name.encode()).hexdigest()[:16]}"
    while name in fields or name in reserved:
        name += "_"
    return name


def write_extra(
    location: Location, records: Callable[[], Iterable[Record]], *, durable: bool
) -> dict[str, dict[str, Any]]:
    """Write extra data as columns, reading the records twice so that they need not be in memory.

    Parameters
    ----------
    location
        The recording.
    records
        Gives the records, from the first, each time it is called.
    durable
        Whether what is written must survive power loss.

    Returns
    -------
    dict
        Per array its metadata, in the order in which the fields first appear. An array has the name
        of its field, or says it in an attribute.
    """
    fields: dict[str, _Field] = {}
    count = 0
    for record in records():
        count += 1
        for name, value in record.items():
            if name not in fields:
                fields[name] = _Field()
            fields[name].see(value)
    documents: dict[str, dict[str, Any]] = {}
    writers: dict[str, ColumnWriter] = {}
    dtypes = {name: known.dtype(count) for name, known in fields.items()}
    for name, dtype in dtypes.items():
        array = array_name(name, fields)
        attributes = {} if array == name else {"field": name}
        width = fields[name].width
        row: tuple[int, ...] = () if dtype is not None else (width,)
        if dtype is None:
            documents[array] = _text_metadata(array, count, width, attributes)
        else:
            marked = {ATTRIBUTE: attributes} if attributes else None
            documents[array] = column_metadata(count, dtype, "record", marked)
        writers[name] = ColumnWriter(
            location, f"extra/{array}", dtype or np.dtype(np.uint8), row, durable=durable
        )
    remaining = iter(records())
    while block := list(itertools.islice(remaining, _BLOCK)):
        for name, dtype in dtypes.items():
            values = [record.get(name, _ABSENT) for record in block]
            if dtype is not None:
                writers[name].extend(_numbers(values, dtype))
            else:
                writers[name].extend(_texts(values, fields[name].width))
    for writer in writers.values():
        writer.write()
    return documents


def _text_metadata(
    name: str, count: int, width: int, attributes: Mapping[str, str]
) -> dict[str, Any]:
    return array_metadata(
        shape=(count, width),
        chunk_shape=(chunk_length((width,)), width),
        dtype=np.dtype(np.uint8),
        codecs=[bytes_codec(1), ZSTD_CODEC, CRC32C_CODEC],
        dimension_names=("record", f"{name}_byte"),
        attributes={ATTRIBUTE: {"type": "json", **attributes}},
    )


def read_extra(
    location: Location, documents: Mapping[str, Mapping[str, Any]]
) -> dict[str, NDArray[Any] | list[Any]]:
    """Read the columns of extra data.

    Returns
    -------
    dict
        Per field its values: an array, or a list where they are JSON; NaN where there is none.
    """
    columns: dict[str, NDArray[Any] | list[Any]] = {}
    for name, document in documents.items():
        try:
            count, *row = parse_shape(document["shape"])
            dtype = parse_dtype(document["data_type"])
            attributes = document["attributes"].get(ATTRIBUTE, {})
            is_json = attributes.get("type") == "json"
            field_name = str(attributes.get("field", name))
            if len(row) != is_json:
                raise ValueError(f"the shape {document['shape']}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidMetadataError(
                f"{location.name}: the metadata of extra/{name} are damaged ({error!r})"
            ) from error
        values = read_column(location, f"extra/{name}", count, dtype, tuple(row))
        texts = _parse_texts(location, name, values)
        columns[field_name] = list(texts) if is_json else values
    return columns


def iter_records(
    location: Location, documents: Mapping[str, Mapping[str, Any]]
) -> Iterator[Record]:
    """Iterate over the records that columns of extra data were made of."""
    columns = read_extra(location, documents)
    count = min(map(len, columns.values()), default=0)
    for start in range(0, count, _BLOCK):
        blocks = {
            name: values[start : start + _BLOCK]
            if isinstance(values, list)
            else values[start : start + _BLOCK].tolist()
            for name, values in columns.items()
        }
        for i in range(min(_BLOCK, count - start)):
            record = {name: values[i] for name, values in blocks.items()}
            # A field that is not there has no text; numbers are NaN then, which they stay.
            yield {
                name: value
                for name, value in record.items()
                if not (value is np.nan and isinstance(columns[name], list))
            }


def _parse_texts(location: Location, name: str, values: NDArray[np.uint8]) -> Iterator[Any]:
    for row, text in enumerate(values):
        data = text.tobytes().rstrip(b"\0")
        try:
            yield json.loads(data) if data else np.nan
        except ValueError as error:
            raise CorruptChunkError(
                f"{location.name}: record {row} of extra/{name} is no JSON ({error})"
            ) from error

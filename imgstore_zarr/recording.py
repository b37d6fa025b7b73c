"""What a recording is, apart from its frames: RecordingInfo (read) and RecordingSpec (to be written)."""

from __future__ import annotations

import copy
import datetime as dt
import json
import operator
import os
import uuid as uuid_module
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imgstore_zarr.cached import cached_property
from imgstore_zarr.errors import InvalidMetadataError, UnsupportedFormatError
from imgstore_zarr.pixels import Conversion, check_encoding

DEFAULT_SHARD_BYTES = 64 * 2**20


def local_timezone() -> zoneinfo.ZoneInfo:
    """Return the IANA time zone of this machine, UTC where it has none."""
    import tzlocal

    try:
        return zoneinfo.ZoneInfo(tzlocal.get_localzone_name())
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError):
        return zoneinfo.ZoneInfo("UTC")


def _own_copy(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    if not isinstance(metadata, Mapping | None):
        raise InvalidMetadataError(f"metadata must be a mapping, not {type(metadata).__name__}")
    return copy.deepcopy(dict(metadata or {}))


def json_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return user metadata as JSON holds them.

    Parameters
    ----------
    metadata
        The user's mapping.

    Returns
    -------
    dict
        The same keys and values, tuples as lists, dates and times as ISO 8601 text.

    Raises
    ------
    InvalidMetadataError
        A key that is not a string or a value that JSON cannot hold, with its path.
    """
    try:
        document: dict[str, Any] = _as_json(metadata, "metadata")
    except RecursionError as error:
        raise InvalidMetadataError("metadata contains itself, or is nested too deep") from error
    return document


def _as_json(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidMetadataError(
                    f"{path} has the key {key!r}: JSON takes only strings as keys; use {str(key)!r}"
                )
        return {key: _as_json(item, f"{path}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dt.date):
        return value.isoformat()
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidMetadataError(
            f"{path} is {value!r} ({type(value).__name__}), which JSON cannot hold ({error}); "
            "give a string, number, boolean, None, list or mapping"
        ) from error


def as_json(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return metadata with text in place of what JSON cannot hold, and the paths of those.

    Keys that are no text, and numbers that are not finite, come from YAML.
    """
    changed: list[str] = []

    def plain(value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            document = {}
            for key, item in value.items():
                if not isinstance(key, str):
                    changed.append(f"{path}[{key!r}]")
                document[str(key)] = plain(item, f"{path}[{key!r}]")
            return document
        if isinstance(value, list | tuple):
            return [plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
        try:
            json_metadata({"value": value})
        except InvalidMetadataError:
            changed.append(path)
            return str(value)
        return value

    return plain(metadata, "metadata"), changed


def _sizes(name: str, values: Any) -> tuple[int, ...]:
    """Return sizes as integers.

    Raises
    ------
    UnsupportedFormatError
        Something that is no sequence of integers.
    """
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError as error:
        raise UnsupportedFormatError(f"{name} must be integers, not {values!r}") from error


@dataclass(frozen=True)
class RecordingInfo:
    """What is known of a recording without looking at its frames.

    Attributes
    ----------
    name
        The location, for messages.
    layout
        How it lies on storage: ``zarr``, ``video``, ``directory``.
    format
        ``codec/container``, as the recording says it.
    imgshape
        The shape of one image as it was asked for: (y, x) or (y, x, channel).
    stored_shape
        The shape of one image as it lies on storage.
    imgdtype
        The dtype of the pixels, in native byte order.
    encoding
        How the stored pixels are to be interpreted (``cv_bayerrg``, ...), or None.
    chunksize
        Frames in a full chunk.
    created
        When it was made: aware, in UTC.
    timezone
        The time zone in which it was recorded.
    uuid
        The identity of the recording, None in old ones.
    user_metadata
        The user's own mapping.
    lossless
        Whether the pixels, decoded from their encoding, are those that were given.
    """

    name: str
    layout: str
    format: str
    imgshape: tuple[int, ...]
    stored_shape: tuple[int, ...]
    imgdtype: np.dtype[Any]
    encoding: str | None
    chunksize: int
    created: dt.datetime
    timezone: dt.tzinfo
    uuid: str | None
    user_metadata: Mapping[str, Any]
    lossless: bool

    @cached_property
    def conversion(self) -> Conversion:
        """The step from stored pixels to those handed out."""
        return Conversion.between(self.stored_shape, self.imgshape, self.encoding)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one image as it is handed out."""
        return self.conversion.output_shape(self.stored_shape)


@dataclass(frozen=True)
class RecordingSpec:
    """What `create` was asked to write, checked and completed.

    Attributes
    ----------
    format
        The format's canonical name.
    requested_format
        The format's name as it was asked for (``png`` for ``zstd/zarr``).
    imgshape, imgdtype, encoding, chunksize
        As in `RecordingInfo`; ``chunksize`` None lets the layout choose.
    metadata
        A copy of the user's mapping; the layout says what it can hold.
    inner_chunks
        Shape of the unit of compression, (frames, y, x[, channel]); None is one frame.
    durable
        Whether what is flushed must also survive power loss.
    spool
        The folder in which a recording grows that goes to object storage or a Zarr store; None is one in
        the user's cache.
    options
        What only one layout understands (``crf``, ``fps``, ...).
    """

    format: str
    requested_format: str
    imgshape: tuple[int, ...]
    imgdtype: np.dtype[Any]
    encoding: str | None = None
    chunksize: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    inner_chunks: tuple[int, ...] | None = None
    durable: bool = False
    spool: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    uuid: str = field(default_factory=lambda: uuid_module.uuid4().hex)
    created: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    timezone: dt.tzinfo = field(default_factory=local_timezone)

    @classmethod
    def checked(
        cls,
        *,
        format: str,
        requested_format: str,
        imgshape: tuple[int, ...],
        imgdtype: Any,
        encoding: str | None,
        chunksize: int | None,
        metadata: Mapping[str, Any] | None,
        inner_chunks: tuple[int, ...] | None,
        durable: bool,
        spool: str | os.PathLike[str] | None,
        options: Mapping[str, Any],
    ) -> RecordingSpec:
        """Build a spec from what a user gave.

        Raises
        ------
        FrameMismatchError
            A shape or chunk size that no recording can have.
        UnsupportedFormatError
            A dtype or encoding that is not known.
        InvalidMetadataError
            Metadata that are no mapping.
        """
        shape = _sizes("imgshape", imgshape)
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise UnsupportedFormatError(
                f"imgshape must be (y, x) or (y, x, channel) with positive sizes, not {imgshape!r}"
            )
        try:
            dtype = np.dtype(imgdtype).newbyteorder("=")
        except TypeError as error:
            raise UnsupportedFormatError(f"imgdtype {imgdtype!r} is no dtype ({error})") from error
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise UnsupportedFormatError(
                f"imgdtype {dtype} cannot be recorded; integers and floats of up to 64 bits can"
            )
        if chunksize is not None:
            (chunksize,) = _sizes("chunksize", (chunksize,))
            if chunksize < 1:
                raise UnsupportedFormatError(f"chunksize must be at least 1, not {chunksize}")
        if encoding:
            check_encoding(encoding, shape, dtype)
        return cls(
            format=format,
            requested_format=requested_format,
            imgshape=shape,
            imgdtype=dtype,
            encoding=encoding or None,
            chunksize=chunksize,
            metadata=_own_copy(metadata),
            inner_chunks=None if inner_chunks is None else _sizes("inner_chunks", inner_chunks),
            durable=durable,
            spool=None if spool is None else Path(spool).expanduser().absolute(),
            options=dict(options),
        )

    def info(
        self,
        *,
        name: str,
        layout: str,
        stored_shape: tuple[int, ...],
        imgshape: tuple[int, ...] | None = None,
        encoding: str | None,
        chunksize: int,
        lossless: bool,
    ) -> RecordingInfo:
        """Return the info of the recording that a layout makes of this spec."""
        return RecordingInfo(
            name=name,
            layout=layout,
            format=self.format,
            imgshape=imgshape or self.imgshape,
            stored_shape=stored_shape,
            imgdtype=self.imgdtype,
            encoding=encoding,
            chunksize=chunksize,
            created=self.created,
            timezone=self.timezone,
            uuid=self.uuid,
            user_metadata=self.metadata,
            lossless=lossless,
        )

"""``metadata.yaml``: what Motif and imgstore write, in all its variants."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import re
import zoneinfo
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from imgstore_zarr.errors import (
    InvalidMetadataError,
    RecordingNotFoundError,
    UnsupportedVersionError,
)
from imgstore_zarr.pixels import encodings
from imgstore_zarr.recording import RecordingSpec, local_timezone
from imgstore_zarr.storage import Location, ObjectStore, access_error

FILE = "metadata.yaml"
LOCK_FILE = ".lock"
STORE_KEY = "__store"
STORE_VERSION = 2
VIDEO_CLASSES = ("VideoImgStore", "VideoImgStoreFFMPEG")
DIRECTORY_CLASS = "DirectoryImgStore"
VIDEO_EXTENSIONS = (".mp4", ".mkv", ".avi")
IMGSTORE_CLASSES = (*VIDEO_CLASSES, DIRECTORY_CLASS)

# What yaml, and using what it gives, raise on a damaged document.
_DAMAGE = (
    yaml.YAMLError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

# The formats for which imgstore cuts odd sizes, since 4:2:0 video cannot have them.
_CUT_FORMATS = frozenset({"mjpeg", "mjpeg/avi", "h264/mkv", "avc1/mp4"})
# OpenCV reads no image of more than 2**30 pixels; arrays in npy may be somewhat larger.
_LARGEST = 2**32
# Of several dates the last counts, as for imgstore.
_DATE_IN_NAME = re.compile(r".*(20\d{6}_\d{6})")


@dataclass(frozen=True)
class StoreMetadata:
    """What the ``metadata.yaml`` of a recording says.

    Attributes
    ----------
    store
        The mapping ``__store``; keys that are not known are kept and ignored.
    user
        Everything beside it.
    """

    store: Mapping[str, Any]
    user: Mapping[str, Any]

    @property
    def extension(self) -> str:
        """The ending of video chunks; old recordings do not say."""
        default = ".avi" if self.store.get("format") == "mjpeg" else ".mp4"
        return str(self.store.get("extension") or default)

    @property
    def imgshape(self) -> tuple[int, ...]:
        """The shape of an image as it is stored."""
        shape = tuple(int(n) for n in self.store["imgshape"])
        if self._cut:
            return (shape[0] & -2, shape[1] & -2, *shape[2:])
        return shape

    @property
    def _cut(self) -> bool:
        name = str(self.store["format"])
        motif = self.store["class"] == "VideoImgStoreFFMPEG"
        return name in _CUT_FORMATS or (motif and ("264" in name or "nvenc-" in name))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the pixels."""
        dtype: np.dtype[Any] = np.dtype(self.store["imgdtype"])
        return dtype

    @property
    def encoding(self) -> str | None:
        """How pixels are to be interpreted: an empty string means nothing, too."""
        return self.store.get("encoding") or None

    @property
    def chunksize(self) -> int:
        """Frames in a full chunk; some writers wrote 4500.0."""
        return int(self.store["chunksize"])


def read_store_class(location: Location) -> str | None:
    """Return the class that a ``metadata.yaml`` names.

    None where there is no such file, where another layout's marker is beside it, or where it cannot
    be read; "" where it names none.
    """
    try:
        if location.exists("zarr.json"):
            return None
        text = location.read(FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return ""
    try:
        return str(_parse(text)[STORE_KEY]["class"])
    except _DAMAGE:
        return ""


def _parse(text: bytes) -> dict[str, Any]:
    # libyaml is ten times faster, and a Motif recording may have much metadata.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document = yaml.load(text, Loader=loader)
    if not isinstance(document, dict):
        raise TypeError(f"it holds {type(document).__name__}, no mapping")
    return document


def read_metadata(location: Location, classes: Collection[str]) -> StoreMetadata:
    """Read the ``metadata.yaml`` of a recording.

    Parameters
    ----------
    location
        The recording.
    classes
        The classes that its layout knows.

    Raises
    ------
    RecordingNotFoundError, RecordingAccessError
        There is none, or it cannot be read.
    InvalidMetadataError
        It is damaged, is of another class, or lacks a key that every recording has.
    UnsupportedVersionError
        It is of another version than 2.
    """
    try:
        document = _parse(location.read(FILE))
    except FileNotFoundError as error:
        raise RecordingNotFoundError(f"{location.name} has no {FILE}") from error
    except OSError as error:
        raise access_error(location, f"reading {FILE}", error) from error
    except _DAMAGE as error:
        raise _invalid(location, f"{FILE} is damaged ({type(error).__name__}: {error})") from error
    store = document.pop(STORE_KEY, None)
    if not isinstance(store, dict):
        raise _invalid(location, f"{FILE} has no mapping {STORE_KEY}")
    if store.get("class") not in classes:
        raise _invalid(
            location,
            f"{STORE_KEY}.class in {FILE} is {store.get('class')!r}; known are "
            f"{', '.join(IMGSTORE_CLASSES)}",
        )
    if store.get("version") != STORE_VERSION:
        raise UnsupportedVersionError(
            f"{location.name}: {STORE_KEY}.version in {FILE} is {store.get('version')!r}; version "
            f"{STORE_VERSION} is read"
        )
    for key, check in _CHECKS.items():
        if key not in store and key not in _OPTIONAL:
            raise _invalid(location, f"{FILE} lacks {STORE_KEY}.{key}")
        try:
            check(store.get(key))
        except _DAMAGE as error:
            raise _invalid(
                location, f"{STORE_KEY}.{key} in {FILE} is {store.get(key)!r} ({error})"
            ) from error
    return StoreMetadata(store, document)


def _invalid(location: Location, what: str) -> InvalidMetadataError:
    return InvalidMetadataError(f"{location.name}: {what}; restore it from a backup")


def _whole(value: Any) -> int:
    # Some writers wrote 4500.0.
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise TypeError("must be an integer")
    return int(value)


def _check_format(value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise TypeError("must be a name")


def _check_shape(value: Any) -> None:
    if not isinstance(value, list):
        raise TypeError("must be a list of two or three sizes")
    shape = [_whole(n) for n in value]
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError("must be two or three sizes of at least 1")
    if math.prod(shape) > _LARGEST:
        raise ValueError(f"must be of at most {_LARGEST} values")


def _check_chunksize(value: Any) -> None:
    if _whole(value) < 1:
        raise ValueError("must be at least 1")


def _check_created(value: Any) -> None:
    if value is not None:
        _utc(value)


def _check_extension(value: Any) -> None:
    if value and value not in VIDEO_EXTENSIONS:
        raise ValueError(f"is none of {', '.join(VIDEO_EXTENSIONS)}")


def _check_encoding(value: Any) -> None:
    if not isinstance(value, str | None):
        raise TypeError("must be a name or null")
    if value and value not in encodings():
        raise ValueError(f"is not known; known are {', '.join(sorted(encodings()))}")


def _check_dtype(value: Any) -> None:
    # NumPy takes None for float64.
    if not isinstance(value, str) or np.dtype(value).kind not in "biuf":
        raise ValueError("must be one of integers or floats")


_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "format": _check_format,
    "imgshape": _check_shape,
    "imgdtype": _check_dtype,
    "chunksize": _check_chunksize,
    "encoding": _check_encoding,
    "created_utc": _check_created,
    "extension": _check_extension,
}
_OPTIONAL = frozenset({"encoding", "created_utc", "extension"})


def timezone_of(metadata: StoreMetadata) -> dt.tzinfo:
    """Return the time zone of a recording; that of this machine where it does not say."""
    for name in (metadata.store.get("timezone_local"), metadata.user.get("timezone")):
        if isinstance(name, str):
            try:
                return zoneinfo.ZoneInfo(name)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError):
                continue
    return local_timezone()


def created_of(location: Location, metadata: StoreMetadata) -> dt.datetime:
    """Return when a recording was made, in UTC.

    Old recordings do not say: then it is the date in the folder's name, local to the recording's time
    zone, else the time at which ``metadata.yaml`` was last modified, which stores of zarr do not tell.
    """
    created = metadata.store.get("created_utc")
    if created is not None:
        return _utc(created)
    folder = location.name.rstrip("/").rsplit("/", 1)[-1]
    if match := _DATE_IN_NAME.match(folder):
        with contextlib.suppress(ValueError):  # digits that are no date
            local = dt.datetime.strptime(match[1], "%Y%m%d_%H%M%S")
            return local.replace(tzinfo=timezone_of(metadata)).astimezone(dt.UTC)
    if isinstance(location, ObjectStore):
        modified: dt.datetime = location.head(FILE)["last_modified"]
        return modified.astimezone(dt.UTC)
    if location.path is None:
        return dt.datetime.fromtimestamp(0, dt.UTC)
    return dt.datetime.fromtimestamp((location.path / FILE).stat().st_mtime, dt.UTC)


def _utc(date: Any) -> dt.datetime:
    """A date, as text or as YAML gives it, in UTC; ValueError, TypeError or OverflowError for others."""
    if isinstance(date, str):
        date = _parse_date(date)
    if not isinstance(date, dt.datetime):
        raise TypeError("must be a date and a time")
    return date.astimezone(dt.UTC) if date.tzinfo else date.replace(tzinfo=dt.UTC)


def _parse_date(text: str) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        import dateutil.parser

        return dateutil.parser.parse(text)


def dump_metadata(
    spec: RecordingSpec, *, store_class: str, stored_shape: tuple[int, ...], **more: Any
) -> bytes:
    """Return the ``metadata.yaml`` of a new recording, as imgstore 0.4.0 reads it.

    Raises
    ------
    InvalidMetadataError
        The user's key that YAML cannot hold, or that is not the user's.
    """
    for key, value in spec.metadata.items():
        if key == STORE_KEY:
            raise InvalidMetadataError(
                f"metadata has the key {key!r}, under which {FILE} holds what the store needs; "
                "choose another"
            )
        _check_returns(key, value)
    store = {
        "class": store_class,
        "version": STORE_VERSION,
        "format": spec.format,
        "imgshape": list(stored_shape),
        "imgdtype": spec.imgdtype.name,
        "encoding": spec.encoding,
        "created_utc": spec.created.astimezone(dt.UTC).replace(tzinfo=None).isoformat(),
        "timezone_local": str(spec.timezone),
        "uuid": spec.uuid,
        **more,
    }
    return _dump({**spec.metadata, STORE_KEY: store})


def _dump(document: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(document, allow_unicode=False).encode("ascii")


def _check_returns(key: str, value: Any) -> None:
    """Refuse what YAML cannot hold or does not give back, such as half of a surrogate pair."""
    try:
        text = _dump({key: value})
        # Text, since NaN is not equal to itself, and a tuple comes back as a list.
        if _dump(_parse(text)) == text:
            return
    except (yaml.YAMLError, ValueError, RecursionError):
        pass
    raise InvalidMetadataError(f"metadata[{key!r}] is {value!r}, which {FILE} cannot hold")

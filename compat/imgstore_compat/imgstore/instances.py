"""What stores have under imgstore's names beyond those of `imgstore_zarr`, for scripts that use it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import yaml
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_compat.imgstore.constants import FRAME_MD, STORE_MD_FILENAME, STORE_MD_KEY
from imgstore_compat.imgstore.index import ImgStoreIndex
from imgstore_compat.metadata import VIDEO_CLASSES, read_metadata
from imgstore_zarr import (
    ImgStore,
    ImgStoreWriter,
    InvalidMetadataError,
    RecordingNotFoundError,
    UnsupportedFormatError,
    locate,
)
from imgstore_zarr.cached import cached_property
from imgstore_zarr.described import Described
from imgstore_zarr.pixels import is_color
from imgstore_zarr.storage import access_error

VIDEO_FORMATS: Mapping[str, str] = {
    "mjpeg": "mjpeg/avi",
    "mjpeg/avi": "mjpeg/avi",
    "h264/mkv": "h264/mkv",
    "avc1/mp4": "avc1/mp4",
}
"""imgstore's names of the formats of video, and this project's."""

DIRECTORY_FORMATS: Mapping[str, str] = {
    "tif": "tif/dir",
    "png": "png/dir",
    "jpg": "jpg",
    "ppm": "ppm/dir",
    "pgm": "pgm/dir",
    "bmp": "bmp/dir",
    "tif+color": "tif+color/dir",
    "png+color": "png+color/dir",
    "jpg+color": "jpg+color",
    "bmp+color": "bmp+color/dir",
    "npy": "npy/dir",
    "bpk": "bpk/dir",
}
"""The same of directories of images."""


def told_formats(formats: Mapping[str, str]) -> list[str]:
    """Return the formats that imgstore tells of: one of the two names of MJPEG."""
    return [name for name in formats if name != "mjpeg"]


def extract_store_metadata(full_path: str) -> dict[str, Any]:
    """Return the mapping ``__store`` of a ``metadata.yaml``, whatever it holds.

    Raises
    ------
    RecordingNotFoundError, RecordingAccessError
        There is no such file, or it cannot be read.
    InvalidMetadataError
        It has no such mapping.
    """
    location = locate(full_path)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return dict(yaml.load(location.read(STORE_MD_FILENAME), Loader=loader)[STORE_MD_KEY])
    except FileNotFoundError as error:
        raise RecordingNotFoundError(f"{location.name} has no {STORE_MD_FILENAME}") from error
    except OSError as error:
        raise access_error(location, f"reading {STORE_MD_FILENAME}", error) from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InvalidMetadataError(
            f"{location.name}: {STORE_MD_FILENAME} has no mapping {STORE_MD_KEY} "
            f"({type(error).__name__}: {error}); restore it from a backup"
        ) from error


class ScriptBase(Described):
    """What is the same on stores and writers; imgstore calls it ``_ImgStore``.

    The private attributes are those of imgstore that scripts have been seen to use. They tell, and
    setting them changes nothing.
    """

    FRAME_MD = FRAME_MD

    @property
    def _formats(self) -> Mapping[str, str]:
        return VIDEO_FORMATS if self.info.layout == "video" else DIRECTORY_FORMATS

    def supported_formats(self) -> list[str]:
        """Return the formats of the recording's class."""
        return told_formats(self._formats)

    def supports_format(self, fmt: str | None) -> bool:
        """Whether the recording's class has a format."""
        return fmt in self._formats

    @staticmethod
    def extract_only_frame(full_path: str, frame_index: int) -> NDArray[Any]:
        """Read one stored image of a recording by its position."""
        return imgstore_zarr.extract_only_frame(full_path, frame_index)

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        return extract_store_metadata(self.full_path)

    @property
    def _user_metadata(self) -> dict[str, Any]:
        return self.user_metadata

    @property
    def _basedir(self) -> str:
        return self.filename

    @property
    def _imgdtype(self) -> str:
        return self.dtype.name

    @property
    def _chunksize(self) -> int:
        return self.info.chunksize

    @property
    def _format(self) -> str:
        return self.format

    @property
    def _encoding(self) -> str | None:
        return self.encoding

    @property
    def _uuid(self) -> str | None:
        return self.uuid

    @property
    def _created_utc(self) -> dt.datetime:
        return self.info.created

    @property
    def _timezone_local(self) -> dt.tzinfo:
        return self.info.timezone

    @property
    def _color(self) -> bool:
        return is_color(self.info.imgshape)

    @property
    def _ext(self) -> str:
        return read_metadata(self._location, VIDEO_CLASSES).extension


class ScriptStore(ScriptBase, ImgStore):
    """A recording that a script opened."""

    _mode = "r"

    def empty(self) -> NoReturn:
        """Refuse: only what is being written can be emptied."""
        raise UnsupportedFormatError(
            f"{self.filename} is open for reading; only recordings that are being written can be "
            "emptied"
        )

    @property
    def _imgshape(self) -> tuple[int, ...]:
        return self.info.imgshape

    @property
    def _index(self) -> ImgStoreIndex:
        return ImgStoreIndex(self.index)

    def _get_chunk_metadata(self, chunk_n: int) -> dict[str, list[Any]]:
        return self._index.get_chunk_metadata(chunk_n)

    @property
    def _place(self) -> tuple[int, int]:
        if self._cursor >= 0:
            return self.index.chunk_at(self._cursor)
        return next(iter(self.chunks), 0), -1

    @property
    def _chunk_n(self) -> int:
        return self._place[0]

    @property
    def _chunk_current_frame_idx(self) -> int:
        return self._place[1]

    @property
    def _chunk_n_and_chunk_paths(self) -> list[tuple[int, str]]:
        return [(number, self._chunk_path(number)) for number in self.chunks]

    def _iter_chunk_n_and_chunk_paths(self) -> Iterator[tuple[int, str]]:
        return iter(self._chunk_n_and_chunk_paths)

    @property
    def _chunk_paths(self) -> list[str]:
        return [f"{path}{self._ext}" for _, path in self._chunk_n_and_chunk_paths]


class ScriptWriter(ScriptBase, ImgStoreWriter):
    """A recording that a script is writing."""

    _mode = "w"

    @property
    def _frame_n(self) -> int:
        return self.frame_count

    @property
    def _chunk_n(self) -> int:
        return self.frame_count // self.info.chunksize

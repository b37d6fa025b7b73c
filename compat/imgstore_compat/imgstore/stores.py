"""``imgstore.stores``: opening and creating recordings by imgstore's names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

import imgstore_zarr
from imgstore_compat.imgstore.constants import (
    DEVNULL,
    EXTRA_DATA_FILE_EXTENSIONS,
    FRAME_MD,
    STORE_INDEX_FILENAME,
    STORE_LOCK_FILENAME,
    STORE_MD_FILENAME,
    STORE_MD_KEY,
)
from imgstore_compat.imgstore.index import ImgStoreIndex
from imgstore_compat.imgstore.instances import (
    DIRECTORY_FORMATS,
    VIDEO_FORMATS,
    ScriptBase,
    ScriptStore,
    ScriptWriter,
    extract_store_metadata,
    told_formats,
)
from imgstore_compat.imgstore.util import (
    FourCC,
    ImageCodecProcessor,
    JsonCustomEncoder,
    ensure_color,
    ensure_grayscale,
    get_local_timezone_zoneinfo,
    motif_extra_data_h5_attrs,
    motif_extra_data_h5_to_df,
    motif_extra_data_json_to_df,
)
from imgstore_zarr import (
    FrameIndex,
    ImgStore,
    ImgStoreWriter,
    RecordingNotFoundError,
    UnsupportedFormatError,
    locate,
)
from imgstore_zarr.formats import find_layout
from imgstore_zarr.imgstore_names import create_as, open_by_name_as

__all__ = [
    "DEVNULL",
    "EXTRA_DATA_FILE_EXTENSIONS",
    "FRAME_MD",
    "STORE_INDEX_FILENAME",
    "STORE_LOCK_FILENAME",
    "STORE_MD_FILENAME",
    "STORE_MD_KEY",
    "DirectoryImgStore",
    "FourCC",
    "ImageCodecProcessor",
    "ImgStoreIndex",
    "JsonCustomEncoder",
    "VideoImgStore",
    "ensure_color",
    "ensure_grayscale",
    "extract_only_frame",
    "get_local_timezone_zoneinfo",
    "get_supported_formats",
    "motif_extra_data_h5_attrs",
    "motif_extra_data_h5_to_df",
    "motif_extra_data_json_to_df",
    "new_for_filename",
    "new_for_format",
]


# Private in imgstore, and imported by scripts all the same.
_ImgStore = ScriptBase
_extract_store_metadata = extract_store_metadata


class _StoreClass(type):
    """The type of imgstore's two classes: calling one opens or creates a recording.

    Recordings of every layout have the same interface here, so there is nothing to make an instance
    of; `isinstance` asks for the layout.
    """

    _layouts: tuple[str, ...]
    _formats: Mapping[str, str]  # imgstore's name of each format, and this project's

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _StoreClass:
        if bases:
            raise TypeError(
                f"{name}: {bases[0].__name__} only opens and creates recordings and cannot be "
                "subclassed; keep the store that it returns as an attribute"
            )
        return super().__new__(mcs, name, bases, namespace)

    def __call__(cls, *, basedir: str, mode: str, **options: Any) -> ImgStore | ImgStoreWriter:
        if mode == "w":
            return cls._create(basedir, **options)
        cls._check_layout(basedir)
        return new_for_filename(None, basedir=basedir, mode=mode, **options)

    def _create(
        cls, basedir: str, *, format: str = "", **options: Any
    ) -> ImgStore | ImgStoreWriter:
        if not cls.supports_format(format):
            others = [other for other in _CLASSES if other.supports_format(format)]
            instead = f"; {others[0].__name__} does" if others else ""
            raise UnsupportedFormatError(
                f"{cls.__name__} does not write {format!r}{instead}; it writes "
                f"{', '.join(cls._formats)}"
            )
        return new_for_format(cls._formats[format], basedir=basedir, **options)

    def _check_layout(cls, path: str) -> None:
        location = locate(path)
        layout = find_layout(location).name
        if layout not in cls._layouts:
            others = [f"{other.__name__} or " for other in _CLASSES if layout in other._layouts]
            raise UnsupportedFormatError(
                f"{location.name} has the layout {layout}, which is not for {cls.__name__}; open "
                f"it with {''.join(others)}new_for_filename"
            )

    def __instancecheck__(cls, instance: object) -> bool:
        return (
            isinstance(instance, ImgStore | ImgStoreWriter) and instance.info.layout in cls._layouts
        )

    def supported_formats(cls) -> list[str]:
        """Return the formats that it writes."""
        return told_formats(cls._formats)

    def supports_format(cls, fmt: str | None) -> bool:
        """Whether it writes a format."""
        return fmt in cls._formats

    def extract_only_frame(cls, full_path: str, frame_index: int) -> NDArray[Any]:
        """Read one stored image by its position; see `extract_only_frame`."""
        cls._check_layout(full_path)
        return extract_only_frame(full_path, frame_index)


class VideoImgStore(metaclass=_StoreClass):
    """Opens and creates recordings in video chunks.

    Parameters
    ----------
    basedir
        The directory of the recording.
    mode
        ``"r"`` or ``"w"``.
    **options
        To read, those of `new_for_filename`; to write, ``format`` and those of `new_for_format`.

    Returns
    -------
    ImgStore or ImgStoreWriter
        ``isinstance(store, VideoImgStore)`` says whether the recording is in video chunks.

    Raises
    ------
    UnsupportedFormatError
        A format that is not video, or a recording that is not in video chunks.
    """

    FRAME_MD: ClassVar = FRAME_MD

    _layouts = ("video",)
    _formats: ClassVar = VIDEO_FORMATS


class DirectoryImgStore(metaclass=_StoreClass):
    """Opens and creates recordings in directories of images; opens Zarr recordings, too.

    Parameters
    ----------
    basedir
        The directory of the recording.
    mode
        ``"r"`` or ``"w"``.
    **options
        To read, those of `new_for_filename`; to write, ``format`` and those of `new_for_format`.

    Returns
    -------
    ImgStore or ImgStoreWriter
        ``isinstance(store, DirectoryImgStore)`` says whether the recording is one of those.

    Raises
    ------
    UnsupportedFormatError
        A format of video, or a recording in video chunks.

    Notes
    -----
    It writes image files. The same formats given to `new_for_format` become Zarr, except ``jpg``.
    """

    FRAME_MD: ClassVar = FRAME_MD

    _layouts = ("directory", "zarr")
    _formats: ClassVar = DIRECTORY_FORMATS


_CLASSES = (DirectoryImgStore, VideoImgStore)


def new_for_filename(
    path: str | None, *, index: ImgStoreIndex | FrameIndex | None = None, **kwargs: Any
) -> ImgStore:
    """Open a recording.

    Parameters
    ----------
    path
        The recording, or its ``metadata.yaml``.
    index
        Its index, loaded before, in place of those in the recording.
    **kwargs
        See `imgstore_zarr.new_for_filename`.
    """
    if index is not None:
        kwargs["index"] = index.columns if isinstance(index, ImgStoreIndex) else index
    return open_by_name_as(ScriptStore, path, **kwargs)


def new_for_format(
    fmt: str, path: str | None = None, *, mode: str = "w", **kwargs: Any
) -> ImgStore | ImgStoreWriter:
    """Begin a recording, or open one with ``mode="r"``.

    Parameters
    ----------
    fmt
        The format; what imgstore stored without loss becomes Zarr.
    path
        Where.
    mode
        ``"w"`` or ``"r"``.
    **kwargs
        See `imgstore_zarr.new_for_format`; to open, see `new_for_filename`.
    """
    if mode == "r":
        return new_for_filename(path, mode=mode, **kwargs)
    return create_as(ScriptWriter, fmt, path, mode=mode, **kwargs)


def extract_only_frame(path: str, frame_index: int) -> NDArray[Any]:
    """Read one stored image by its position; pixels are not decoded from the encoding."""
    return imgstore_zarr.extract_only_frame(path, frame_index)


def _parse_basedir_fullpath(path: str | None, basedir: str | None, read: bool) -> tuple[str, str]:
    """Return the directory of a recording and its ``metadata.yaml``, as they were given."""
    if path and basedir:
        raise UnsupportedFormatError("path and basedir are the same thing: give one of them")
    given = path or basedir
    if not given:
        raise RecordingNotFoundError("give the path of a recording")
    folder, name = os.path.split(given)
    if name == STORE_MD_FILENAME:
        if basedir:
            raise UnsupportedFormatError(f"basedir is the directory of a recording, not {basedir}")
        return folder, given
    full_path = os.path.join(given, STORE_MD_FILENAME)  # noqa: PTH118 - keeps what was given
    if path and read and not Path(full_path).exists():
        raise RecordingNotFoundError(f"{path} does not exist, or has no {STORE_MD_FILENAME}")
    return given, full_path


def get_supported_formats() -> list[str]:
    """Return imgstore's names of the formats that can be written."""
    return [name for cls in _CLASSES for name in cls.supported_formats()]

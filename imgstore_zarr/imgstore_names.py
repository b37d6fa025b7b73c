"""The functions of imgstore, by its names and with its arguments."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from imgstore_zarr.errors import FrameNotFoundError, RecordingNotFoundError, UnsupportedFormatError
from imgstore_zarr.formats import find_layout, open_as, planned
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.layouts import ExtractsFrames
from imgstore_zarr.storage import METADATA_FILES, locate
from imgstore_zarr.store import ImgStore
from imgstore_zarr.writer import ImgStoreWriter

_Store = TypeVar("_Store", bound=ImgStore)
_Writer = TypeVar("_Writer", bound=ImgStoreWriter)

_OLD_OPTIONS = frozenset({"seek", "gpu_id", "videosize"})


def new_for_filename(
    path: str | None,
    *,
    basedir: str | None = None,
    mode: str = "r",
    index: FrameIndex | None = None,
    **old: Any,
) -> ImgStore:
    """Open a recording, as in imgstore; `open` does the same.

    Parameters
    ----------
    path
        The recording, or its ``metadata.yaml``.
    basedir
        The recording, in place of `path`.
    mode
        ``"r"``.
    index
        See `open`.
    **old
        ``seek``, ``gpu_id``, ``videosize``: they chose between ways to decode, of which there is one.
    """
    return open_by_name_as(ImgStore, path, basedir=basedir, mode=mode, index=index, **old)


def open_by_name_as(
    kind: type[_Store],
    path: str | None,
    *,
    basedir: str | None = None,
    mode: str = "r",
    index: FrameIndex | None = None,
    **old: Any,
) -> _Store:
    """Open a recording as a kind of `ImgStore`; see `new_for_filename`."""
    if mode != "r":
        raise UnsupportedFormatError(f"mode {mode!r}: recordings are written with create(...)")
    if unknown := set(old) - _OLD_OPTIONS:
        raise TypeError(f"new_for_filename has no argument {', '.join(sorted(unknown))}")
    return open_as(kind, _one_of(path, basedir), index)


def new_for_format(
    fmt: str,
    path: str | None = None,
    *,
    basedir: str | None = None,
    mode: str = "w",
    imgshape: tuple[int, ...] = (),
    imgdtype: DTypeLike = np.uint8,
    format: str | None = None,
    **options: Any,
) -> ImgStoreWriter | ImgStore:
    """Begin a recording, as in imgstore.

    `create` does the same, but for extra data that JSON cannot hold: the writer that this returns
    logs a warning, leaves the record out and goes on, so that no script ends while it records.

    Parameters
    ----------
    fmt
        The format.
    path, basedir
        Where; one of them.
    mode
        ``"w"``, or ``"r"`` to open a recording.
    imgshape, imgdtype
        See `create`.
    format
        If given, the same as `fmt`.
    **options
        Further arguments of `create`, or of `new_for_filename` to open.
    """
    if mode == "r":
        return new_for_filename(path, basedir=basedir, **options)
    return create_as(
        ImgStoreWriter,
        fmt,
        path,
        basedir=basedir,
        mode=mode,
        imgshape=imgshape,
        imgdtype=imgdtype,
        format=format,
        **options,
    )


def create_as(
    kind: type[_Writer],
    fmt: str,
    path: str | None = None,
    *,
    basedir: str | None = None,
    mode: str = "w",
    imgshape: tuple[int, ...] = (),
    imgdtype: DTypeLike = np.uint8,
    format: str | None = None,
    **options: Any,
) -> _Writer:
    """Begin a recording as a kind of `ImgStoreWriter`; see `new_for_format`."""
    if mode != "w":
        raise UnsupportedFormatError(f"mode {mode!r} is not supported; 'r' and 'w' are")
    if format not in (None, fmt):
        raise UnsupportedFormatError(f"two formats, {fmt!r} and {format!r}, were given")
    kept = {name: value for name, value in options.items() if name not in _OLD_OPTIONS}
    layout, spec = planned(fmt, imgshape, imgdtype, **kept)
    return kind(locate(_one_of(path, basedir)), layout, spec, bad_extra="log")


def extract_only_frame(path: str | os.PathLike[str], frame_index: int) -> NDArray[Any]:
    """Read one stored image by its position, without reading the whole index.

    Pixels are not decoded from the encoding; those of video are BGR, as in imgstore.

    Parameters
    ----------
    path
        The recording.
    frame_index
        The position.

    Returns
    -------
    ndarray
        (y, x) or (y, x, channel).

    Raises
    ------
    FrameNotFoundError
        There is no such position.
    """
    place = locate(_one_of(path, None))
    layout = find_layout(place)
    if not isinstance(layout, ExtractsFrames):
        with ImgStore(place, layout) as store:
            store.disable_decoding()
            return store.get_image(frame_index=frame_index)[0]
    try:
        position = operator.index(frame_index)
    except TypeError as error:
        raise FrameNotFoundError(
            f"{place.name}: {frame_index!r} is no position; give an integer"
        ) from error
    image = layout.extract(place, position) if position >= 0 else None
    if image is None:
        raise FrameNotFoundError(f"{place.name}: there is no position {position}")
    return image


def _one_of(path: str | os.PathLike[str] | None, basedir: str | None) -> str:
    if path and basedir:
        raise UnsupportedFormatError("path and basedir are the same thing: give one of them")
    if basedir and Path(basedir).name in METADATA_FILES:
        raise UnsupportedFormatError(f"basedir is the directory of a recording, not {basedir}")
    if not path and not basedir:
        raise RecordingNotFoundError("give the path of a recording")
    return os.fspath(path or basedir or "")

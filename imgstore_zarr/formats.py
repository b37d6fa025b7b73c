"""Formats and layouts: which there are, and opening and creating recordings with them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
import os
import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from imgstore_zarr.errors import (
    FrameNotFoundError,
    ImgStoreError,
    RecordingNotFoundError,
    UnsupportedFormatError,
)
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.layouts import ExtractsFrames, Layout, Repairs
from imgstore_zarr.recording import RecordingSpec
from imgstore_zarr.report import Report, inspected_report
from imgstore_zarr.storage import METADATA_FILES, Directory, Location, access_error, locate
from imgstore_zarr.store import ImgStore
from imgstore_zarr.writer import ImgStoreWriter

_Store = TypeVar("_Store", bound=ImgStore)
_Writer = TypeVar("_Writer", bound=ImgStoreWriter)

ENTRY_POINTS = "imgstore_zarr.layouts"
"""The entry-point group by which a distribution adds a layout."""


@functools.cache
def layouts() -> tuple[Layout, ...]:
    """Return the installed layouts, those of other distributions first.

    Those of this one take any ``metadata.yaml`` for theirs, to say what is wrong with it.
    """
    found: dict[str, Layout] = {}
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=_rank):
        layout: Layout = entry.load()
        if layout.name in found and found[layout.name] != layout:
            raise ImgStoreError(
                f"two installed distributions have a layout {layout.name!r}; "
                f"the second is {entry.value}; remove one of them"
            )
        found[layout.name] = layout
    return tuple(found.values())


def _rank(entry: EntryPoint) -> tuple[bool, bool]:
    own = entry.dist is not None and entry.dist.name == "imgstore-zarr"
    return own, entry.name != "zarr"


def get_supported_formats() -> list[str]:
    """Return the names of all formats that `create` takes."""
    return [name for layout in layouts() for name in layout.formats]


def find_layout(location: Location) -> Layout:
    """Return the layout of the recording at a location.

    Raises
    ------
    RecordingNotFoundError
        There is none; the message says what was looked for.
    RecordingAccessError
        The location cannot be read.
    """
    for layout in layouts():
        if layout.recognises(location):
            return layout
    path = location.path
    if path is not None:
        try:
            exists = path.exists()
            if exists and path.is_dir():
                os.scandir(path).close()
        except PermissionError as error:
            raise access_error(location, "reading", error) from error
        if not exists:
            raise RecordingNotFoundError(f"{location.name} does not exist")
    names = ", ".join(layout.name for layout in layouts())
    raise RecordingNotFoundError(
        f"{location.name} is no recording: looked for {' and '.join(METADATA_FILES)} of the "
        f"layouts {names}{_advice(location)}"
    )


# A shard lies this deep in a recording of colour: image/c/0/0/0/0.
_DEPTH = 6
_CHUNK = re.compile(r"\d{6}(\.(mp4|mkv|avi|npz|yaml))?")
_VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".m4v", ".webm", ".mpg", ".ts", ".wmv", ".h264")


def _is_recording(location: Location) -> bool:
    """Whether a recording is there that opens; an array in a Zarr recording looks like one, too."""
    for layout in layouts():
        if layout.recognises(location):
            with contextlib.suppress(ImgStoreError, OSError):
                layout.open(location).frames.close()
                return True
    return False


def _advice(location: Location) -> str:
    """What to do about a place that is no recording, where it looks like a part of one."""
    path = location.path
    if path is None:
        return ""
    for parent in path.parents[:_DEPTH]:
        if _is_recording(Directory(parent)):
            return f"; it lies in the recording {parent}: open that"
    if path.is_file():
        if path.suffix.lower() not in _VIDEOS:
            return "; a recording is a directory"
        return (
            "; a video by itself has no frame numbers and times: make a recording with create(...), "
            "and give it the video and these with insert_chunk(...), or its images with add_image(...)"
        )
    chunks = [name for name in location.names() if _CHUNK.fullmatch(name)]
    if not chunks:
        return ""
    return (
        f"; it has chunks ({chunks[0]}), but no metadata.yaml: restore that from a backup, or take that "
        "of another recording of the same format, image shape and dtype"
    )


def open(location: object, *, index: FrameIndex | None = None) -> ImgStore:
    """Open a recording for reading; nothing is written to it.

    Parameters
    ----------
    location
        A path, a ``metadata.yaml`` or ``zarr.json`` inside a recording, a ``file://`` URL, or any
        ``zarr.abc.store.Store``.
    index
        The recording's index, from another `ImgStore` of it or from `load_index`; by default it is
        read from the recording.

    Returns
    -------
    ImgStore
        A context manager.

    Raises
    ------
    RecordingNotFoundError
        There is no recording; the message says what was looked for.
    UnsupportedVersionError
        The recording was made by a newer version of this package.
    InvalidMetadataError
        Its metadata are damaged.
    RecordingAccessError
        It cannot be read.
    """
    return _open(ImgStore, location, index)


def _open(kind: type[_Store], location: object, index: FrameIndex | None) -> _Store:
    if index is not None and not isinstance(index, FrameIndex):
        raise TypeError(f"index must be a FrameIndex, not {type(index).__name__}")
    place = locate(location)
    return kind(place, find_layout(place), index)


def create(
    location: object,
    format: str,
    imgshape: tuple[int, ...],
    imgdtype: DTypeLike = np.uint8,
    *,
    chunksize: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    encoding: str | None = None,
    inner_chunks: tuple[int, ...] | None = None,
    durable: bool = False,
    **options: Any,
) -> ImgStoreWriter:
    """Begin a recording.

    Parameters
    ----------
    location
        Where: a path, a ``file://`` URL, or any ``zarr.abc.store.Store``. What is there must not be
        a recording; directories above it are made.
    format
        ``codec/container`` (``zstd/zarr``, ``avc1/mp4``, ...) or a name of imgstore (``npy``,
        ``png``, ...); `get_supported_formats` lists them.
    imgshape
        (y, x) or (y, x, channel) of every image; colour is BGR.
    imgdtype
        Of the pixels; integers and floats in Zarr formats, uint8 in video.
    chunksize
        Frames in a chunk. By default, a Zarr chunk has about 64 MiB of pixels, a video chunk 10,000
        frames.
    metadata
        Your own mapping: what JSON can hold and dates in Zarr formats, what YAML can hold in the
        others.
    encoding
        How the pixels are to be interpreted (``cv_bayerrg``, ...); they are converted to BGR on
        reading.
    inner_chunks
        Zarr formats: shape of the unit of compression, (frames, y, x[, channel]); by default one
        frame.
    durable
        Zarr formats: what is flushed also survives power loss.
    **options
        What only one format understands; see the page on formats.

    Returns
    -------
    ImgStoreWriter
        A context manager.

    Raises
    ------
    RecordingExistsError
        The location already holds a recording; nothing is overwritten.
    UnsupportedFormatError
        An unknown format or option, or a dtype or encoding that it cannot hold.
    InvalidMetadataError
        Metadata that the format cannot hold.
    RecordingAccessError
        The location cannot be written to.
    """
    layout, spec = _planned(
        format,
        imgshape,
        imgdtype,
        chunksize=chunksize,
        metadata=metadata,
        encoding=encoding,
        inner_chunks=inner_chunks,
        durable=durable,
        **options,
    )
    return ImgStoreWriter(locate(location), layout, spec)


def _planned(
    format: str,
    imgshape: tuple[int, ...],
    imgdtype: DTypeLike,
    *,
    chunksize: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    encoding: str | None = None,
    inner_chunks: tuple[int, ...] | None = None,
    durable: bool = False,
    **options: Any,
) -> tuple[Layout, RecordingSpec]:
    layout = next((layout for layout in layouts() if format in layout.formats), None)
    if layout is None:
        known = ", ".join(get_supported_formats())
        raise UnsupportedFormatError(f"unknown format {format!r}; known are {known}")
    return layout, RecordingSpec.checked(
        format=layout.formats[format],
        requested_format=format,
        imgshape=imgshape,
        imgdtype=imgdtype,
        encoding=encoding,
        chunksize=chunksize,
        metadata=metadata,
        inner_chunks=inner_chunks,
        durable=durable,
        options=options,
    )


def repair(location: object) -> Report:
    """Bring back what an interrupted writer left.

    Parameters
    ----------
    location
        A recording.

    Returns
    -------
    Report
        Of the recording as it is now, as `ImgStore.report` gives it; its problems also say what could
        not be brought back.

    Raises
    ------
    RecordingLockedError
        A writer is at work on it.
    """
    place = locate(location)
    layout = find_layout(place)
    lost = layout.repair(place) if isinstance(layout, Repairs) else ()
    parts = layout.open(place)
    parts.frames.close()
    report = inspected_report(layout, place, parts)
    told = {(problem.kind, problem.chunk) for problem in report.problems}
    # Damage that a repair leaves as it is may be told by both.
    lost = tuple(
        problem
        for problem in lost
        if told.isdisjoint({(problem.kind, problem.chunk), (problem.kind, None)})
    )
    return dataclasses.replace(report, problems=report.problems + lost)


# The names of imgstore.

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
    return open_as(ImgStore, path, basedir=basedir, mode=mode, index=index, **old)


def open_as(
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
    return _open(kind, _one_of(path, basedir), index)


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
    layout, spec = _planned(fmt, imgshape, imgdtype, **kept)
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

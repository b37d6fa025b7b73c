"""Formats and layouts: which there are, and opening and creating recordings with them."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import os
import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from imgstore_zarr.errors import (
    ImgStoreError,
    RecordingExistsError,
    RecordingNotFoundError,
    UnsupportedFormatError,
)
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.layouts import CONVERSION_STATE, Layout, Repairs
from imgstore_zarr.recording import RecordingSpec
from imgstore_zarr.report import Report, inspected_report
from imgstore_zarr.storage import (
    METADATA_FILES,
    Directory,
    Location,
    access_error,
    is_far,
    locate,
    recollecting,
)
from imgstore_zarr.store import ImgStore
from imgstore_zarr.writer import ImgStoreWriter

_Store = TypeVar("_Store", bound=ImgStore)

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
    _check_access(location)
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


def _check_access(location: Location) -> None:
    """Raise why a place elsewhere cannot be read, which layouts only take for no recording."""
    if not is_far(location):
        return
    try:
        location.exists(METADATA_FILES[1])
    except OSError as error:
        raise access_error(location, "reading", error) from error


# A shard lies this deep in a recording of colour: image/c/0/0/0/0.
_DEPTH = 6
_CHUNK = re.compile(r"\d{6}(\.(mp4|mkv|avi|npz|yaml))?")
_VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".m4v", ".webm", ".mpg", ".ts", ".wmv", ".h264")


def is_recording(location: Location) -> bool:
    """Return whether a recording is there that opens; an array in a Zarr recording looks like one."""
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
        if is_recording(Directory(parent)):
            return f"; it lies in the recording {parent}: open that"
    if path.is_file():
        if path.suffix.lower() not in _VIDEOS:
            return "; a recording is a directory"
        return (
            "; a video by itself is no recording: convert(...) makes one of it, with its timestamps as "
            "frame times; VideoFile(...) reads it as it is"
        )
    if location.exists(CONVERSION_STATE):
        return "; a conversion to it is not finished: the same call of convert finishes it"
    chunks = [name for name in location.names() if _CHUNK.fullmatch(name)]
    if not chunks:
        return ""
    return (
        f"; it has chunks ({chunks[0]}), but no metadata.yaml: restore that from a backup, or take that "
        "of another recording of the same format, image shape and dtype"
    )


def open(
    location: object,
    *,
    index: FrameIndex | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> ImgStore:
    """Open a recording for reading; nothing is written to it.

    Parameters
    ----------
    location
        A path, a URL (``s3://``, ``gs://``, ``az://``, ``https://``, ``file://``, ``memory://``), a
        ``metadata.yaml`` or ``zarr.json`` inside a recording, an obstore store, any
        ``zarr.abc.store.Store``, or a ``upath.UPath``.
    index
        The recording's index, from another `ImgStore` of it or from `load_index`; by default it is
        read from the recording.
    storage_options
        Of a URL of object storage: credentials, endpoint and the like; see the page on object storage.

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
    return open_as(ImgStore, location, index, storage_options)


def open_as(
    kind: type[_Store],
    location: object,
    index: FrameIndex | None,
    storage_options: Mapping[str, Any] | None = None,
) -> _Store:
    """Open a recording as a kind of `ImgStore`; see `open`."""
    if index is not None and not isinstance(index, FrameIndex):
        raise TypeError(f"index must be a FrameIndex, not {type(index).__name__}")
    place = locate(location, storage_options)
    with recollecting() as recollection:
        layout = find_layout(place)
        recollection.recognised()
        return kind(place, layout, index)


def create(
    location: object,
    format: str,
    imgshape: tuple[int, ...],
    imgdtype: DTypeLike = np.uint8,
    *,
    mode: Literal["x", "a"] = "x",
    chunksize: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    encoding: str | None = None,
    inner_chunks: tuple[int, ...] | None = None,
    durable: bool = False,
    spool: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> ImgStoreWriter:
    """Begin a recording, or go on with one.

    Parameters
    ----------
    location
        Where: see `open`. Directories above it are made.
    format
        ``codec/container`` (``zstd/zarr``, ``avc1/mp4``, ...) or a name of imgstore (``npy``,
        ``png``, ...); `get_supported_formats` lists them.
    imgshape
        (y, x) or (y, x, channel) of every image; colour is BGR.
    imgdtype
        Of the pixels; integers and floats in Zarr formats, uint8 in video.
    mode
        ``"x"``: there must be no recording yet. ``"a"``: if there is one, it is repaired where that is
        due, and what is added follows its last frame; format, shape, dtype, and everything else that
        is given must be those of the recording. Zarr formats only.
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
    spool
        For places that are no directories: a folder of this machine, with room, in which the recording
        grows until it is uploaded; by default one in the user's cache.
    storage_options
        Of a URL of object storage; see `open`.
    **options
        What only one format understands; see the page on formats.

    Returns
    -------
    ImgStoreWriter
        A context manager.

    Raises
    ------
    RecordingExistsError
        The location already holds a recording, or, in mode ``"a"``, one of another kind; nothing is
        overwritten.
    RecordingLockedError
        Mode ``"a"``: another writer is at work.
    UnsupportedFormatError
        An unknown format or option, or a dtype or encoding that it cannot hold.
    InvalidMetadataError
        Metadata that the format cannot hold.
    RecordingAccessError
        The location cannot be written to.
    """
    layout, spec = planned(
        format,
        imgshape,
        imgdtype,
        chunksize=chunksize,
        metadata=metadata,
        encoding=encoding,
        inner_chunks=inner_chunks,
        durable=durable,
        spool=spool,
        **options,
    )
    place = locate(location, storage_options)
    refuse_spool(place, spec)
    _refuse_conversion(place)
    return ImgStoreWriter(place, layout, spec, append=_is_to_append(place, layout, mode))


def refuse_spool(location: Location, spec: RecordingSpec) -> None:
    """Refuse a spool where none is needed."""
    if spec.spool is not None and not is_far(location):
        raise UnsupportedFormatError(
            f"{location.name} is a directory, in which a recording grows itself; leave spool out"
        )


def _refuse_conversion(location: Location) -> None:
    with contextlib.suppress(PermissionError):  # the layout says so
        if location.exists(CONVERSION_STATE):
            raise RecordingExistsError(
                f"{location.name} holds a conversion that is not finished; finish it by the same call "
                "of convert, or choose another place"
            )


def _is_to_append(location: Location, layout: Layout, mode: str) -> bool:
    if mode not in ("x", "a"):
        raise UnsupportedFormatError(f"mode {mode!r} is not known; give 'x' or 'a'")
    there = [known for known in layouts() if mode == "a" and known.recognises(location)]
    if there and there[0] != layout:
        raise RecordingExistsError(
            f"{location.name} holds a recording of the layout {there[0].name}, to which frames of the "
            f"layout {layout.name} cannot be appended; choose another place"
        )
    return bool(there)


def layout_of(format: str) -> Layout:
    """Return the layout that writes a format.

    Raises
    ------
    UnsupportedFormatError
        There is none.
    """
    layout = next((layout for layout in layouts() if format in layout.formats), None)
    if layout is None:
        known = get_supported_formats()
        meant = [name for name in known if str(format).lower() in name.split("/")]
        meant += difflib.get_close_matches(str(format).lower(), known)
        hint = f"did you mean {' or '.join(dict.fromkeys(meant))}? " if meant else ""
        raise UnsupportedFormatError(
            f"unknown format {format!r}; {hint}known are {', '.join(known)}"
        )
    return layout


def planned(
    format: str,
    imgshape: tuple[int, ...],
    imgdtype: DTypeLike,
    *,
    chunksize: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    encoding: str | None = None,
    inner_chunks: tuple[int, ...] | None = None,
    durable: bool = False,
    spool: str | os.PathLike[str] | None = None,
    **options: Any,
) -> tuple[Layout, RecordingSpec]:
    """Return the layout and the spec that the arguments of `create` ask for."""
    layout = layout_of(format)
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
        spool=spool,
        options=options,
    )


def repair(location: object, *, storage_options: Mapping[str, Any] | None = None) -> Report:
    """Bring back what an interrupted writer left.

    Parameters
    ----------
    location
        A recording.
    storage_options
        Of a URL of object storage; see `open`.

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
    place = locate(location, storage_options)
    layout = find_layout(place)
    try:
        lost = layout.repair(place) if isinstance(layout, Repairs) else ()
    except OSError as error:
        if isinstance(error, ImgStoreError):
            raise
        raise access_error(place, "repairing", error) from error
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

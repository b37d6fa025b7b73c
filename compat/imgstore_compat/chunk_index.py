"""The index of one chunk: ``NNNNNN.npz`` (or ``.yaml``) with frame numbers and times."""

from __future__ import annotations

import io
import lzma
import re
import zipfile
import zlib

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.storage import Location, RequestError, access_error

SUFFIXES = (".npz", ".yaml")

# The npy format, versions 1 and 2, of a one-dimensional array of integers or floats:
# https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
_NPY = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|\x02\x00....)"
    rb"\{'descr': '(?P<descr>[<>|=][iuf][1248])', 'fortran_order': (?:True|False), "
    rb"'shape': \((?P<count>\d+)L?,\), \} *\n",  # Python 2 wrote 10L
    re.DOTALL,
)

# What zipfile and yaml raise on damaged, encrypted or oddly compressed files.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    yaml.YAMLError,
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)

Int64s = NDArray[np.int64]

Columns = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Frame numbers and frame times of a chunk."""


def read_chunk_index(location: Location, stem: str) -> Columns | None:
    """Read the index of a chunk.

    Only the two members that count are read: others may be pickled, and are never unpickled.

    Parameters
    ----------
    location
        The recording.
    stem
        The key of the chunk's index without an ending.

    Returns
    -------
    tuple of ndarray, or None
        int64 frame numbers and float64 frame times; None where there is no index.

    Raises
    ------
    CorruptChunkError
        The index is damaged.
    RecordingAccessError
        It may not be read.
    """
    for suffix in SUFFIXES:
        key = stem + suffix
        try:
            data = location.read(key)
        except FileNotFoundError:
            continue
        except (PermissionError, RequestError) as error:
            raise access_error(location, f"reading {key}", error) from error
        except IsADirectoryError as error:
            raise CorruptChunkError(
                f"{location.name}: {key} should be the index of a chunk, and is a directory"
            ) from error
        try:
            numbers, times = _from_npz(data) if suffix == ".npz" else _from_yaml(data)
            columns = _integers(np.asarray(numbers)), _floats(np.asarray(times))
            if columns[0].ndim != 1 or columns[0].shape != columns[1].shape:
                raise ValueError(f"{columns[0].shape} frame numbers, {columns[1].shape} times")
        except _DAMAGE as error:
            raise CorruptChunkError(
                f"{location.name}: the index {key} is damaged ({type(error).__name__}: {error}); "
                "restore it from a backup"
            ) from error
        return columns
    return None


def _integers(numbers: NDArray[np.generic]) -> NDArray[np.int64]:
    if numbers.dtype.kind == "i":
        return numbers.astype(np.int64)
    values = numbers.tolist()
    whole = [int(value) for value in values]
    if whole != values:
        raise ValueError("the frame numbers are no integers")
    return np.array(whole, np.int64)


def _floats(times: NDArray[np.generic]) -> NDArray[np.float64]:
    if times.dtype.kind not in "iuf":
        raise ValueError("the frame times are no numbers")
    return times.astype(np.float64)


def _from_npz(data: bytes) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    with zipfile.ZipFile(io.BytesIO(data)) as members:
        return _column(members, "frame_number"), _column(members, "frame_time")


def _column(members: zipfile.ZipFile, name: str) -> NDArray[np.generic]:
    # np.load parses the header with ast, which Python 3.11 cannot do in several threads at once
    # ("AST constructor recursion depth mismatch"), and which takes longer than all the rest.
    data = members.read(f"{name}.npy")
    match = _NPY.match(data)
    if match is None:
        raise ValueError(f"{name} is no column of numbers")
    return np.frombuffer(data, match["descr"].decode(), int(match["count"]), match.end())


def _from_yaml(data: bytes) -> tuple[list[int], list[float]]:
    document = yaml.safe_load(data)
    return document["frame_number"], document["frame_time"]


def renumbered_index(location: Location, stem: str, numbers: Int64s, before: str) -> bytes:
    """Return the index of a chunk, as npz, with other frame numbers.

    Parameters
    ----------
    location, stem
        See `read_chunk_index`; the index must be there and whole.
    numbers
        int64 (frame,), the new frame numbers.
    before
        The member that keeps the old ones, unless it is there already. The others are copied, not read.
    """
    try:
        data = location.read(stem + ".npz")
    except FileNotFoundError:
        data = dump_chunk_index(*_from_yaml(location.read(stem + ".yaml")))
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        members = {info.filename: old.read(info) for info in old.infolist()}
        members.setdefault(f"{before}.npy", members["frame_number.npy"])
        column = io.BytesIO()
        np.save(column, numbers)
        members["frame_number.npy"] = column.getvalue()
        for name, member in members.items():
            new.writestr(name, member)
    return file.getvalue()


def dump_chunk_index(numbers: ArrayLike, times: ArrayLike) -> bytes:
    """Return the index of a chunk as npz."""
    file = io.BytesIO()
    np.savez(
        file,
        frame_number=np.array(numbers, np.int64),
        frame_time=np.array(times, np.float64),
    )
    return file.getvalue()

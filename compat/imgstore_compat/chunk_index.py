"""The index of one chunk: ``NNNNNN.npz`` (or ``.yaml``) with frame numbers and times."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Sequence

import numpy as np
import yaml
from numpy.typing import NDArray

from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.storage import Location

SUFFIXES = (".npz", ".yaml")

Columns = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Frame numbers and frame times of a chunk."""


def read_chunk_index(location: Location, stem: str, names: Collection[str]) -> Columns | None:
    """Read the index of a chunk.

    Only the two members that count are read: others may be pickled, and are never unpickled.

    Parameters
    ----------
    location
        The recording.
    stem
        The key of the chunk without an ending.
    names
        What the directory of the index holds.

    Returns
    -------
    tuple of ndarray, or None
        int64 frame numbers and float64 frame times; None where there is no index.

    Raises
    ------
    CorruptChunkError
        The index cannot be read.
    """
    for suffix in SUFFIXES:
        key = stem + suffix
        if key.rsplit("/", 1)[-1] not in names:
            continue
        try:
            data = location.read(key)
            numbers, times = _from_npz(data) if suffix == ".npz" else _from_yaml(data)
            columns = np.asarray(numbers).astype(np.int64), np.asarray(times).astype(np.float64)
            if columns[0].ndim != 1 or columns[0].shape != columns[1].shape:
                raise ValueError(f"{columns[0].shape} frame numbers, {columns[1].shape} times")
        except (zipfile.BadZipFile, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise CorruptChunkError(
                f"{location.name}: the index {key} is damaged ({type(error).__name__}: {error}); "
                "restore it from a backup"
            ) from error
        return columns
    return None


def _from_npz(data: bytes) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as members:
        return members["frame_number"], members["frame_time"]


def _from_yaml(data: bytes) -> tuple[list[int], list[float]]:
    document = yaml.safe_load(data)
    return document["frame_number"], document["frame_time"]


def dump_chunk_index(numbers: Sequence[int], times: Sequence[float]) -> bytes:
    """Return the index of a chunk as npz."""
    file = io.BytesIO()
    np.savez(
        file,
        frame_number=np.array(numbers, np.int64),
        frame_time=np.array(times, np.float64),
    )
    return file.getvalue()

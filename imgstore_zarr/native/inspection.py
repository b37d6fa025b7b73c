"""Looking at every shard of a recording, for its report: whether it is there, and its index is whole."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from imgstore_zarr.layouts import Problem
from imgstore_zarr.native.codecs import CHECKSUM_BYTES, DecodeError
from imgstore_zarr.native.shards import MISSING, ShardEntries, ShardGeometry, decode_entries
from imgstore_zarr.report import counted
from imgstore_zarr.storage import FileBlob, Location, access_error

MAX_PROBLEMS = 1000
"""Chunks that are told of one by one: where all of a week are gone, there are a million."""

# What an inspection takes is the time until an object answers, not its bytes.
_CONCURRENT_READS = 16
_MEMORY = 128 * 2**20
_BATCH = 1024


def inspect_shards(
    location: Location, geometry: ShardGeometry, frame_count: int
) -> tuple[Problem, ...]:
    """Return a problem per chunk that is missing or damaged, by one read at the end of each shard.

    No pixels are read, so that a flipped bit in them is not seen.

    Parameters
    ----------
    location
        The recording.
    geometry
        Its shards.
    frame_count
        Frames that are committed.

    Returns
    -------
    tuple of Problem
        The first `MAX_PROBLEMS`, and one that counts the others.
    """
    problems: list[Problem] = []
    more = 0
    for problem in _problems(location, geometry, frame_count):
        if len(problems) < MAX_PROBLEMS:
            problems.append(problem)
        else:
            more += 1
    if more:
        rest = counted(more, "more chunk")
        what = f"{location.name}: {rest} missing or damaged; restore them from a backup"
        problems.append(Problem("chunk-damaged", what))
    return tuple(problems)


def _problems(location: Location, geometry: ShardGeometry, frame_count: int) -> Iterator[Problem]:
    def check(chunk: int) -> Problem | None:
        frames = min(geometry.chunksize, frame_count - chunk * geometry.chunksize)
        return _check_shard(location, geometry, chunk, frames)

    chunks = range(-(-frame_count // geometry.chunksize))
    # An index is decoded in about three times its own memory.
    workers = max(1, min(_CONCURRENT_READS, _MEMORY // (3 * geometry.index_bytes)))
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(chunks), _BATCH):
            yield from filter(None, pool.map(check, chunks[start : start + _BATCH]))


def _check_shard(
    location: Location, geometry: ShardGeometry, chunk: int, frames: int
) -> Problem | None:
    key = geometry.key(chunk)
    where = f"{location.name}: chunk {chunk} ({key})"
    try:
        blob = location.open(key)
        footer = blob.tail(geometry.index_bytes)
        size = blob.size if isinstance(blob, FileBlob) else None
    except FileNotFoundError:
        lost = counted(frames, "frame")
        what = f"{where} is missing, so {lost} cannot be read; restore it from a backup"
        return Problem("chunk-missing", what, chunk)
    except PermissionError as error:
        what = str(access_error(location, f"reading {key}", error))
        return Problem("chunk-damaged", what, chunk)
    except OSError as error:
        what = f"{where} cannot be read ({error}); restore it from a backup"
        return Problem("chunk-damaged", what, chunk)
    try:
        _check_entries(decode_entries(footer, geometry), geometry, frames, size)
    except DecodeError as error:
        what = f"{where} is damaged: {error}; restore it from a backup"
        return Problem("chunk-damaged", what, chunk)
    return None


def _check_entries(
    entries: ShardEntries, geometry: ShardGeometry, frames: int, size: int | None
) -> None:
    """Raise DecodeError unless every inner chunk of the frames can lie where the index says."""
    used = entries[: -(-frames // geometry.group_frames) * geometry.tiles]
    missing = np.flatnonzero((used == MISSING).any(axis=1))
    if len(missing):
        raise DecodeError(f"{len(missing)} of its {len(used)} inner chunks are not in it")
    lengths = used[:, 1]
    if geometry.codec.compressor is None:
        wrong = lengths != geometry.inner_bytes + CHECKSUM_BYTES
    else:
        wrong = (lengths <= CHECKSUM_BYTES) | (lengths > geometry.encoded_limit)
    if bool(wrong.any()):
        bad = int(lengths[wrong][0])
        raise DecodeError(f"its index gives {bad} bytes to an inner chunk")
    if size is not None:
        # Lengths are bounded by now, and offsets first: so sums do not overflow.
        room = max(0, size - geometry.index_bytes)
        outside = (used[:, 0] > room) | (used[:, 0] + lengths > room)
        if bool(outside.any()):
            raise DecodeError(
                f"the file is truncated: of {len(used)} inner chunks, "
                f"{np.count_nonzero(outside)} lie beyond its end"
            )

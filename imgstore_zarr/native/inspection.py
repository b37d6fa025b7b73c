"""Looking at the objects of a recording without decoding pixels: what is missing, damaged, left over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from imgstore_zarr.layouts import Problem
from imgstore_zarr.native.codecs import CHECKSUM_BYTES, DecodeError
from imgstore_zarr.native.metadata import (
    COLUMN_CHUNK,
    GROUP_KEY,
    SAMPLED,
    ZarrRecording,
    without_consolidated,
)
from imgstore_zarr.native.open_chunk import BUSY
from imgstore_zarr.native.shards import MISSING, ShardEntries, ShardGeometry, decode_entries
from imgstore_zarr.report import counted
from imgstore_zarr.storage import Directory, FileBlob, Location, access_error

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


def changed_parts(location: Location, recording: ZarrRecording) -> list[Problem]:
    """Return a problem for each part of ``zarr.json`` that is not as it was written."""
    return [
        Problem(
            "metadata-changed",
            f"{location.name}: {part} in zarr.json is not as it was written: another program edited "
            "it, or it is damaged; compare it with a backup",
        )
        for part in recording.changed
    ]


def inspect_documents(location: Location) -> Iterator[Problem]:
    """Compare the ``zarr.json`` of each array with the metadata that the group has of it."""
    group = json.loads(location.read(GROUP_KEY))
    nodes = without_consolidated(group["consolidated_metadata"]["metadata"])
    for name, expected in nodes.items():
        key = f"{name}/{GROUP_KEY}"
        reason = "does not say what the recording's zarr.json says of this array"
        try:
            found = {name: json.loads(location.read(key))}
            if without_consolidated(found) == {name: expected}:
                continue
        except (OSError, ValueError) as error:
            reason = f"cannot be read ({error})"
        yield Problem(
            "metadata-changed",
            f"{location.name}: {key} {reason}, which programs see that open the array alone; "
            "restore it from a backup",
        )


def find_left_over(location: Location, recording: ZarrRecording) -> Iterator[Problem]:
    """Find what no reader looks for, and no writer that is at work will come back to."""
    for key in left_over_keys(location, recording):
        yield Problem(
            "left-over",
            f"{location.name}: {key} belongs to nothing in the recording; move it elsewhere",
        )


def left_over_keys(location: Location, recording: ZarrRecording) -> list[str]:
    """Return the keys of files, and of folders with files, that no reader looks for."""
    count = recording.frame_count
    arrays = dict.fromkeys(recording.columns, -(-count // COLUMN_CHUNK))
    arrays["image"] = -(-count // recording.geometry.chunksize)
    keys = [
        name
        for name in location.names()
        if name == BUSY
        or _is_new(name)
        or (name == "extra" and not recording.extra)
        or (name == SAMPLED and not recording.sampled)
    ]
    for name, chunks in arrays.items():
        keys += [f"{name}/{key}" for key in location.names(name) if _is_new(key)]
        keys += [
            f"{name}/c/{key}"
            for key in location.names(f"{name}/c")
            if _is_new(key) or (key.isdecimal() and int(key) >= chunks)
        ]
    if recording.extra:
        members = {GROUP_KEY, *recording.extra}
        keys += [f"extra/{key}" for key in location.names("extra") if key not in members]
    for group in (key for key in recording.sampled if key.count("/") < 2):
        found = (f"{group}/{key}" for key in location.names(group) if key != GROUP_KEY)
        keys += [key for key in found if key not in recording.sampled]
    # An empty one: a writer was killed between making the folder and moving a file there.
    return [key for key in keys if not _is_empty(location, key)]


def _is_new(name: str) -> bool:
    return name.startswith(".new-")


def _is_empty(location: Location, key: str) -> bool:
    folder = Directory(location.path / key) if location.path else None
    return folder is not None and folder.root.is_dir() and not any(folder.files())

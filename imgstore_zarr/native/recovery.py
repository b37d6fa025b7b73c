"""What a crash left: found again from the journal, checked, and committed."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.layouts import Problem
from imgstore_zarr.lock import take_lock
from imgstore_zarr.native.codecs import CHECKSUM_BYTES, DecodeError, verify
from imgstore_zarr.native.columns import ColumnWriter
from imgstore_zarr.native.extra_columns import write_extra
from imgstore_zarr.native.extra_log import Record, decode_lines, read_log
from imgstore_zarr.native.inspection import changed_parts, left_over_keys
from imgstore_zarr.native.journal import JournalRecord, decode_journal
from imgstore_zarr.native.metadata import GROUP_KEY, ZarrRecording, parse
from imgstore_zarr.native.open_chunk import (
    BUSY,
    INFLIGHT,
    LOCK_KEY,
    SET_ASIDE,
    journal_path,
    move,
    shard_path,
    sync_parents,
    write_all,
)
from imgstore_zarr.native.shards import (
    MISSING,
    ShardGeometry,
    decode_entries,
    empty_entries,
    encode_entries,
)
from imgstore_zarr.native.writer import EXTRA_KEY
from imgstore_zarr.storage import Location

# What writers and repairs make there; anything else is somebody's, and kept.
_OWN_FILES = re.compile(
    r"\d+\.(shard|journal|snapshot|damaged|copy)|lock|extra\.jsonl|zarr\.json|\.new-.*"
)


def repair(location: Location) -> tuple[Problem, ...]:
    """Commit every whole frame that an interrupted writer left; can itself be interrupted.

    Raises
    ------
    RecordingLockedError
        A writer is at work.
    """
    if not location.exists(INFLIGHT):
        return ()
    lock = take_lock(location, LOCK_KEY)
    try:
        if location.path is None:
            _commit_flushed_extra(location)
            return ()
        spool = location.path / INFLIGHT
        recording = parse(location.name, location.read(GROUP_KEY))
        stems = [path.stem for path in spool.glob("*.journal")]
        journals = sorted(int(stem) for stem in stems if stem.isdecimal())
        problems: list[Problem] = []
        count = recording.frame_count
        records: list[JournalRecord] = []
        if journals:
            chunk = journals[-1]
            start = chunk * recording.geometry.chunksize
            written, damaged = decode_journal(journal_path(spool, chunk).read_bytes())
            committed = max(0, count - start)
            whole = _rebuild(location, recording.geometry, spool, chunk, written, committed)
            end = start + len(written) + damaged
            lost = end - max(start + whole, count)
            if lost > 0:
                problems.append(_damaged(location, chunk, end - lost, lost))
            if start + whole > count:
                records, count = written[count - start : whole], start + whole
        if recording.changed:
            # The commit below makes it the truth, so that nobody could tell any more.
            problems += changed_parts(location, recording)
            shutil.copyfile(location.path / GROUP_KEY, spool / GROUP_KEY)
        log = _Log(location, count)
        _commit(location, recording, count, records, log)
        problems += log.problems
        unknown = [path for path in spool.iterdir() if not _OWN_FILES.fullmatch(path.name)]
        _set_aside(location, spool, keep=bool(problems or unknown))
        return tuple(problems)
    finally:
        lock.release()


def _rebuild(
    location: Location,
    geometry: ShardGeometry,
    spool: Path,
    chunk: int,
    records: list[JournalRecord],
    committed: int,
) -> int:
    """Give the open shard its index and move it to its key; return how many frames are whole.

    What is at the key stays where it is needed for frames that are committed already.
    """
    path = shard_path(spool, chunk)
    if not path.exists():
        # The writer, or an earlier repair, had moved it before it was interrupted.
        return min(_published(location, geometry, chunk), len(records))
    data: NDArray[np.uint8] = (
        np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    )
    entries = empty_entries(geometry)
    whole = inner = size = 0
    for record in records:
        if record.offset + record.length > len(data):
            break
        if record.offset == size:
            found = _inner_chunks(geometry, data, record)
            if len(found) != geometry.tiles:
                break
            entries[inner : inner + len(found)] = found
            inner += len(found)
            size += record.length
        whole += 1
    del data
    # A flush also publishes groups that are not full, so that the key may hold more. Frames there that
    # are not committed may be of a recording that was emptied, and not be deleted yet.
    if whole and _frames(geometry, inner) >= committed:
        damaged = spool / f"{chunk}.damaged"
        if whole < len(records) and not damaged.exists():
            # All at once: an interrupted repair must not keep less the second time.
            copy = damaged.with_suffix(".copy")
            shutil.copyfile(path, copy)
            copy.replace(damaged)
        with path.open("r+b", buffering=0) as file:
            file.truncate(size)
            write_all(file.fileno(), encode_entries(entries), size)
            os.fsync(file.fileno())
        move(path, location, geometry.key(chunk))
        sync_parents(location, geometry.key(chunk))
    return whole


def _published(location: Location, geometry: ShardGeometry, chunk: int) -> int:
    """How many frames the shard at the chunk's key has room for; none where there is no whole one."""
    try:
        footer = location.open(geometry.key(chunk)).tail(geometry.index_bytes)
        entries = decode_entries(footer, geometry)
    except (FileNotFoundError, DecodeError):
        return 0
    return _frames(geometry, int(np.count_nonzero(entries[:, 0] != MISSING)))


def _frames(geometry: ShardGeometry, inner: int) -> int:
    """How many frames some inner chunks have room for."""
    return inner // geometry.tiles * geometry.group_frames


def _inner_chunks(
    geometry: ShardGeometry, data: NDArray[np.uint8], record: JournalRecord
) -> list[tuple[int, int]]:
    """Find the whole inner chunks of one group of frames again."""
    found = []
    at, stop = record.offset, record.offset + record.length
    while at < stop:
        length = geometry.codec.encoded_size(data[at:stop], geometry.inner_bytes)
        if length is None:
            break
        encoded = np.ascontiguousarray(data[at : at + length])
        try:
            verify(encoded[:-CHECKSUM_BYTES], encoded[-CHECKSUM_BYTES:])
        except DecodeError:
            break
        found.append((at, length))
        at += length
    return found


class _Log:
    """The extra data that were not committed, as far as they are whole."""

    def __init__(self, location: Location, count: int) -> None:
        self._location = location
        self._count = count
        self.problems: list[Problem] = []

    def __call__(self) -> Iterator[Record]:
        assert self._location.path is not None
        try:
            yield from read_log(self._location.name, self._location.path / EXTRA_KEY, self._count)
        except CorruptChunkError as error:
            self.problems = [Problem("extra-data-damaged", f"{error}, in {SET_ASIDE}")]


def _commit(
    location: Location,
    recording: ZarrRecording,
    count: int,
    records: list[JournalRecord],
    log: _Log,
) -> None:
    before = recording.frame_count
    for name, dtype in recording.columns.items() if records else ():
        time = name == "frame_time"
        added = [record.frame_time if time else record.frame_number for record in records]
        writer = ColumnWriter.resumed(location, name, dtype, before, durable=True)
        writer.extend(np.array(added, dtype))
        writer.write()
    extra: dict[str, Any] = dict(recording.extra)
    if location.exists(EXTRA_KEY):
        if not extra:
            location.delete("extra")  # begun from the same log
        extra = write_extra(location, log, durable=True)
    for key, document in recording.documents(count, extra).items():
        location.write(key, document, durable=True)


def _commit_flushed_extra(location: Location) -> None:
    """Commit the extra data that a writer to another store than a directory had flushed, and left."""
    try:
        lines = location.read(EXTRA_KEY)
    except FileNotFoundError:
        location.delete(INFLIGHT)
        return
    recording = parse(location.name, location.read(GROUP_KEY))

    def records() -> Iterator[Record]:
        for record in decode_lines(location.name, io.BytesIO(lines)):
            if record["frame_index"] < recording.frame_count:
                yield record

    extra = write_extra(location, records, durable=False)
    for key, document in recording.documents(recording.frame_count, extra).items():
        location.write(key, document)
    location.delete(INFLIGHT)


def rewrite_column(
    location: Location, name: str, dtype: np.dtype[Any], values: NDArray[Any]
) -> None:
    """Write a column anew, chunk by chunk."""
    writer = ColumnWriter(location, name, dtype, durable=True)
    writer.extend(values)
    writer.write()


def _damaged(location: Location, chunk: int, position: int, frames: int) -> Problem:
    return Problem(
        "frames-lost",
        f"{location.name}: chunk {chunk} was interrupted and is damaged from position {position} "
        f"on; {frames} frames could not be brought back, what is left of them is in {SET_ASIDE}",
        chunk,
    )


def _set_aside(location: Location, spool: Path, *, keep: bool) -> None:
    """Remove what has been committed; what has not is moved to a folder of its own."""
    root = location.path
    assert root is not None
    recording = parse(location.name, location.read(GROUP_KEY))
    left = [root / key for key in left_over_keys(location, recording) if key != BUSY]
    left += [path for path in root.rglob(".new-*") if SET_ASIDE not in path.parts]
    if keep or left:
        target = root / SET_ASIDE
        target.mkdir(exist_ok=True)
        numbers = [int(path.name) for path in target.iterdir() if path.name.isdecimal()]
        folder = target / f"{max(numbers, default=-1) + 1:03d}"
        if keep:
            # In one step: a journal without its shard would be taken for one that was moved.
            spool.rename(folder)
        else:
            folder.mkdir()
        for path in dict.fromkeys(left):
            if path.exists():  # not with the folder that it was in
                path.rename(folder / path.relative_to(root).as_posix().replace("/", "-"))
    location.delete(BUSY)
    for journal in spool.glob("*.journal"):
        journal.unlink()
    location.delete(INFLIGHT)

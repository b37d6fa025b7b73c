"""What a crash left: found again from the journal, checked, and committed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.layouts import Problem
from imgstore_zarr.native.codecs import CHECKSUM_BYTES, DecodeError, verify
from imgstore_zarr.native.columns import ColumnWriter
from imgstore_zarr.native.committer import EMPTIED, generation_of
from imgstore_zarr.native.extra_columns import write_extra
from imgstore_zarr.native.extra_log import Record, is_thrown_away, read_log
from imgstore_zarr.native.inspection import changed_parts, left_over_keys
from imgstore_zarr.native.journal import Journal, JournalRecord, decode_journal
from imgstore_zarr.native.metadata import GROUP_KEY, ZarrRecording, parse
from imgstore_zarr.native.open_chunk import (
    BUSY,
    INFLIGHT,
    LOCK_KEY,
    SET_ASIDE,
    journal_path,
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
from imgstore_zarr.native.spool import EXTRA, EXTRA_KEY, Spool
from imgstore_zarr.report import counted
from imgstore_zarr.storage import Directory, Location

_EXTRA_STEM = Path(EXTRA).stem

# What writers leave there, when all of it is committed or was thrown away by `empty`. Anything else is
# somebody's, or of a repair that wanted to keep it.
_DISPOSABLE = re.compile(
    r"\d+\.(shard|journal|snapshot|copy)|extra\.(jsonl|new)|\.new-.*|" + f"{EMPTIED}.*"
)


def repair(location: Directory) -> tuple[Problem, ...]:
    """Commit every whole frame that an interrupted writer left; can itself be interrupted.

    Raises
    ------
    RecordingLockedError
        A writer is at work.
    """
    spool = Spool.found(location)
    if spool is None:
        return ()
    try:
        recording = parse(location.name, location.read(GROUP_KEY))
        left = _LeftBehind.found(location, recording, spool.path)
        problems = [*left.problems]
        count = recording.frame_count
        records: list[JournalRecord] = []
        if left.chunk is not None:
            chunk, (_, written, damaged) = left.chunk, left.journal
            start = chunk * recording.geometry.chunksize
            committed = max(0, count - start)
            whole = _rebuild(location, recording.geometry, spool.path, chunk, written, committed)
            end = start + len(written) + damaged
            lost = end - max(start + whole, count)
            if lost > 0:
                problems.append(_damaged(location, chunk, end - lost, lost))
            if start + whole > count:
                records, count = written[count - start : whole], start + whole
        if recording.changed:
            # The commit below makes it the truth, so that nobody could tell any more.
            problems += changed_parts(location, recording)
            shutil.copyfile(location.root / GROUP_KEY, spool.path / GROUP_KEY)
        log = None if _EXTRA_STEM in left.stale else _Log(location, count)
        _commit(location, recording, count, records, log)
        problems += log.problems if log is not None else []
        _set_aside(location, spool, None if problems else left.stale)
        return tuple(problems)
    finally:
        spool.release()


@dataclass(frozen=True)
class _LeftBehind:
    """What an interrupted writer left in the spool.

    Attributes
    ----------
    chunk, journal
        The chunk that was open, and its journal; None where there was none.
    stale
        First parts of the names of files that are of another generation of the recording.
    problems
        Chunks that cannot follow what is committed.
    """

    chunk: int | None
    journal: Journal
    stale: frozenset[str]
    problems: tuple[Problem, ...]

    @classmethod
    def found(cls, location: Directory, recording: ZarrRecording, spool: Path) -> _LeftBehind:
        generation = generation_of(recording)
        stems = [path.stem for path in spool.glob("*.journal")]
        chunks = sorted(int(stem) for stem in stems if stem.isdecimal())
        journals = {c: decode_journal(journal_path(spool, c).read_bytes()) for c in chunks}
        stale = {c for c in chunks if journals[c].generation not in (None, generation)}
        first = recording.frame_count // recording.geometry.chunksize
        beyond = [c for c in chunks if c not in stale and c > first]
        last = max((c for c in chunks if c not in stale and c <= first), default=None)
        names = {str(c) for c in stale}
        log = spool / EXTRA
        with contextlib.suppress(FileNotFoundError), log.open("rb") as lines:
            if is_thrown_away(lines, generation):
                names.add(_EXTRA_STEM)
        return cls(
            last,
            Journal(None, [], 0) if last is None else journals[last],
            frozenset(names),
            tuple(
                _unplaced(location, recording, c, len(journals[c].records) + journals[c].damaged)
                for c in beyond
                if journals[c].records or journals[c].damaged
            ),
        )


def _rebuild(
    location: Directory,
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
        if whole < len(records):
            _keep(path, spool / f"{chunk}.damaged")
        if _published(location, geometry, chunk) > _frames(geometry, inner):
            _keep(location.root / geometry.key(chunk), spool / f"{chunk}.published")
        with path.open("r+b", buffering=0) as file:
            file.truncate(size)
            write_all(file.fileno(), encode_entries(entries), size)
            os.fsync(file.fileno())
        location.take(geometry.key(chunk), path)
        sync_parents(location, geometry.key(chunk))
    return whole


def _keep(file: Path, kept: Path) -> None:
    """Copy a file that is going to be changed or replaced."""
    if not kept.exists():
        # All at once: an interrupted repair must not keep less the second time.
        copy = kept.with_suffix(".copy")
        shutil.copyfile(file, copy)
        copy.replace(kept)


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

    def __init__(self, location: Directory, count: int) -> None:
        self._location = location
        self._count = count
        self.problems: list[Problem] = []

    def __call__(self) -> Iterator[Record]:
        try:
            yield from read_log(self._location.name, self._location.root / EXTRA_KEY, self._count)
        except CorruptChunkError as error:
            self.problems = [Problem("extra-data-damaged", f"{error}, in {SET_ASIDE}")]


def _commit(
    location: Location,
    recording: ZarrRecording,
    count: int,
    records: list[JournalRecord],
    log: _Log | None,
) -> None:
    before = recording.frame_count
    for name, dtype in recording.columns.items() if records else ():
        time = name == "frame_time"
        added = [record.frame_time if time else record.frame_number for record in records]
        writer = ColumnWriter.resumed(location, name, dtype, before, durable=True)
        writer.extend(np.array(added, dtype))
        writer.write()
    extra: dict[str, Any] = dict(recording.extra)
    if log is not None and location.exists(EXTRA_KEY):
        if not extra:
            location.delete("extra")  # begun from the same log
        extra = write_extra(location, log, durable=True)
    for key, document in recording.documents(count, extra).items():
        location.write(key, document, durable=True)


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


def _unplaced(location: Location, recording: ZarrRecording, chunk: int, frames: int) -> Problem:
    return Problem(
        "frames-lost",
        f"{location.name}: chunk {chunk} was being written, but zarr.json counts "
        f"{counted(recording.frame_count, 'frame')}, which do not reach to it; "
        f"{counted(frames, 'frame')} cannot be placed: what is left of them is in {SET_ASIDE}",
        chunk,
    )


def _set_aside(location: Directory, spool: Spool, stale: frozenset[str] | None) -> None:
    """Remove what is committed, and the spool with it; move what is not to a folder of its own.

    Parameters
    ----------
    location, spool
        The recording.
    stale
        First parts of the names of files to keep that would be removed; None to keep all.
    """
    root = location.root
    location.delete(BUSY)
    if stale is not None:
        # Journals first: without its shard one would be taken for that of a shard that was moved.
        for path in sorted(spool.path.iterdir(), key=lambda path: path.suffix != ".journal"):
            if _DISPOSABLE.fullmatch(path.name) and path.stem not in stale:
                location.delete(f"{INFLIGHT}/{path.name}")
    recording = parse(location.name, location.read(GROUP_KEY))
    left = [root / key for key in left_over_keys(location, recording)]
    new = {
        path: path.relative_to(root).parts
        for path in location.files()
        if path.name.startswith(".new-")
    }
    left += [path for path, parts in new.items() if parts[0] not in (SET_ASIDE, INFLIGHT)]
    for path in dict.fromkeys(left):
        if path.exists():  # not with the folder that it was in
            path.rename(spool.path / path.relative_to(root).as_posix().replace("/", "-"))
    if {path.name for path in spool.path.iterdir()} <= {Path(LOCK_KEY).name}:
        spool.remove()
        return
    target = root / SET_ASIDE
    target.mkdir(exist_ok=True)
    numbers = [int(path.name) for path in target.iterdir() if path.name.isdecimal()]
    # In one step, and the last one: by then it is another writer's turn.
    spool.move(target / f"{max(numbers, default=-1) + 1:03d}")

"""The chunk that is being written: a growing shard and its journal, in the recording's spool."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imgstore_zarr.native.codecs import Bytes
from imgstore_zarr.native.journal import (
    RECORD_BYTES,
    JournalRecord,
    encode_header,
    encode_record,
)
from imgstore_zarr.native.pipeline import Encoded, Group
from imgstore_zarr.native.reservation import Reservation
from imgstore_zarr.native.shards import ShardGeometry, empty_entries, encode_entries
from imgstore_zarr.storage import Directory, sync_directory

INFLIGHT = ".inflight"

SET_ASIDE = "set-aside"
"""Where a repair puts what it could not use."""

# Kept free until the chunk is finished: then, coordinates and metadata can be written on a full disk.
_SLACK = 4 * 2**20

LOCK_KEY = f"{INFLIGHT}/lock"
"""What the writer of a recording holds locked."""

BUSY = ".lock"
"""A signpost for scripts of imgstore, which look whether it is there; never read back."""


def shard_path(spool: Path, chunk: int) -> Path:
    """Return where the growing shard of a chunk lies."""
    return spool / f"{chunk}.shard"


def journal_path(spool: Path, chunk: int) -> Path:
    """Return where the journal of a chunk lies."""
    return spool / f"{chunk}.journal"


class OpenChunk:
    """A chunk that frames are appended to.

    Data goes to the shard before its record goes to the journal, each by one system call, so that a
    killed process leaves every frame that has a record whole.

    Parameters
    ----------
    spool
        The directory for the files, on the recording's file system.
    number
        The chunk's number.
    geometry
        How frames are cut into inner chunks.
    generation
        Of the recording; see `generation_of`.
    """

    def __init__(self, spool: Path, number: int, geometry: ShardGeometry, generation: int) -> None:
        self.number = number
        self.frames = 0
        self._moved = False
        self._spool = spool
        self._geometry = geometry
        self._entries = empty_entries(geometry)
        self._inner = 0
        self._size = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._shard = os.open(shard_path(spool, number), flags, 0o666)
        try:
            self._journal = os.open(journal_path(spool, number), flags, 0o666)
        except OSError:
            os.close(self._shard)
            raise
        most = geometry.inner_count * geometry.encoded_limit + geometry.index_bytes
        self._reservation = Reservation(self._shard, most)
        try:
            self._journal_size = write_all(self._journal, [encode_header(generation)], 0)
        except OSError:
            self.release()
            raise

    @property
    def full(self) -> bool:
        """Whether no frame can be added: the chunk is to be finished."""
        return self.frames == self._geometry.chunksize

    def append(self, group: Group) -> None:
        """Append a group that is encoded: a whole one, or the last of the recording.

        What failed can be called again.
        """
        buffers, entries, size = _placed(group.encoded or [], self._size)
        self._reservation.ensure(size + self._geometry.index_bytes + _SLACK)
        write_all(self._shard, buffers, self._size)
        records = [
            JournalRecord(self._size, size - self._size, number, time)
            for number, time in group.metadata
        ]
        write_all(self._journal, [b"".join(map(encode_record, records))], self._journal_size)
        # Only now do the frames count: after a failed write the next one goes to the same place.
        self._entries[self._inner : self._inner + len(entries)] = entries
        self._inner += len(entries)
        self._size = size
        self._journal_size += RECORD_BYTES * len(records)
        self.frames += len(records)

    def snapshot(self, location: Directory, pending: Encoded, *, durable: bool) -> None:
        """Publish a copy of what the chunk holds so far, while it stays open.

        A copy, since the index must be at the end of what readers see and the shard goes on growing.

        Parameters
        ----------
        location
            The recording.
        pending
            A group that is not yet full, encoded; empty where there is none.
        durable
            Whether the copy must survive power loss.
        """
        copy = self._spool / f"{self.number}.snapshot"
        shutil.copyfile(shard_path(self._spool, self.number), copy)
        descriptor = os.open(copy, os.O_RDWR | os.O_CLOEXEC)
        try:
            buffers, entries, size = _placed(pending, self._size)
            known = self._entries.copy()
            if entries:
                known[self._inner : self._inner + len(entries)] = entries
            write_all(descriptor, [*buffers, *encode_entries(known)], self._size)
            os.ftruncate(descriptor, size + self._geometry.index_bytes)
            if durable:
                os.fsync(self._shard)
                os.fsync(self._journal)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        key = self._geometry.key(self.number)
        location.take(key, copy)
        if durable:
            sync_parents(location, key)

    def finish(self, location: Directory, *, durable: bool) -> None:
        """Write the index and move the shard to its key. The journal stays until `discard`.

        What failed can be called again.
        """
        key = self._geometry.key(self.number)
        if not self._is_published(location, key):
            write_all(self._shard, encode_entries(self._entries), self._size)
            os.ftruncate(self._shard, self._size + self._geometry.index_bytes)
            if durable:
                os.fsync(self._shard)
                os.fsync(self._journal)
            location.take(key, shard_path(self._spool, self.number))
            self._moved = True
        if durable:
            sync_parents(location, key)

    def _is_published(self, location: Directory, key: str) -> bool:
        """Whether the file has been moved, and so is what readers see."""
        if self._moved:
            return True
        try:
            return os.path.samestat(os.fstat(self._shard), (location.root / key).stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Close the files; what is in the spool stays."""
        for descriptor in (self._shard, self._journal):
            os.close(descriptor)

    def discard(self) -> None:
        """Close and remove what is left in the spool: the chunk is committed, or not wanted."""
        self.release()
        # The journal first: without its shard it would be taken for one whose shard was moved.
        journal_path(self._spool, self.number).unlink(missing_ok=True)
        shard_path(self._spool, self.number).unlink(missing_ok=True)


def _placed(encoded: Encoded, start: int) -> tuple[list[Bytes | bytes], list[tuple[int, int]], int]:
    """The buffers of inner chunks, the place and length of each, and where the last one ends."""
    buffers: list[Bytes | bytes] = []
    entries = []
    for parts in encoded:
        length = sum(len(part) for part in parts)
        entries.append((start, length))
        buffers.extend(parts)
        start += length
    return buffers, entries, start


def sync_parents(location: Directory, key: str) -> None:
    """Make the name of an object survive power loss, up to the recording's own directory."""
    for parent in Path(key).parents:
        sync_directory(location.root / parent)


def write_all(descriptor: int, buffers: Sequence[Any], offset: int) -> int:
    """Write all buffers at an offset; return how many bytes that is."""
    total = 0
    for i in range(0, len(buffers), 1024):
        batch: list[Any] = [memoryview(buffer) for buffer in buffers[i : i + 1024]]
        while batch:
            written = os.pwritev(descriptor, batch, offset + total)
            total += written
            while batch and written >= len(batch[0]):
                written -= len(batch.pop(0))
            if batch and written:
                batch[0] = batch[0][written:]
    return total

"""Committer: stores encoded frames chunk by chunk, in an order that a crash cannot break."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from imgstore_zarr.index import FrameIndex
from imgstore_zarr.native.columns import ColumnWriter
from imgstore_zarr.native.metadata import ATTRIBUTE, GENERATION, SAMPLED, ZarrRecording
from imgstore_zarr.native.open_chunk import INFLIGHT, OpenChunk
from imgstore_zarr.native.pipeline import Encoded, Group
from imgstore_zarr.native.reader import ZarrFrames
from imgstore_zarr.storage import Directory

EMPTIED = "emptied-"
"""What folders are called in which a writer puts what is thrown away, until it is deleted."""


def generation_of(recording: ZarrRecording) -> int:
    """Return how often a recording was emptied or renumbered."""
    generation = recording.attributes[ATTRIBUTE].get(GENERATION, 0)
    return generation if isinstance(generation, int) and 0 <= generation < 2**63 else 0


class Committer:
    """What a recording holds so far, and how more is added; for one thread at a time.

    First a chunk is moved to its key, then the coordinates are written, then the shapes: until these
    are there, no reader looks for what was written before. Whatever raises can be called again.

    Parameters
    ----------
    location
        The recording.
    recording
        What its ``zarr.json`` says.
    spool
        Where chunks grow.
    durable
        Whether what is committed must also survive power loss.

    Attributes
    ----------
    extra
        Per column of extra data the metadata of its array.
    """

    def __init__(
        self, location: Directory, recording: ZarrRecording, spool: Path, *, durable: bool
    ) -> None:
        self._location = location
        self._recording = recording
        self._spool = spool
        self._durable = durable
        self._begin()
        self.extra: Mapping[str, Mapping[str, Any]] = recording.extra

    def _begin(self) -> None:
        self._count = 0
        self._committed = -1
        self._chunk: OpenChunk | None = None
        self._columns = {
            name: ColumnWriter(self._location, name, dtype, durable=self._durable)
            for name, dtype in self._recording.columns.items()
        }

    def resume(self, index: FrameIndex, frames: ZarrFrames) -> Group | None:
        """Go on after the frames that are there; the last chunk, if it is not full, is opened again.

        Parameters
        ----------
        index, frames
            Of the recording.

        Returns
        -------
        Group or None
            The last frames, where they do not fill their inner chunks.
        """
        geometry, count = self._recording.geometry, len(index)
        self._columns = {
            name: ColumnWriter.resumed(
                self._location, name, column.dtype, count, durable=self._durable
            )
            for name, column in self._columns.items()
        }
        self._committed = count
        chunk, left = divmod(count, geometry.chunksize)
        self._count = count - left
        columns = index.frame_number[self._count :], index.frame_time[self._count :]
        metadata = [*zip(*(column.tolist() for column in columns), strict=True)]
        size = geometry.group_frames
        encoded = frames.iter_encoded(chunk, left // size)
        for number, inner_chunks in enumerate(encoded):
            group = Group(geometry.new_group(), metadata[number * size : (number + 1) * size])
            group.encoded = [[data] for data in inner_chunks]
            self.append(group)
        if not left % size:
            return None
        pending = Group(geometry.new_group(), metadata[left - left % size :])
        frames.read(np.arange(count - len(pending), count), out=pending.filled)
        return pending

    @property
    def generation(self) -> int:
        """Of the recording; see `generation_of`."""
        return generation_of(self._recording)

    @property
    def count(self) -> int:
        """Frames that are stored, in chunks or in the journal of the open one."""
        return self._count

    def append(self, group: Group) -> None:
        """Store the frames of a group, and commit its chunk when that is full."""
        if self._chunk is not None and self._chunk.full:
            self.finish_chunk()
        chunk = self._open_chunk()
        self._note(group)
        chunk.append(group)
        self._count += len(group)
        if chunk.full:
            # The frames are safe in the journal: what cannot be finished now is tried again by the next
            # call, which raises.
            with contextlib.suppress(OSError):
                self.finish_chunk()

    def _open_chunk(self) -> OpenChunk:
        if self._chunk is None:
            geometry = self._recording.geometry
            number = self._count // geometry.chunksize
            self._chunk = OpenChunk(self._spool, number, geometry, self.generation)
        return self._chunk

    def _note(self, group: Group) -> None:
        """Add to the coordinates what they do not have yet; a flush or a failed call came before."""
        numbers, times = zip(*group.metadata, strict=True)
        for name, column in self._columns.items():
            values = times if name == "frame_time" else numbers
            column.extend(np.array(values[column.count - self._count :], column.dtype))

    def finish_chunk(self) -> None:
        """Commit the open chunk, full or not."""
        if self._chunk is None:
            return
        self._chunk.finish(self._location, durable=self._durable)
        self.commit()
        chunk, self._chunk = self._chunk, None
        chunk.discard()

    def flush(self, pending: Group | None, encoded: Encoded) -> None:
        """Commit everything so far, and the frames of a group that is not yet full."""
        if self._chunk is not None and self._chunk.full:
            self.finish_chunk()
        count = self._count + (0 if pending is None else len(pending))
        if count == self._committed:
            return
        if pending is not None:
            self._open_chunk()
            self._note(pending)
        if self._chunk is not None:
            self._chunk.snapshot(self._location, encoded, durable=self._durable)
        self._commit(count)

    def commit(self) -> None:
        """Make what has been published count: coordinates, shapes, commit record."""
        self._commit(self._count)

    def drop_extra(self) -> None:
        """Remove the columns of the extra data; their records are in the log again."""
        self._commit_without_extra(self._committed, self._recording)
        self._location.delete("extra")

    def _commit_without_extra(self, count: int, recording: ZarrRecording) -> None:
        before = self.extra, self._recording
        self.extra, self._recording = {}, recording
        try:
            self._commit(count)
        except BaseException:
            self.extra, self._recording = before
            raise

    def _commit(self, count: int) -> None:
        for column in self._columns.values():
            column.write()
        for key, document in self._recording.documents(count, self.extra).items():
            self._location.write(key, document, durable=self._durable)
        self._committed = count

    def empty(self) -> list[str]:
        """Throw away every frame and all extra data; after an error everything is as it was.

        Ctrl-C must be deferred while this runs.

        Returns
        -------
        list of str
            Keys that belong to nothing any more, and are to be deleted before anything is added.
        """
        # First the commit record: from then on nobody looks at what is deleted.
        self._commit_without_extra(0, replace(self._recording.emptied(), sampled={}))
        chunk = self._chunk
        self._begin()
        self._committed = 0
        if chunk is not None:
            with contextlib.suppress(OSError):  # its journal says that it belongs to nothing
                chunk.discard()
        return self._moved_aside(
            ["image/c", "extra", SAMPLED, *(f"{name}/c" for name in self._columns)]
        )

    def _moved_aside(self, keys: list[str]) -> list[str]:
        """Move trees into the spool, which is quick, and is left there by nobody; return their keys."""
        root = self._location.root
        left = []
        try:
            aside = Path(tempfile.mkdtemp(dir=self._spool, prefix=EMPTIED))
            left.append(f"{INFLIGHT}/{aside.name}")
        except OSError:
            return keys
        for key in keys:
            try:
                (root / key).rename(aside / key.replace("/", "-"))
            except FileNotFoundError:
                pass
            except OSError:
                left.append(key)
        return left

    def release(self) -> None:
        """Close the files of the open chunk, and leave them where they are."""
        if self._chunk is not None:
            self._chunk.release()
            self._chunk = None

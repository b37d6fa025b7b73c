"""Mirror: a recording in a spool, and what is committed there on its way to a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imgstore_zarr.interruption import Deferred
from imgstore_zarr.native.commits import CommitQueue
from imgstore_zarr.native.metadata import GROUP_KEY
from imgstore_zarr.native.open_chunk import BUSY, INFLIGHT, SET_ASIDE
from imgstore_zarr.native.spool import EXTRA_KEY
from imgstore_zarr.storage import METADATA_FILES, Blob, Directory, Location

if TYPE_CHECKING:
    from typing_extensions import Buffer

_LOCAL = (INFLIGHT, SET_ASIDE, BUSY)


@dataclass(frozen=True)
class Mirror(Directory):
    """The directory in which a writer works whose recording goes elsewhere.

    What was there before this writer, and is not in the directory, is read from where it goes.

    Attributes
    ----------
    remote
        Where the recording goes.
    queue
        Gets what is written, for uploading.
    """

    remote: Location
    queue: CommitQueue

    @property
    def name(self) -> str:
        """Where the recording goes, and by way of which folder."""
        return f"{self.remote.name} (by way of {self.root.parent})"

    def read(self, key: str) -> bytes:
        """Return a file's contents, or those of the object."""
        try:
            return super().read(key)
        except FileNotFoundError:
            if _is_local(key):
                raise
            return self.remote.read(key)

    def open(self, key: str) -> Blob:  # type: ignore[override]
        """Open a file, or the object."""
        try:
            return super().open(key)
        except FileNotFoundError:
            if _is_local(key):
                raise
            return self.remote.open(key)

    def write(self, key: str, data: Buffer, *, durable: bool = False) -> None:
        """Write a file, and have it uploaded with the next commit, which is the group's zarr.json."""
        if _is_local(key):
            super().write(key, data, durable=durable)
            return
        # Ctrl-C in between would leave a state that is committed here alone.
        with Deferred():
            super().write(key, data, durable=durable)
            if key == GROUP_KEY:
                self._note_log()
                self.queue.commit_record(bytes(data))
            elif key in METADATA_FILES:
                self.queue.note_document(key, bytes(data))
                self.queue.commit()
            elif key.endswith(f"/{GROUP_KEY}"):
                self.queue.note_document(key, bytes(data))
            else:
                self.queue.note(key, memoryview(data).nbytes)

    def _note_log(self) -> None:
        # Where columns are dropped for the log, readers must find that.
        if not self.queue.has_log and (self.root / EXTRA_KEY).exists():
            self.queue.note(EXTRA_KEY, 0)

    def take(self, key: str, file: Path) -> None:
        """Move a file to a key, and have it uploaded with the next commit."""
        with Deferred():
            super().take(key, file)
            self.queue.note(key, (self.root / key).stat().st_size)

    def delete(self, key: str) -> None:
        """Remove a file or a tree, here and there."""
        super().delete(key)
        if not _is_local(key):
            self.queue.delete(key)


def _is_local(key: str) -> bool:
    return key.split("/")[0] in _LOCAL

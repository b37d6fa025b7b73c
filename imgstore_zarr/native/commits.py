"""Commits: what a store is still to get of a recording, in the order in which readers may see it."""

from __future__ import annotations

import json
import shutil
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgstore_zarr.bells import Bells
from imgstore_zarr.interruption import Deferred
from imgstore_zarr.native.metadata import ATTRIBUTE, GENERATION, GROUP_KEY, SAMPLED
from imgstore_zarr.native.spool import EXTRA_KEY
from imgstore_zarr.storage import METADATA_FILES

SPOOL_BYTES = 64 * 2**30
"""How much may wait to be uploaded before a writer is made to wait: at 100 MB/s, 11 minutes."""

FREE_BYTES = 2 * 2**30
"""How much of the spool's disk stays free for others while anything waits to be uploaded."""

# What is uploaded between two states that readers see, where a store is slower than the writer.
_BATCH_BYTES = 256 * 2**20


@dataclass
class Commit:
    """What leads from one state that readers see to the next.

    Attributes
    ----------
    files
        Keys of data that are to be uploaded, which nobody looks for before; and their sizes in bytes.
    documents
        Then the metadata, that of the group last.
    deleted
        Then, keys below which everything is to be deleted.
    number
        How many were put until then.
    is_begun
        Whether it is being uploaded.
    is_cancelled
        Whether what it would show was thrown away.
    is_restart
        Whether it begins with nothing.
    """

    files: dict[str, int] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    deleted: tuple[str, ...] = ()
    number: int = 0
    is_begun: bool = False
    is_cancelled: bool = False
    is_restart: bool = False

    @property
    def size(self) -> int:
        """Bytes of data that are not uploaded yet."""
        return sum(self.files.values())

    def add(self, later: Commit) -> None:
        """Go on to the state of a later commit at once."""
        self.files |= later.files
        self.documents |= later.documents
        self.deleted = later.deleted
        self.number = later.number

    def forget(self, key: str) -> None:
        """Upload nothing of what is at a key, or below it."""
        for known in (self.files, self.documents):
            for name in [name for name in known if name == key or name.startswith(f"{key}/")]:
                del known[name]


class CommitQueue:
    """Collects what is written to a spool, commit by commit, for one who uploads it.

    Parameters
    ----------
    root
        The recording in the spool.
    generation
        Of the recording; see `generation_of`.
    at_end
        Whether everything is one commit, at the end: where nothing can be replaced or deleted.

    Attributes
    ----------
    lock, bells
        Of everything here, and rung at each change.
    is_crowded
        Whether a writer had better wait.
    added
        How many commits were put so far.
    has_log
        Whether the log of extra data was put.
    """

    def __init__(self, root: Path, generation: int, *, at_end: bool = False) -> None:
        self.lock = threading.Lock()
        self.bells = Bells()
        self.is_crowded = False
        self.added = 0
        self.has_log = False
        self._root = root
        self._generation = generation
        self._at_end = at_end
        self._next = Commit()
        self._commits: deque[Commit] = deque()

    def note(self, key: str, size: int) -> None:
        """Have a file uploaded with the next commit."""
        self._next.files[key] = size
        self.has_log = self.has_log or key == EXTRA_KEY

    def note_document(self, key: str, document: bytes) -> None:
        """Have metadata written by the next commit."""
        self._next.documents[key] = document

    def commit(self) -> None:
        """Put what was noted."""
        commit, self._next = self._next, Commit()
        self.put(commit)

    def commit_record(self, record: bytes) -> None:
        """Put what was noted, and the ``zarr.json`` of the group, which makes it count."""
        group = json.loads(record)
        generation = group["attributes"][ATTRIBUTE].get(GENERATION, 0)
        self.note_document(GROUP_KEY, record)
        if generation == self._generation:
            self.commit()
            return
        self._generation = generation
        commit, self._next = self._next, Commit()
        self.restart(commit.documents)

    def restart(self, documents: dict[str, bytes]) -> None:
        """Forget what was put: the documents are of another generation, which begins with nothing."""
        deleted = [f"{key}/c" for key in _arrays(documents)] + ["extra", SAMPLED, EXTRA_KEY]
        with Deferred(), self.lock:
            if self._at_end:
                deleted = []
                documents = self._signpost() | documents
            for commit in self._commits:
                commit.is_cancelled = True
            self._commits.clear()
            self.has_log = False
            self._add(Commit({}, documents, tuple(deleted), is_restart=True))

    def _signpost(self) -> dict[str, bytes]:
        """What belongs to the recording whatever it holds, where it was not written yet."""
        documents = [commit.documents for commit in self._commits]
        return {key: one[key] for one in documents for key in METADATA_FILES if key in one}

    def delete(self, key: str) -> None:
        """Have everything at a key, or below it, deleted after what was put so far."""
        self._next.forget(key)
        if self._at_end:
            for commit in self._commits:
                commit.forget(key)
        else:
            self.put(Commit(deleted=(key,)))

    def put(self, commit: Commit) -> None:
        """Have a commit uploaded, behind those that were put before."""
        with Deferred(), self.lock:
            last = self._commits[-1] if self._commits else None
            size = commit.size + (0 if last is None else last.size)
            if last is None or last.is_begun or last.deleted:
                self._add(commit)
            elif self._at_end or size <= _BATCH_BYTES or commit.files.keys() >= last.files.keys():
                commit.number = self.added = self.added + 1
                last.add(commit)
                self._changed()
            else:
                self._add(commit)

    def _add(self, commit: Commit) -> None:
        commit.number = self.added = self.added + 1
        self._commits.append(commit)
        self._changed()

    def _changed(self) -> None:
        waiting = sum(commit.size for commit in self._commits)
        full = waiting > SPOOL_BYTES or (
            waiting > 0 and shutil.disk_usage(self._root).free < FREE_BYTES
        )
        self.is_crowded = full and not self._at_end
        self.bells.ring()

    def first(self) -> Commit | None:
        """Return what is to be uploaded first; None where there is nothing. With the lock held."""
        commit = self._commits[0] if self._commits else None
        if commit is not None:
            commit.is_begun = True
        return commit

    def note_sent(self, commit: Commit, keys: list[str]) -> None:
        """Note that some files of a commit are uploaded."""
        with self.lock:
            for key in keys:
                commit.files.pop(key, None)
            self._changed()

    def remove(self, commit: Commit) -> None:
        """Remove a commit, which is uploaded, or cancelled. With the lock held."""
        if self._commits and self._commits[0] is commit:
            self._commits.popleft()
        self._changed()


def _arrays(documents: dict[str, Any]) -> list[str]:
    """Names of the image and of the coordinates."""
    keys = [key.split("/") for key in documents]
    return [parts[0] for parts in keys if len(parts) == 2 and parts[0] not in ("extra", SAMPLED)]

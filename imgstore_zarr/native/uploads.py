"""Uploads: a thread that brings to a store what a recording in a spool has committed."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from imgstore_zarr.errors import ImgStoreError, RecordingLockedError
from imgstore_zarr.interruption import Deferred
from imgstore_zarr.lock import StoreLock
from imgstore_zarr.native.commits import Commit, CommitQueue
from imgstore_zarr.native.metadata import COLUMNS, GROUP_KEY, ORIGINAL_NUMBERS, parse
from imgstore_zarr.native.spool import EXTRA_KEY
from imgstore_zarr.report import counted
from imgstore_zarr.storage import (
    Directory,
    GuardedObject,
    IcechunkBranch,
    Location,
    ObjectStore,
    RequestError,
    access_error,
    each,
)

_log = logging.getLogger("imgstore_zarr")

PATIENCE = 300.0
"""How long, in seconds, uploading may fail before a call raises that; it is tried again all the time."""

_PAUSES = (0.1, 10.0)

_AGAIN = "what is not uploaded is kept in {}: the next call tries again"

# Each takes up to 40 MiB of memory.
_SHARDS_AT_ONCE = 4

_COORDINATES = (*COLUMNS, ORIGINAL_NUMBERS)


def put_file(location: Location, key: str, file: Path) -> None:
    """Put the contents of a file; in object storage part by part, elsewhere all at once."""
    if isinstance(location, ObjectStore):
        location.upload(key, file)
    else:
        location.write(key, file.read_bytes())


class Uploads:
    """Uploads commits, one after the other: shards, coordinates, extra data, metadata, the record.

    What fails is tried again until it is uploaded, or until `stop`.

    Parameters
    ----------
    location
        Where the recording goes.
    local
        The recording in the spool. Shards that are uploaded are removed from it, but for the last one.
    queue
        What is to be uploaded.
    lock
        Is confirmed before anything is written; None where there is none.
    record
        The ``zarr.json`` of the group.
    is_held
        Whether to wait for `let_go` before anything is uploaded.
    """

    def __init__(
        self,
        location: Location,
        local: Directory,
        queue: CommitQueue,
        lock: StoreLock | None,
        record: GuardedObject,
        *,
        is_held: bool = False,
    ) -> None:
        self._location = location
        self._local = local
        self._queue = queue
        self._lock = lock
        self._record = record
        self._is_held = is_held
        self._done = 0
        self._sent: list[str] = []
        self._error: Exception | None = None
        self._failing_since = 0.0
        self._attempts = 0
        self._was_told = False
        self._is_stopping = False
        self._again = threading.Event()
        self._is_running = True
        threading.Thread(target=self._work, name="imgstore-uploads", daemon=True).start()

    @property
    def was_told(self) -> bool:
        """Whether a call has raised what keeps failing."""
        return self._was_told

    def wait_for_room(self) -> None:
        """Wait while too much waits to be uploaded.

        Raises
        ------
        RecordingAccessError, RecordingLockedError
            Uploading fails; once, unless there is no room for more.
        """
        if self._error is not None and not self._was_told and self._is_overdue(PATIENCE):
            self._raise()
        if self._queue.is_crowded:
            self._wait_until(lambda: not self._queue.is_crowded, PATIENCE)

    def wait(self, patience: float | None = None, otherwise: str = _AGAIN) -> None:
        """Wait until all that was put before is in the store.

        Parameters
        ----------
        patience
            How long it may fail, in seconds; None is `PATIENCE`.
        otherwise
            What then becomes of what is not uploaded, for the error.

        Raises
        ------
        RecordingAccessError, RecordingLockedError
            Uploading fails, and has just been tried again.
        """
        number = self._queue.added
        patience = PATIENCE if patience is None else patience
        self._wait_until(lambda: self._done >= number, patience, otherwise)

    def let_go(self) -> None:
        """Begin to upload."""
        with Deferred(), self._queue.lock:
            self._is_held = False
            self._queue.bells.ring()

    def stop(self) -> None:
        """End the thread, after the attempt that it is at. Ctrl-C may end the waiting."""
        with Deferred(), self._queue.lock:
            self._is_stopping = True
            self._queue.bells.ring()
        self._try_now()
        while True:
            with Deferred(), self._queue.lock:
                if not self._is_running:
                    return
                bell = self._queue.bells.ask()
            bell.acquire()

    def _wait_until(
        self, reached: Callable[[], bool], patience: float, otherwise: str = _AGAIN
    ) -> None:
        before = self._attempts
        self._try_now()
        while True:
            with Deferred(), self._queue.lock:
                if reached():
                    return
                failed = self._error is not None and self._attempts > before
                ended = not self._is_running
                bell = self._queue.bells.ask()
            if ended or (failed and self._is_overdue(patience)):
                self._raise(otherwise)
            bell.acquire()

    def _try_now(self) -> None:
        with Deferred():
            self._again.set()

    def _is_overdue(self, patience: float) -> bool:
        # Others than outages do not pass by waiting.
        lasting = isinstance(self._error, ImgStoreError | PermissionError)
        return lasting or time.monotonic() - self._failing_since >= patience

    def _raise(self, otherwise: str = _AGAIN) -> NoReturn:
        error = self._error
        self._was_told = True
        what = otherwise.format(self._local.root.parent)
        if isinstance(error, RecordingLockedError):
            raise RecordingLockedError(f"{error}; {what}") from error
        if isinstance(error, OSError):
            raise access_error(self._location, "uploading", error, what) from error
        raise ImgStoreError(
            f"{self._location.name}: uploading failed ({error!r}); {what}"
        ) from error

    def _work(self) -> None:
        pause = _PAUSES[0]
        while (commit := self._next()) is not None:
            error = self._attempt(commit)
            if error is None:
                pause = _PAUSES[0]
                continue
            self._again.wait(pause)
            pause = min(2 * pause, _PAUSES[1])

    def _next(self) -> Commit | None:
        """Wait for a commit; None at the end."""
        while True:
            with self._queue.lock:
                if self._is_stopping:
                    self._is_running = False
                    self._queue.bells.ring()
                    return None
                commit = None if self._is_held else self._queue.first()
                if commit is not None:
                    return commit
                bell = self._queue.bells.ask()
            bell.acquire()

    def _attempt(self, commit: Commit) -> Exception | None:
        began = time.monotonic()
        self._again.clear()
        failure = None
        try:
            self._send(commit)
        except Exception as error:  # noqa: BLE001 - whatever it is, the writer must be told
            failure = error
        with self._queue.lock:
            if failure is None:
                self._done = commit.number
                self._queue.remove(commit)
                self._was_told = False
            if failure is not None and self._error is None:
                self._failing_since = began
                _log.warning("%s: uploading fails, and goes on: %s", self._location.name, failure)
            elif failure is None and self._error is not None:
                _log.warning("%s: uploading works again", self._location.name)
            self._error = failure
            self._attempts += 1
            self._queue.bells.ring()
        return failure

    def _send(self, commit: Commit) -> None:
        if commit.is_restart:
            self._sent.clear()
        self._confirm()
        if isinstance(self._location, IcechunkBranch):
            # It takes no chunk outside of the shape, and shows nothing before its commit.
            steps = [self._delete, self._send_documents, self._send_data, self._send_record]
        else:
            steps = [self._send_data, self._send_documents, self._send_record, self._delete]
        for step in steps:
            step(commit)
            if commit.is_cancelled:
                return
        if isinstance(self._location, IcechunkBranch):
            with self._told_as_locked():
                self._location.commit(self._message(commit))
        self._remove_sent(commit)

    def _message(self, commit: Commit) -> str:
        """What the history of a repository says of a commit."""
        if GROUP_KEY not in commit.documents:
            return "extra data"
        recording = parse(self._location.name, commit.documents[GROUP_KEY])
        return counted(recording.frame_count, "frame")

    def _send_record(self, commit: Commit) -> None:
        if GROUP_KEY in commit.documents:
            with self._told_as_locked():
                self._record.write(commit.documents[GROUP_KEY])

    def _delete(self, commit: Commit) -> None:
        for key in commit.deleted:
            self._location.delete(key)

    def _send_data(self, commit: Commit) -> None:
        keys = list(commit.files)
        shards = [key for key in keys if key.startswith("image/")]
        coordinates = [key for key in keys if key.split("/")[0] in _COORDINATES]
        others = [key for key in keys if key not in {*shards, *coordinates}]
        for group in (shards, coordinates, others):
            self._send_files(commit, group)

    def _send_documents(self, commit: Commit) -> None:
        documents = {key: text for key, text in commit.documents.items() if key != GROUP_KEY}
        _together(lambda key: self._location.write(key, documents[key]), [*documents])

    def _send_files(self, commit: Commit, keys: list[str]) -> None:
        at_once = _SHARDS_AT_ONCE if isinstance(self._location, ObjectStore) else 1
        for start in range(0, len(keys), at_once):
            if commit.is_cancelled:
                return
            batch = keys[start : start + at_once]
            _together(self._send_file, batch)
            self._sent += [key for key in batch if key.startswith("image/")]
            self._queue.note_sent(commit, batch)

    def _send_file(self, key: str) -> None:
        file = self._local.root / key
        if file.exists():
            put_file(self._location, key, file)
        elif key != EXTRA_KEY:  # what was in the log is in columns by now
            raise ImgStoreError(f"{self._local.name} has lost {key}, which was not uploaded yet")

    def _confirm(self) -> None:
        """Make sure that nobody else writes: what he puts is not to be overwritten."""
        if self._lock is not None and not self._lock.confirm():
            with self._told_as_locked():
                self._record.confirm()
            self._lock.take_again()

    @contextlib.contextmanager
    def _told_as_locked(self) -> Iterator[None]:
        try:
            yield
        except RequestError as error:
            if error.errno != errno.ESTALE:
                raise
            raise RecordingLockedError(
                f"{self._location.name} was written to by another writer ({error.strerror})"
            ) from error

    def _remove_sent(self, commit: Commit) -> None:
        """Remove from the spool what is in the store and will not change there any more."""
        with self._queue.lock:
            if commit.is_cancelled:
                return  # others have these keys by now
            sent = sorted({*self._sent}, key=_chunk_of)
            for key in sent[:-1]:
                with contextlib.suppress(OSError):
                    self._local.delete(f"image/c/{_chunk_of(key)}")
            self._sent = sent[-1:]


def _chunk_of(key: str) -> int:
    return int(key.split("/")[2])


def _together(work: Callable[[str], None], keys: Sequence[str]) -> None:
    """Do something for several keys at once."""
    if len(keys) > 1:
        try:
            each(work, keys)
        except RuntimeError:  # the interpreter is about to end, and starts no thread any more
            pass
        else:
            return
    for key in keys:
        work(key)

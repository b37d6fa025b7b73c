"""What an interrupted writer to a store has left: in its spool, on its machine, and in the store."""

from __future__ import annotations

import io
from collections.abc import Iterator

from imgstore_zarr.errors import ImgStoreError, RecordingAccessError
from imgstore_zarr.layouts import Problem
from imgstore_zarr.lock import Holder, StoreLock, refuse_holder
from imgstore_zarr.native import recovery
from imgstore_zarr.native.commits import Commit, CommitQueue
from imgstore_zarr.native.committer import generation_of
from imgstore_zarr.native.extra_columns import write_extra
from imgstore_zarr.native.extra_log import Record, decode_lines, is_thrown_away
from imgstore_zarr.native.metadata import COLUMN_CHUNK, GROUP_KEY, ZarrRecording, parse
from imgstore_zarr.native.mirror import Mirror
from imgstore_zarr.native.open_chunk import INFLIGHT, LOCK_KEY
from imgstore_zarr.native.remote_sink import finish, takes_lock
from imgstore_zarr.native.spool import EXTRA_KEY
from imgstore_zarr.native.spool_folder import SpoolFolder
from imgstore_zarr.native.uploads import Uploads
from imgstore_zarr.report import counted
from imgstore_zarr.storage import Directory, GuardedObject, Location


def repair(location: Location) -> tuple[Problem, ...]:
    """Upload what an interrupted writer of this machine has left; can itself be interrupted.

    Raises
    ------
    RecordingLockedError
        A writer is at work, or the spool lies on another machine.
    RecordingAccessError
        The store cannot be written to. What is not uploaded stays in the spool.
    """
    if not takes_lock(location):
        folder = SpoolFolder.of(location, parse(location.name, location.read(GROUP_KEY)).info.uuid)
        return () if folder is None else _repair_from(location, folder, None)
    holder = Holder.stored(location, LOCK_KEY)
    if holder is None and not location.exists(INFLIGHT):
        return ()
    if holder is not None and not holder.is_dead:
        refuse_holder(location, LOCK_KEY, holder)
    if any(name.endswith(".journal") for name in location.names(INFLIGHT)):
        raise RecordingAccessError(
            f"{location.name}: the writer that was interrupted wrote to a directory; repair the "
            "recording by the path of that"
        )
    folder = None if holder is None else SpoolFolder.found(location, holder)
    if folder is None:
        return _repair_without_spool(location, holder)
    return _repair_from(location, folder, holder)


def _repair_from(
    location: Location, folder: SpoolFolder, holder: Holder | None
) -> tuple[Problem, ...]:
    lock: StoreLock | None = None
    try:
        if holder is not None:
            # It names the same spool, so that a repair that is interrupted can be repeated.
            lock = StoreLock(location, LOCK_KEY, spool=str(folder.path))
            lock.take(holder)
        problems: tuple[Problem, ...] = ()
        if (folder.recording.root / GROUP_KEY).exists():
            problems = _upload_rest(location, folder, lock)
    except BaseException:
        folder.release()
        raise
    finish(location, folder, lock)
    return problems


def _upload_rest(
    location: Location, folder: SpoolFolder, lock: StoreLock | None
) -> tuple[Problem, ...]:
    local, record = folder.recording, GuardedObject(location, GROUP_KEY)
    here = parse(local.name, local.read(GROUP_KEY))
    there = parse(location.name, record.read() or b"")
    _check_same(location, folder, here, there)
    queue = CommitQueue(local.root, generation_of(here))
    uploads = Uploads(location, local, queue, lock, record)
    try:
        _put_missing(queue, local, here, there)
        problems = recovery.repair(Mirror(local.root, location, queue))
        uploads.wait()
    finally:
        uploads.stop()
    return problems


def _check_same(
    location: Location, folder: SpoolFolder, here: ZarrRecording, there: ZarrRecording
) -> None:
    if here.info.uuid != there.info.uuid:
        raise ImgStoreError(
            f"{location.name}: its lock names the spool {folder.path}, which is of the recording "
            f"{here.info.uuid}, not of this one ({there.info.uuid}); repair that one first"
        )
    ahead = generation_of(there), there.frame_count
    if ahead > (generation_of(here), here.frame_count) and ahead[0] >= generation_of(here):
        raise ImgStoreError(
            f"{location.name} was written to by another writer, and has "
            f"{counted(there.frame_count, 'frame')}; its spool {folder.path} has "
            f"{counted(here.frame_count, 'frame')}; move that elsewhere to keep it"
        )


def _put_missing(
    queue: CommitQueue, local: Directory, here: ZarrRecording, there: ZarrRecording
) -> None:
    """Put what is committed in the spool and not in the store, chunk by chunk."""
    for path in local.files():
        if path.name.startswith(".new-"):
            path.unlink()  # of a file that was being written
    if generation_of(here) != generation_of(there):
        queue.restart(here.documents(0, {}))
        start = 0
    else:
        start = there.frame_count
        if there.extra and there.extra != here.extra:
            queue.put(Commit(documents=here.documents(start, {}), deleted=("extra",)))
    for name in here.columns:
        for key in local.names(f"{name}/c"):
            if int(key) >= start // COLUMN_CHUNK:
                queue.note(f"{name}/c/{key}", 0)
    if here.extra and here.extra != there.extra:
        for key in [path.relative_to(local.root).as_posix() for path in local.files("extra")]:
            if not key.endswith(GROUP_KEY):
                queue.note(key, 0)
    size = here.geometry.chunksize
    for chunk in range(start // size, -(-here.frame_count // size)):
        _note_shard(queue, local, here.geometry.key(chunk))
        count = min((chunk + 1) * size, here.frame_count)
        for key, document in here.documents(max(start, count), here.extra).items():
            queue.note_document(key, document)
        queue.commit()
    # One may have been moved there that is not committed; the commit of the repair takes it along.
    _note_shard(queue, local, here.geometry.key(here.frame_count // size))


def _note_shard(queue: CommitQueue, local: Directory, key: str) -> None:
    file = local.root / key
    if file.exists():  # else it was uploaded
        queue.note(key, file.stat().st_size)


def _repair_without_spool(location: Location, holder: Holder | None) -> tuple[Problem, ...]:
    lock = StoreLock(location, LOCK_KEY)
    try:
        lock.take(holder)
        _commit_flushed_extra(location)
        location.delete(EXTRA_KEY)
    finally:
        lock.release()
    if holder is None or not holder.spool:
        return ()
    what = (
        f"{location.name}: its writer was interrupted, and its spool {holder.spool} is gone; frames "
        "that were not uploaded yet, if there were any, are lost"
    )
    return (Problem("frames-lost", what),)


def _commit_flushed_extra(location: Location) -> None:
    """Commit the extra data that a writer had flushed."""
    try:
        lines = location.read(EXTRA_KEY)
    except FileNotFoundError:
        return
    recording = parse(location.name, location.read(GROUP_KEY))
    if is_thrown_away(io.BytesIO(lines), generation_of(recording)):
        return

    def records() -> Iterator[Record]:
        for record in decode_lines(location.name, io.BytesIO(lines)):
            if record["frame_index"] < recording.frame_count:
                yield record

    extra = write_extra(location, records, durable=False)
    for key, document in recording.documents(recording.frame_count, extra).items():
        location.write(key, document)

"""A recording that is being written: its directory, ``metadata.yaml`` and ``.lock``."""

from __future__ import annotations

from collections.abc import Collection

from imgstore_compat.chunk_index import SUFFIXES as INDEXES
from imgstore_compat.chunk_journal import SUFFIX as JOURNAL
from imgstore_compat.metadata import FILE, LOCK_FILE, VIDEO_EXTENSIONS
from imgstore_zarr.errors import (
    RecordingExistsError,
    RecordingLockedError,
    UnsupportedFormatError,
)
from imgstore_zarr.extra import EXTRA_DATA_FILE_EXTENSIONS
from imgstore_zarr.lock import Holder, Lock
from imgstore_zarr.recording import RecordingSpec
from imgstore_zarr.storage import METADATA_FILES, Directory, Location, access_error

# Of what lies beside the metadata for a chunk.
_ENDINGS = (*VIDEO_EXTENSIONS, *INDEXES, JOURNAL, *EXTRA_DATA_FILE_EXTENSIONS)


def local_directory(location: Location) -> Directory:
    """Return a location that is a directory of the local file system.

    Raises
    ------
    UnsupportedFormatError
        It is another kind.
    """
    if not isinstance(location, Directory):
        raise UnsupportedFormatError(
            f"{location.name}: this is done only with recordings in local directories; Zarr formats "
            "lie anywhere"
        )
    return location


def check_options(spec: RecordingSpec, known: Collection[str]) -> None:
    """Refuse options of `create` that a format does not have.

    Raises
    ------
    UnsupportedFormatError
        Naming those that there are.
    """
    for name in ("inner_chunks", "durable"):
        if getattr(spec, name):
            raise UnsupportedFormatError(f"{name} is for Zarr formats, not {spec.format}")
    for name in spec.options:
        if name not in known:
            raise UnsupportedFormatError(
                f"{spec.requested_format} has no option {name!r}; known are "
                f"{', '.join(known) or 'none'}"
            )


class OpenRecording:
    """The right to write to a recording, from its beginning until `close`.

    Parameters
    ----------
    location
        Where it is made.
    metadata
        The contents of its ``metadata.yaml``.

    Raises
    ------
    RecordingExistsError
        There is a recording already, or another writer has just begun one.
    RecordingLockedError
        Another writer is beginning one.
    RecordingAccessError
        The location cannot be written to.
    """

    def __init__(self, location: Directory, metadata: bytes) -> None:
        self._location = location
        refuse_existing(location)
        try:
            location.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise access_error(location, "making the directory", error) from error
        self._lock = lock_recording(location)
        try:
            # Again: another writer may have been here before the lock was taken.
            refuse_existing(location)
            location.write(FILE, metadata)
        except RecordingExistsError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise access_error(location, "writing", error) from error

    def close(self) -> None:
        """Let others write."""
        self._location.delete(LOCK_FILE)
        self._lock.release()


def lock_recording(location: Directory) -> Lock:
    """Take the right to change a recording; its ``.lock`` says who has it.

    Raises
    ------
    RecordingLockedError, RecordingAccessError
        See `Lock`.
    """
    return Lock(location, location.root / LOCK_FILE)


def refuse_other_writers(location: Directory) -> None:
    """Refuse a recording that imgstore or Motif may be writing.

    Raises
    ------
    RecordingLockedError
        It has a ``.lock`` of theirs, which is empty, and on which they hold no lock that another
        process could see. No age of files tells that its writer is dead: frames may be
        minutes apart.
    """
    if location.exists(LOCK_FILE) and Holder.read(location.root / LOCK_FILE) is None:
        raise RecordingLockedError(
            f"{location.name} has a {LOCK_FILE} of imgstore or Motif, which write to it, or were "
            f"interrupted; make sure that neither is at work, then remove "
            f"{location.root / LOCK_FILE}, and try again"
        )


def refuse_existing(location: Directory) -> None:
    """Raise RecordingExistsError where there is a recording already, or what would become part of it."""
    try:
        names = location.names()
    except PermissionError as error:
        raise access_error(location, "looking for a recording", error) from error
    for name in METADATA_FILES:
        if name in names:
            raise RecordingExistsError(
                f"{location.name} already holds a recording (it has {name}), which is never "
                "overwritten; choose another place, or remove it first"
            )
    chunks = [name for name in names if _is_of_chunk(name)]
    if chunks:
        raise RecordingExistsError(
            f"{location.name} holds files of chunks ({', '.join(chunks[:3])}"
            f"{', ...' if len(chunks) > 3 else ''}), which are never overwritten; choose another "
            "place, or move them"
        )


def _is_of_chunk(name: str) -> bool:
    stem, dot, end = name.partition(".")
    return stem.isdecimal() and dot + end in _ENDINGS

"""The error for a place that cannot be read or written to."""

from __future__ import annotations

import errno

from imgstore_zarr.errors import RecordingAccessError
from imgstore_zarr.storage.location import Location

_PERMISSIONS = "check the permissions of the directory and of those above it"
_ADVICE = {
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.EROFS: "the file system is read-only: check how it is mounted, or choose another place",
    errno.ENOENT: "check that the directory, and those above it, are still there",
    errno.ENOSPC: "make room, or choose another place",
    errno.EDQUOT: "make room, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
} | dict.fromkeys(
    (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY),
    "something else is there: choose another place",
)


def access_error(
    location: Location, doing: str, error: OSError, what: str = ""
) -> RecordingAccessError:
    """Return the error for a location that cannot be read or written, with advice.

    Parameters
    ----------
    location
        The recording.
    doing
        What failed, as a participle.
    error
        Why.
    what
        What became of it.
    """
    if isinstance(error, RecordingAccessError):
        return error
    refused = isinstance(error, PermissionError)
    known = _PERMISSIONS if refused else "check the storage, and try again"
    advice = getattr(error, "advice", None) or _ADVICE.get(error.errno or 0, known)
    found = RecordingAccessError(
        f"{location.name}: {doing} {'was refused' if refused else 'failed'} "
        f"({error.strerror or error}){what and f'; {what}'}; {advice}"
    )
    found.errno = error.errno
    return found

"""GuardedObject: an object of one writer, who notices when somebody else has written it."""

from __future__ import annotations

import errno

from imgstore_zarr.storage.location import Location
from imgstore_zarr.storage.object_store import ObjectStore, Version
from imgstore_zarr.storage.requests import ReplacedError


class GuardedObject:
    """Replaced by nobody but the one who has read it, or written it, last.

    Where the service has conditional puts it decides that itself. Elsewhere the object is read before
    it is written and afterwards, which two who write at the same moment may both get past.

    Parameters
    ----------
    location
        The recording.
    key
        Of the object.
    """

    def __init__(self, location: Location, key: str) -> None:
        self._location = location
        self._key = key
        self._known: bytes | None = None
        self._version: Version | None = None
        # What was put without an answer may be there nevertheless.
        self._tried: list[bytes] = []
        self._store = location if isinstance(location, ObjectStore) else None

    def read(self) -> bytes | None:
        """Return the object, None where there is none; from now on it may be replaced."""
        self._known, self._version = self._found()
        self._tried.clear()
        return self._known

    def confirm(self) -> None:
        """Raise ReplacedError where somebody else has written it."""
        self._check(self._found()[0])

    def write(self, data: bytes) -> None:
        """Put the object; what failed can be called again.

        Raises
        ------
        ReplacedError
            Somebody else has written it since.
        """
        self._tried.append(data)
        if self._store is not None:
            try:
                self._version = self._put(self._store, data)
            except NotImplementedError:
                self._store = None
        if self._store is None:
            self._check(self._found()[0])
            self._location.write(self._key, data)
            if self._found()[0] != data:
                raise self._replaced()
        self._known = data
        self._tried.clear()

    def _put(self, store: ObjectStore, data: bytes) -> Version:
        try:
            return self._put_once(store, data)
        except (FileExistsError, FileNotFoundError, ReplacedError):
            found, version = self._found()
        if found == data and version is not None:
            return version  # the answer to an earlier try was lost
        self._check(found)
        self._version = version
        try:
            return self._put_once(store, data)
        except FileExistsError as error:
            raise self._replaced() from error

    def _put_once(self, store: ObjectStore, data: bytes) -> Version:
        if self._version is None:
            return store.create(self._key, data)
        return store.replace(self._key, data, self._version)

    def _check(self, found: bytes | None) -> None:
        if found != self._known and found not in self._tried:
            raise self._replaced()

    def _found(self) -> tuple[bytes | None, Version | None]:
        try:
            if self._store is not None:
                return self._store.read_version(self._key)
            return self._location.read(self._key), None
        except FileNotFoundError:
            return None, None

    def _replaced(self) -> ReplacedError:
        return ReplacedError(errno.ESTALE, f"{self._key} was written by somebody else")

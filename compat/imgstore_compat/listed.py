"""A recording of which the names are known: nothing is requested to learn that a file is not there."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from imgstore_zarr.storage import Blob, Location, is_far

if TYPE_CHECKING:
    from typing_extensions import Buffer


@dataclass(frozen=True)
class Listed:
    """A location, and the names in its root as they were listed.

    Attributes
    ----------
    location
        The recording.
    listed
        The names.
    """

    location: Location
    listed: frozenset[str] = field(repr=False)

    @property
    def name(self) -> str:
        """That of the location."""
        return self.location.name

    @property
    def path(self) -> Path | None:
        """That of the location."""
        return self.location.path

    def _check(self, key: str) -> None:
        if key.partition("/")[0] not in self.listed:
            raise FileNotFoundError(errno.ENOENT, f"no object {key!r}")

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        self._check(key)
        return self.location.read(key)

    def write(self, key: str, data: Buffer, *, durable: bool = False) -> None:
        """Create or replace an object."""
        self.location.write(key, data, durable=durable)

    def open(self, key: str) -> Blob:
        """Open an object for reading."""
        self._check(key)
        return self.location.open(key)

    def exists(self, key: str) -> bool:
        """Whether an object, or anything below it, has this key."""
        root = key.partition("/")[0]
        return root in self.listed and (root == key or self.location.exists(key))

    def names(self, key: str = "") -> list[str]:
        """Return the names directly below a key, sorted."""
        return self.location.names(key) if key else sorted(self.listed)

    def delete(self, key: str) -> None:
        """Remove an object or everything below a key."""
        self.location.delete(key)


def listed(location: Location, names: list[str]) -> Location:
    """Return a location that answers from a listing, where asking means to send requests.

    In a directory a writer may have added files since, and asking costs nothing.
    """
    return Listed(location, frozenset(names)) if is_far(location) else location

"""Location and Blob: what every place where recordings lie can do.

Keys are relative to the recording and separated by ``/``, as in Zarr.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Buffer

METADATA_FILES = ("metadata.yaml", "zarr.json")
"""Files inside a recording that may be given in its place."""


class Blob(Protocol):
    """An object of bytes that can be read at any offset, from several threads, until it is forgotten."""

    @property
    def size(self) -> int:
        """How many bytes it has."""
        ...

    def tail(self, nbytes: int) -> bytes:
        """Return the last bytes, fewer where the object is shorter."""
        ...

    def read_into(self, offset: int, buffers: Sequence[NDArray[np.uint8]]) -> int:
        """Fill the buffers, one after the other, from an offset on; return how much was there."""
        ...


class Location(Protocol):
    """Where one recording lies. Can be pickled."""

    @property
    def name(self) -> str:
        """For messages, and for people."""
        ...

    @property
    def path(self) -> Path | None:
        """The directory, where it is one of the local file system."""
        ...

    def read(self, key: str) -> bytes:
        """Return a whole object.

        Raises
        ------
        FileNotFoundError
            No object has this key.
        """
        ...

    def write(self, key: str, data: Buffer, *, durable: bool = False) -> None:
        """Create or replace an object, all at once: a reader sees the old one or the new one."""
        ...

    def open(self, key: str) -> Blob:
        """Open an object for reading; FileNotFoundError where there is none."""
        ...

    def exists(self, key: str) -> bool:
        """Whether an object, or anything below it, has this key."""
        ...

    def names(self, key: str = "") -> list[str]:
        """Return the names directly below a key, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object or everything below a key; one that is not there is no error."""
        ...

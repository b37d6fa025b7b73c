"""A directory that is reached by requests: each is noted, and may fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from imgstore_zarr.storage import Blob, Directory
from imgstore_zarr.video import remote_bytes

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Request(NamedTuple):
    """What was asked for: all of an object has no range, and a listing ends with a slash."""

    key: str
    start: int = 0
    nbytes: int = -1


@dataclass
class Far:
    """A location that is no directory, as far as anybody can tell.

    Attributes
    ----------
    inner
        Where the bytes are.
    requests
        What was asked for so far.
    trouble
        Told the number of a request, raises what it is to raise.
    """

    inner: Directory
    requests: list[Request] = field(default_factory=list)
    trouble: Callable[[int], object] = lambda number: None
    path: None = None
    lock: Any = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        return f"far://{self.inner.root.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Far, (self.inner,)

    def note(self, *request: Any) -> None:
        with self.lock:
            self.requests.append(Request(*request))
            number = len(self.requests) - 1
        self.trouble(number)

    def read(self, key: str) -> bytes:
        self.note(key)
        return self.inner.read(key)

    def write(self, key: str, data: Buffer, *, durable: bool = False) -> None:
        raise AssertionError(f"{key} was written")

    def open(self, key: str) -> Blob:
        return FarBlob(self, key)

    def exists(self, key: str) -> bool:
        self.note(f"{key}?")
        return self.inner.exists(key)

    def names(self, key: str = "") -> list[str]:
        self.note(f"{key}/")
        return self.inner.names(key)

    def delete(self, key: str) -> None:
        raise AssertionError(f"{key} was deleted")

    @contextmanager
    def watched(self) -> Iterator[list[Request]]:
        """Give the requests of a block, which it fills at its end."""
        before = len(self.requests)
        seen: list[Request] = []
        yield seen
        seen += self.requests[before:]


@dataclass(frozen=True)
class FarBlob:
    far: Far
    key: str

    @property
    def size(self) -> int:
        return self.far.inner.open(self.key).size

    def tail(self, nbytes: int) -> bytes:
        self.far.note(self.key, -nbytes, nbytes)
        return self.far.inner.open(self.key).tail(nbytes)

    def read_into(self, offset: int, buffers: Sequence[NDArray[np.uint8]]) -> int:
        self.far.note(self.key, offset, sum(len(buffer) for buffer in buffers))
        return self.far.inner.open(self.key).read_into(offset, buffers)


def far(path: Path) -> Far:
    return Far(Directory(path))


def in_small_pieces(patch: pytest.MonkeyPatch) -> None:
    """Let small files be read as large ones are, by many requests, and forget most of them."""
    sizes = {
        "HEAD_BYTES": 300,
        "KEPT_BYTES": 6000,
        "AHEAD_BYTES": 4000,
        "LARGEST_REQUEST": 1500,
        "_SMALLEST_UNIT": 1,
        "_LARGEST_BLOCK": 2400,
        "_BYTES_AHEAD": 4800,
        "_BEGINNING": 600,
    }
    for name, size in sizes.items():
        patch.setattr(remote_bytes, name, size)

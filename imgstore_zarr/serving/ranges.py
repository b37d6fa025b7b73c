"""Which bytes a ``Range`` header asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

# More digits than any size has would only take time.
_ONE = re.compile(r"bytes=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.IGNORECASE)


class BadRangeError(ValueError):
    """Not a range of bytes, or several of them."""


class UnsatisfiableError(ValueError):
    """A range that begins after the last byte."""


@dataclass(frozen=True)
class Span:
    """Bytes start .. stop-1 of an object of `size` bytes."""

    start: int
    stop: int
    size: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def header(self) -> str:
        """The value of ``Content-Range``."""
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


def span_of(header: str, size: int) -> Span:
    """Return the part of an object that is asked for, cut to what there is.

    Raises
    ------
    BadRangeError
        The header asks for something else than one range of bytes.
    UnsatisfiableError
        The object has no byte of it.
    """
    found = _ONE.fullmatch(header)
    if found is None or not (found[1] or found[2]):
        raise BadRangeError("not one range of bytes")
    if not found[1]:
        start, stop = max(size - int(found[2]), 0), size
    else:
        start = int(found[1])
        last = int(found[2]) if found[2] else size - 1
        if found[2] and last < start:
            raise BadRangeError("a range that ends before it begins")
        stop = min(last + 1, size)
    if start >= stop:
        raise UnsatisfiableError(f"a range beyond {size} bytes")
    return Span(start, stop, size)

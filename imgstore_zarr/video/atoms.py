"""The atoms of an mp4 (ISO/IEC 14496-12): what is in the file, and where it breaks off."""

from __future__ import annotations

import os
import struct
from collections.abc import Container, Iterator
from types import TracebackType
from typing import NamedTuple, Protocol, Self

_HEADER = struct.Struct(">I4s")
_LONG_SIZE = struct.Struct(">Q")


class Readable(Protocol):
    """A file that is open for reading."""

    def read(self, nbytes: int, /) -> bytes:
        """Read so many bytes, or as many as there are."""
        ...

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go somewhere; return the place from the start."""
        ...

    def tell(self) -> int:
        """Where the next byte is read."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


class Atom(NamedTuple):
    """An atom: its kind, where it starts, where its body does, and where it says that it ends."""

    kind: bytes
    start: int
    body: int
    end: int


def outer_atoms(file: Readable) -> Iterator[Atom]:
    """Iterate over the outermost atoms; the last may say that it ends behind the file."""
    end = file.seek(0, os.SEEK_END)
    at = 0
    while at < end:
        file.seek(at)
        header = file.read(_HEADER.size + _LONG_SIZE.size)
        if len(header) < _HEADER.size:
            yield Atom(b"", at, end, end)
            return
        size, kind = _HEADER.unpack_from(header)
        body = _HEADER.size
        if size == 1 and len(header) == _HEADER.size + _LONG_SIZE.size:
            (size,) = _LONG_SIZE.unpack_from(header, _HEADER.size)
            body += _LONG_SIZE.size
        if not size:
            size = end - at  # up to the end of the file
        if size < _HEADER.size:
            return
        yield Atom(kind, at, at + body, at + size)
        at += size


def read_atoms(file: Readable, kinds: Container[bytes]) -> Iterator[tuple[bytes, memoryview]]:
    """Iterate over the outermost atoms of some kinds that are whole.

    Parameters
    ----------
    file
        Any file.
    kinds
        The kinds of atoms, each of four bytes.

    Yields
    ------
    kind, body
        What is in the atom, without its header.
    """
    for atom in outer_atoms(file):
        if atom.kind in kinds:
            file.seek(atom.body)
            body = file.read(atom.end - atom.body)
            if len(body) == atom.end - atom.body:
                yield atom.kind, memoryview(body)


def last_atom_end(file: Readable) -> int:
    """Return where the last of the outermost atoms says that it ends."""
    return max((atom.end for atom in outer_atoms(file)), default=0)


def cut_fragment(file: Readable) -> int | None:
    """Return where the header of a fragment (``moof``) begins whose end is missing.

    FFmpeg reads a file that breaks off in the media of a fragment, but none that does in its header.

    Parameters
    ----------
    file
        Any file.

    Returns
    -------
    int or None
        None where the file does not break off so.
    """
    end = file.seek(0, os.SEEK_END)
    for atom in outer_atoms(file):
        if not atom.kind or (atom.kind == b"moof" and atom.end > end):
            return atom.start
    return None

"""The atoms of an mp4 (ISO/IEC 14496-12): what is in the file, and where it breaks off."""

from __future__ import annotations

import os
import struct
from collections.abc import Container, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_HEADER = struct.Struct(">I4s")
_LONG_SIZE = struct.Struct(">Q")


class _Atom(NamedTuple):
    kind: bytes
    start: int
    body: int
    end: int


def _atoms(file: BinaryIO) -> Iterator[_Atom]:
    """Iterate over the outermost atoms; the last may say that it ends behind the file."""
    end = file.seek(0, os.SEEK_END)
    at = 0
    while at < end:
        file.seek(at)
        header = file.read(_HEADER.size + _LONG_SIZE.size)
        if len(header) < _HEADER.size:
            yield _Atom(b"", at, end, end)
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
        yield _Atom(kind, at, at + body, at + size)
        at += size


def read_atoms(
    path: str | os.PathLike[str], kinds: Container[bytes]
) -> Iterator[tuple[bytes, memoryview]]:
    """Iterate over the outermost atoms of some kinds that are whole.

    Parameters
    ----------
    path
        Any file.
    kinds
        The kinds of atoms, each of four bytes.

    Yields
    ------
    kind, body
        What is in the atom, without its header.
    """
    with Path(path).open("rb") as file:
        for atom in _atoms(file):
            if atom.kind in kinds:
                file.seek(atom.body)
                body = file.read(atom.end - atom.body)
                if len(body) == atom.end - atom.body:
                    yield atom.kind, memoryview(body)


def last_atom_end(file: BinaryIO) -> int:
    """Return where the last of the outermost atoms says that it ends."""
    return max((atom.end for atom in _atoms(file)), default=0)


def cut_fragment(path: str | os.PathLike[str]) -> int | None:
    """Return where the header of a fragment (``moof``) begins whose end is missing.

    FFmpeg reads a file that breaks off in the media of a fragment, but none that does in its header.

    Parameters
    ----------
    path
        Any file.

    Returns
    -------
    int or None
        None where the file does not break off so.
    """
    with Path(path).open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        for atom in _atoms(file):
            if not atom.kind or (atom.kind == b"moof" and atom.end > end):
                return atom.start
    return None

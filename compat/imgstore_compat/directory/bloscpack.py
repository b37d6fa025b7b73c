"""Bloscpack files: one array in chunks that Blosc compressed, each with a checksum.

The format is version 3 of what the package bloscpack writes:
https://github.com/Blosc/bloscpack/blob/master/header_rfc.rst
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numcodecs.blosc
import numpy as np
from numpy.typing import NDArray

# magic, version, options, checksum, typesize, chunk_size, last_chunk, nchunks, max_app_chunks
_HEADER = struct.Struct("<4sBBBBiiqq")
# magic, options, checksum, codec, level, size, preallocated size, compressed size, user codec
_METADATA = struct.Struct("<8sBBBBIII8s")
# version, version of the compressor, flags, typesize, decompressed size, block size, compressed size
_BLOSC = struct.Struct("<BBBBIII")

_MAGIC = b"blpk"
_VERSION = 3
_OFFSETS, _HAS_METADATA = 1, 2
_ADLER32 = 1
_ZLIB = 1

# What bloscpack does unless told otherwise.
_CHUNK_BYTES = 2**20
_COMPRESSOR, _LEVEL, _SHUFFLE = b"blosclz", 7, 1
_METADATA_LEVEL = 6
_ROOM_TO_GROW = 10

# Old versions wrote the dtype as it is, newer ones its Python literal.
_DTYPE = re.compile(r"'?([<>|=][biuf][1248])'?")


def _adler32(data: Any) -> bytes:
    return zlib.adler32(data).to_bytes(4, "little")


def _crc32(data: Any) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


def _hash(name: str, data: Any) -> bytes:
    return hashlib.new(name, data, usedforsecurity=False).digest()


# By their code in a header.
_CHECKSUMS: tuple[Callable[[Any], bytes], ...] = (
    lambda _: b"",
    _adler32,
    _crc32,
    *(
        functools.partial(_hash, name)
        for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
    ),
)


def pack(image: NDArray[Any]) -> bytes:
    """Return an array as a Bloscpack file, as bloscpack writes it by default."""
    pixels = np.ascontiguousarray(image).reshape(-1).view(np.uint8)
    size = image.dtype.itemsize
    chunks = [
        numcodecs.blosc.compress(
            pixels[at : at + _CHUNK_BYTES], _COMPRESSOR, _LEVEL, shuffle=_SHUFFLE, typesize=size
        )
        for at in range(0, len(pixels), _CHUNK_BYTES)
    ]
    header = _HEADER.pack(
        _MAGIC,
        _VERSION,
        _OFFSETS | _HAS_METADATA,
        _ADLER32,
        size,
        min(len(pixels), _CHUNK_BYTES),
        len(pixels) - (len(chunks) - 1) * _CHUNK_BYTES,
        len(chunks),
        _ROOM_TO_GROW * len(chunks),
    )
    metadata = _pack_metadata(image)
    at = len(header) + len(metadata) + 8 * len(chunks) * (1 + _ROOM_TO_GROW)
    offsets = np.full(len(chunks) * (1 + _ROOM_TO_GROW), -1, "<i8")
    body = []
    for i, chunk in enumerate(chunks):
        offsets[i] = at
        body += [chunk, _adler32(chunk)]
        at += len(chunk) + 4
    return b"".join([header, metadata, offsets.tobytes(), *body])


def _pack_metadata(image: NDArray[Any]) -> bytes:
    document = {
        "dtype": repr(image.dtype.str),
        "shape": image.shape,
        "order": "C",
        "container": "numpy",
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    stored, codec = zlib.compress(text, _METADATA_LEVEL), _ZLIB
    if len(stored) > len(text):
        stored, codec = text, 0
    room = _ROOM_TO_GROW * len(text)
    sizes = len(text), room, len(stored)
    header = _METADATA.pack(b"JSON", 0, _ADLER32, codec, _METADATA_LEVEL, *sizes, b"")
    return header + stored.ljust(room, b"\0") + _adler32(stored)


def unpack(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the array that a Bloscpack file holds.

    Parameters
    ----------
    data
        The whole file.
    shape, dtype
        What it must hold; nothing larger is allocated.

    Raises
    ------
    ValueError
        It is damaged, or holds something else.
    """
    file = _Reader(data)
    options, checksum, count, spare = _read_header(file)
    stored, stored_shape, order = _read_metadata(file)
    if stored_shape != shape or stored.newbyteorder("=") != dtype:
        raise ValueError(f"it holds {stored} {stored_shape}")
    offsets: NDArray[np.int64] | None = None
    if options & _OFFSETS:
        offsets = np.frombuffer(file.take(8 * (count + spare)), "<i8")
    digest = _checksum(checksum)
    pixels = np.empty(math.prod(shape), stored)
    target = pixels.view(np.uint8)
    at = 0
    for i in range(count):
        if offsets is not None and offsets[i] != file.at:
            raise ValueError(f"its chunk {i} is not where it should be")
        decompressed, _, compressed = _BLOSC.unpack(file.peek(_BLOSC.size))[4:]
        chunk = file.take(compressed)
        if digest(chunk) != file.take(len(digest(b""))):
            raise ValueError(f"the checksum of its chunk {i} is wrong")
        if compressed < _BLOSC.size or not 0 < decompressed <= len(target) - at:
            raise ValueError(f"its chunk {i} has another size than it should")
        try:
            numcodecs.blosc.decompress(chunk, target[at : at + decompressed])
        except RuntimeError as error:
            raise ValueError(f"its chunk {i} cannot be decompressed ({error})") from error
        at += decompressed
    if at != len(target) or file.left:
        raise ValueError("it has another size than it should")
    return pixels.reshape(shape, order=order).astype(dtype, "C", copy=False)


def stored_dtype(data: bytes) -> np.dtype[Any]:
    """Return the dtype of the array in a Bloscpack file; ValueError where it is damaged."""
    file = _Reader(data)
    _read_header(file)
    return _read_metadata(file)[0].newbyteorder("=")


def _read_header(file: _Reader) -> tuple[int, int, int, int]:
    """The options, the checksum, the number of chunks, and for how many more there is room."""
    magic, version, options, checksum, *_, count, spare = _HEADER.unpack(file.take(_HEADER.size))
    if magic != _MAGIC or version != _VERSION or options not in (2, 3) or count < 1 or spare < 0:
        raise ValueError("it is no Bloscpack file of an array")
    return options, checksum, count, spare


def _read_metadata(file: _Reader) -> tuple[np.dtype[Any], tuple[int, ...], Any]:
    """The dtype, the shape and the order as they are stored."""
    magic, _, checksum, codec, _, size, room, stored, _ = _METADATA.unpack(
        file.take(_METADATA.size)
    )
    if magic.rstrip(b"\0") != b"JSON" or codec not in (0, _ZLIB) or stored > room:
        raise ValueError("its metadata are damaged")
    text = bytes(file.take(room)[:stored])
    digest = _checksum(checksum)
    if digest(text) != file.take(len(digest(b""))):
        raise ValueError("the checksum of its metadata is wrong")
    try:
        if codec == _ZLIB:
            text = zlib.decompressobj().decompress(text, size)
        document = json.loads(text)
        name = _DTYPE.fullmatch(document["dtype"])
        if name is None:
            raise ValueError(f"{document['dtype']} is no dtype of pixels")
        found: np.dtype[Any] = np.dtype(name[1])
        found_shape = tuple(document["shape"])
        order = {"C": "C", "F": "F"}[document["order"]]
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"its metadata are damaged ({error})") from error
    return found, found_shape, order


def _checksum(code: int) -> Callable[[Any], bytes]:
    if code >= len(_CHECKSUMS):
        raise ValueError(f"{code} is no checksum of Bloscpack")
    return _CHECKSUMS[code]


class _Reader:
    """Takes bytes one after the other; ValueError where there are too few."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self.at

    def peek(self, size: int) -> memoryview:
        if size > self.left:
            raise ValueError("it is truncated")
        return self._data[self.at : self.at + size]

    def take(self, size: int) -> memoryview:
        taken = self.peek(size)
        self.at += size
        return taken

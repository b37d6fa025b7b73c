"""Whether an image file is whole: decoders hand out what they have of one that is not."""

from __future__ import annotations

import mmap
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

Data = bytes | mmap.mmap


class ImageHeader(NamedTuple):
    """What a file says of its image: (y, x), and the name of the dtype that OpenCV has for it."""

    size: tuple[int, int]
    dtype: str


def check_image_file(data: bytes) -> ImageHeader:
    """Return what a PNG, JPEG, BMP, TIFF or PNM file that is whole says of its image.

    Raises
    ------
    ValueError
        It is of another kind, or damaged in a way that can be seen without decoding it.
    """
    for magic, check in _CHECKS.items():
        if data.startswith(magic):
            try:
                return check(data)
            except struct.error as error:
                raise ValueError("it is truncated") from error
    raise ValueError("it is no image file")


def _unsigned(bits: int) -> str:
    """The dtype into which samples of so many bits are unpacked."""
    return next((f"uint{most}" for most in (8, 16, 32) if bits <= most), "uint64")


def _png(data: bytes) -> ImageHeader:
    # https://www.w3.org/TR/png-3/#5Chunk-layout
    view = memoryview(data)
    at, header = 8, None
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        (stored,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(view[at + 4 : at + 8 + length]) != stored:
            raise ValueError(f"the checksum of its part {kind!r} at byte {at} is wrong")
        if kind == b"IHDR":
            width, height, bits = struct.unpack_from(">IIB", data, at + 8)
            header = ImageHeader((height, width), _unsigned(bits))
        if kind == b"IEND":
            break
        at += 12 + length
    if header is None:
        raise ValueError("it has no header")
    return header


_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_SOI_EOI_TEM = b"\xd8\xd9\x01"
_NO_FRAME = b"\xc4\xc8\xcc"


def _jpeg(data: bytes) -> ImageHeader:
    # ITU-T T.81, annex B: segments that say how long they are, and compressed data up to the next
    # marker.
    at, header, scanned = 2, None, False
    while True:
        marker = _JPEG_MARKER.search(data, at) if scanned else _JPEG_MARKER.match(data, at)
        if marker is None:
            raise ValueError("it is truncated, or damaged")
        code, at = marker[1], marker.end()
        if code == b"\xd9":
            break
        if code in _SOI_EOI_TEM:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if b"\xc0" <= code <= b"\xcf" and code not in _NO_FRAME and header is None:
            bits, height, width = struct.unpack_from(">BHH", data, at + 2)
            header = ImageHeader((height, width), _unsigned(bits))
        scanned = code == b"\xda" or scanned
        at += length
    if header is None or not scanned:
        raise ValueError("it holds no image")
    return header


def _bmp(data: bytes) -> ImageHeader:
    # https://learn.microsoft.com/windows/win32/gdi/bitmap-storage
    file_size, offset, header_size = struct.unpack_from("<2xI4xII", data)
    if header_size == 12:
        width, height, bits = struct.unpack_from("<hh2xH", data, 18)
        compression = 0
    else:
        width, height, bits, compression = struct.unpack_from("<ii2xHI", data, 18)
    height = abs(height)
    rows = height * ((abs(width) * bits + 31) // 32 * 4)
    # Rows that are not compressed say themselves how many bytes they take.
    if (offset + rows if compression in (0, 3) else file_size) > len(data):
        raise ValueError("it is truncated")
    return ImageHeader((height, width), "uint8")


# Kind, width, height and largest value; white space and comments lie between.
_PNM = re.compile(rb"P([56])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,10})" + rb"\s")


def _pnm(data: bytes) -> ImageHeader:
    # https://netpbm.sourceforge.net/doc/pnm.html
    header = _PNM.match(data)
    if header is None:
        raise ValueError("its header is damaged")
    width, height, most = (int(header[i]) for i in (2, 3, 4))
    channels = 3 if header[1] == b"6" else 1
    needed = header.end() + height * width * channels * (2 if most > 255 else 1)
    if len(data) != needed:
        raise ValueError(f"it has {len(data)} bytes where {needed} are needed")
    return ImageHeader((height, width), "uint16" if most > 255 else "uint8")


_TIFF_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_WIDTH, _HEIGHT, _BITS, _SAMPLE_FORMAT = 256, 257, 258, 339
_TIFF_KINDS = {2: "int", 3: "float"}
# Where strips and tiles begin, and how long they are.
_PARTS = ((273, 279), (324, 325))


def _tiff(data: Data) -> ImageHeader:
    # TIFF 6.0, section 2; of several images, the first counts.
    return _tiff_image(data, next(_tiff_directories(data)))


def _tiff_image(data: Data, fields: Mapping[int, Sequence[int]]) -> ImageHeader:
    parts = [(start, length) for start, length in _PARTS if start in fields and length in fields]
    if len(parts) != 1 or not fields.get(_WIDTH) or not fields.get(_HEIGHT):
        raise ValueError("its directory is damaged")
    starts, lengths = (fields[tag] for tag in parts[0])
    if len(starts) != len(lengths) or not starts:
        raise ValueError("its directory is damaged")
    for start, length in zip(starts, lengths, strict=True):
        if not length or start + length > len(data):
            raise ValueError("it is truncated")
    bits = max(fields.get(_BITS, (1,)), default=1)
    # Where a file does not say, OpenCV takes 32 bits and more for floats.
    (kind, *_) = (*fields.get(_SAMPLE_FORMAT, ()), 3 if bits > 16 else 1)
    size = fields[_HEIGHT][0], fields[_WIDTH][0]
    return ImageHeader(size, _unsigned(bits).replace("uint", _TIFF_KINDS.get(kind, "uint")))


def _tiff_directories(data: Data) -> Iterator[dict[int, Sequence[int]]]:
    """The fields of each image that are integers, by their tags."""
    order = "<" if data[:1] == b"I" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    word = "Q" if big else "I"
    many = order + ("Q" if big else "H")
    entry = struct.Struct(f"{order}HH{word}")
    room = struct.calcsize(order + word)
    (at,) = struct.unpack_from(order + word, data, 8 if big else 4)
    seen: set[int] = set()
    while at or not seen:
        if at in seen:
            raise ValueError("its directories go in a circle")
        if at > len(data):
            raise ValueError("it is truncated")
        seen.add(at)
        (count,) = struct.unpack_from(many, data, at)
        first = at + struct.calcsize(many)
        if first + count * (entry.size + room) > len(data):
            raise ValueError("it is truncated")
        # A directory ends with the place of the next one, or with 0.
        (at,) = struct.unpack_from(order + word, data, first + count * (entry.size + room))
        fields: dict[int, Sequence[int]] = {}
        for start in range(first, first + count * (entry.size + room), entry.size + room):
            tag, kind, length = entry.unpack_from(data, start)
            code = _TIFF_CODES.get(kind)
            if code is None or length > len(data):
                continue
            values = struct.Struct(f"{order}{length}{code}")
            where = start + entry.size
            if values.size > room:
                (where,) = struct.unpack_from(order + word, data, where)
            fields[tag] = values.unpack_from(data, where)
        yield fields


# ImageJ writes only the first directory of a stack that is too large for TIFF.
_IMAGEJ = re.compile(rb"ImageJ=[^\x00]*?images=(\d+)")
_IMAGEJ_WITHIN = 2**16


def check_tiff_stack(data: Data) -> list[ImageHeader]:
    """Return what a TIFF file that is whole says of each of its images.

    Raises
    ------
    ValueError
        It is no TIFF file, or damaged in a way that can be seen without decoding it.
    """
    if bytes(data[:4]) not in _TIFF_MAGIC:
        raise ValueError("it is no TIFF file")
    try:
        headers = [_tiff_image(data, fields) for fields in _tiff_directories(data)]
    except struct.error as error:
        raise ValueError("it is truncated") from error
    stack = _IMAGEJ.search(data[:_IMAGEJ_WITHIN])
    if stack is not None and int(stack[1]) != len(headers):
        raise ValueError(
            f"it says that it has {int(stack[1])} images, and has directories of {len(headers)}, as "
            "ImageJ writes what is too large for TIFF; save it there as an image sequence"
        )
    return headers


_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_CHECKS: dict[bytes, Callable[[bytes], ImageHeader]] = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"\xff\xd8": _jpeg,
    b"BM": _bmp,
    b"P5": _pnm,
    b"P6": _pnm,
    **dict.fromkeys(_TIFF_MAGIC, _tiff),
}

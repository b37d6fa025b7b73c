"""The codecs of inner chunks: bytes, [blosc], crc32c, and zstd for coordinates.

Each codec produces and reads what the Zarr v3 core specification says, so that no other reader needs
this package: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import crc32c
import numcodecs.blosc
import numcodecs.zstd
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

CHECKSUM_BYTES = 4
_BLOSC_HEADER_BYTES = 16
BLOSC_MAX_BYTES = 2**31 - 1 - _BLOSC_HEADER_BYTES

# Measured on microscopy images (uint8, 768x768): zstd level 1 gives 1.87:1 at 280 MB/s a core,
# level 5 gives 1.90:1 at 60 MB/s; lz4 gives 1.58:1 at 700 MB/s whatever its level.
_LEVEL = 1
_BITSHUFFLE = 2

BYTES_CODEC = {"name": "bytes", "configuration": {"endian": "little"}}
_BYTES_CODEC_OF_ONE = {"name": "bytes"}
CRC32C_CODEC = {"name": "crc32c"}
ZSTD_CODEC = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}


def bytes_codec(itemsize: int) -> dict[str, Any]:
    """Return the codec for values of so many bytes, as zarr-python writes it: one byte has no order."""
    return BYTES_CODEC if itemsize > 1 else _BYTES_CODEC_OF_ONE


class DecodeError(ValueError):
    """Encoded bytes that do not decode to what they should; the reader adds where they lie."""


def checksum(data: NDArray[Any] | bytes) -> int:
    """Return the CRC-32C (Castagnoli, RFC 3720) of contiguous bytes; other threads go on meanwhile."""
    buffer: Any = data
    return crc32c.crc32c(buffer)


def checksum_bytes(data: NDArray[Any] | bytes) -> bytes:
    """Return the checksum as the crc32c codec appends it: 32 bits, little endian."""
    return checksum(data).to_bytes(CHECKSUM_BYTES, "little")


def as_bytes(array: NDArray[Any]) -> Bytes:
    """Return a contiguous array as its bytes, without a copy."""
    return array.reshape(-1).view(np.uint8)


@dataclass(frozen=True)
class InnerCodec:
    """How inner chunks are encoded.

    Attributes
    ----------
    compressor
        Blosc's compressor (``lz4``, ``zstd``), or None for no compression.
    itemsize
        Bytes of a pixel, for the shuffle filter.
    """

    compressor: str | None
    itemsize: int

    def encode(self, pixels: NDArray[Any]) -> Sequence[Bytes | bytes]:
        """Return an inner chunk as buffers to be written one after the other.

        Parameters
        ----------
        pixels
            C-contiguous, little endian.
        """
        data: Bytes | bytes = as_bytes(pixels)
        if self.compressor is not None:
            data = numcodecs.blosc.compress(
                data,
                self.compressor.encode(),
                _LEVEL,
                shuffle=_BITSHUFFLE,
                typesize=self.itemsize,
            )
        return data, checksum_bytes(data)

    def decode(self, encoded: Bytes, pixels: NDArray[Any]) -> None:
        """Decode an inner chunk, checksum included, into a C-contiguous array.

        Raises
        ------
        DecodeError
            A wrong checksum, or another size than that of the array.
        """
        if len(encoded) < CHECKSUM_BYTES:
            raise DecodeError(f"{len(encoded)} bytes are too few for an inner chunk")
        payload = encoded[:-CHECKSUM_BYTES]
        verify(payload, encoded[-CHECKSUM_BYTES:])
        target = as_bytes(pixels)
        if self.compressor is None:
            if len(payload) != len(target):
                raise DecodeError(f"{len(payload)} bytes where {len(target)} are needed")
            target[:] = payload
            return
        if len(payload) < _BLOSC_HEADER_BYTES:
            raise DecodeError(f"{len(payload)} bytes are too few for a Blosc block")
        size = int.from_bytes(payload[4:8].tobytes(), "little")
        if size != len(target):
            raise DecodeError(f"a Blosc block of {size} bytes where {len(target)} are needed")
        try:
            numcodecs.blosc.decompress(payload, target)
        except RuntimeError as error:
            raise DecodeError(f"Blosc cannot decompress: {error}") from error

    def encoded_size(self, encoded: Bytes, decoded_size: int) -> int | None:
        """Return the size of the inner chunk at the start of these bytes, None if it is cut off.

        Used to find the inner chunks of a frame again after a crash.
        """
        if self.compressor is None:
            size = decoded_size
        elif len(encoded) < _BLOSC_HEADER_BYTES:
            return None
        else:
            size = int.from_bytes(encoded[12:16].tobytes(), "little")
        size += CHECKSUM_BYTES
        return size if size <= len(encoded) else None

    def metadata(self) -> list[dict[str, Any]]:
        """Return the codecs as ``zarr.json`` lists them."""
        codecs: list[dict[str, Any]] = [bytes_codec(self.itemsize)]
        if self.compressor is not None:
            codecs.append(
                {
                    "name": "blosc",
                    "configuration": {
                        "cname": self.compressor,
                        "clevel": _LEVEL,
                        "shuffle": "bitshuffle",
                        "typesize": self.itemsize,
                        "blocksize": 0,
                    },
                }
            )
        return [*codecs, CRC32C_CODEC]


def verify(payload: Bytes, stored: Bytes | bytes) -> None:
    """Raise DecodeError unless the stored checksum is that of the payload."""
    expected = int.from_bytes(bytes(stored), "little")
    actual = checksum(payload)
    if actual != expected:
        raise DecodeError(f"the checksum is {actual:08x}, stored is {expected:08x}")


def encode_column(values: NDArray[Any]) -> bytes:
    """Encode a chunk of a coordinate: bytes, zstd, crc32c."""
    data: bytes = numcodecs.zstd.compress(as_bytes(values), 1)
    return data + checksum_bytes(data)


def decode_column(encoded: bytes, values: NDArray[Any]) -> None:
    """Decode a chunk of a coordinate into a C-contiguous, little-endian array.

    Raises
    ------
    DecodeError
        A wrong checksum, or another number of values.
    """
    data = np.frombuffer(encoded, np.uint8)
    target = as_bytes(values)
    if len(data) < CHECKSUM_BYTES:
        raise DecodeError(f"{len(data)} bytes are too few")
    verify(data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:])
    size = _zstd_content_size(encoded)
    if size != len(target):
        raise DecodeError(f"{size} bytes where {len(target)} are needed")
    try:
        # Straight into the array: opening a week decodes 240 MB of coordinates.
        numcodecs.zstd.decompress(data[:-CHECKSUM_BYTES], target)
    except RuntimeError as error:
        raise DecodeError(f"zstd cannot decompress: {error}") from error


def _zstd_content_size(frame: bytes) -> int | None:
    """The size that the header of a zstd frame announces (RFC 8878, 3.1.1.1), None without one."""
    if len(frame) < 5 or frame[:4] != b"\x28\xb5\x2f\xfd":
        return None
    descriptor = frame[4]
    single_segment = descriptor >> 5 & 1
    width = (single_segment, 2, 4, 8)[descriptor >> 6]
    start = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    size = int.from_bytes(frame[start : start + width], "little")
    return (size + 256 if width == 2 else size) if width else None

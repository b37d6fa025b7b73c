"""One image as a file of a directory recording: what each kind holds, encoding, and strict decoding."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_compat.directory import bloscpack
from imgstore_zarr.errors import UnsupportedFormatError
from imgstore_zarr.image_integrity import check_image_file
from imgstore_zarr.pixels import ensure_color, ensure_gray, is_color
from imgstore_zarr.storage import Blob

DTYPES: Mapping[str, tuple[str, ...] | None] = {
    "npy": None,
    "bpk": None,
    "png": ("uint8", "uint16"),
    "tif": ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64"),
    "bmp": ("uint8",),
    "ppm": ("uint8", "uint16"),
    "pgm": ("uint8", "uint16"),
    "jpg": ("uint8",),
}
"""Per kind of file the dtypes that it takes; None is any dtype and any shape."""

# Versions 1 to 3 of the npy format: magic, version, length of the header, header.
_NPY = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|[\x02\x03]\x00....)"
    rb"\{'descr': '(?P<descr>[<>|=][biuf][1248])', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>(?:\d+L?,? ?)+)\), \} *\n",
    re.DOTALL,
)
# What NumPy pads the header of an image to.
_NPY_HEADER_BYTES = 128


def check_image(kind: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse images that a kind of file cannot hold.

    Raises
    ------
    UnsupportedFormatError
        Saying what it holds.
    """
    dtypes = DTYPES[kind]
    if dtypes is None:
        return
    if dtype.name not in dtypes or (len(shape) == 3 and not is_color(shape)):
        raise UnsupportedFormatError(
            f"{kind}/dir holds images of {', '.join(dtypes)}, gray (y, x) or BGR (y, x, 3), not "
            f"{dtype} {shape}; npy/dir and Zarr formats hold any"
        )


def is_lossless(kind: str, shape: tuple[int, ...]) -> bool:
    """Whether a kind of file gives back such images as they were: pgm makes gray of colour."""
    return kind != "jpg" and not (kind == "pgm" and is_color(shape))


def encode_image(kind: str, image: NDArray[Any]) -> list[bytes | memoryview]:
    """Return an image as the contents of a file, in buffers to be written one after the other.

    Parameters
    ----------
    kind
        A key of `DTYPES`.
    image
        One that `check_image` lets pass. ``ppm`` files get it in colour and ``pgm`` files in gray.
    """
    # OpenCV takes the bytes for native ones, whatever the dtype says.
    image = np.ascontiguousarray(image, image.dtype.newbyteorder("="))
    if kind == "bpk":
        return [bloscpack.pack(image)]
    if kind == "npy":
        header = io.BytesIO()
        fields = np.lib.format.header_data_from_array_1_0(image)
        np.lib.format.write_array_header_1_0(header, fields)
        return [header.getvalue(), image.reshape(-1).view(np.uint8).data]
    import cv2

    if kind == "ppm":
        image = ensure_color(image)
    elif kind == "pgm":
        image = ensure_gray(image)
    # What OpenCV does anyway, but for float32, which some versions store with less precision.
    lzw = [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_LZW]
    encoded = cv2.imencode(f".{kind}", image, lzw if kind == "tif" else [])[1]
    return [np.asarray(encoded).data]


def decode_image(
    kind: str, data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return the image that a file holds.

    Parameters
    ----------
    kind
        A key of `DTYPES`.
    data
        The whole file.
    shape, dtype
        What it must hold. Images of OpenCV's kinds are made gray or colour as the shape asks for, as
        in imgstore; their dtype is never changed.

    Returns
    -------
    ndarray
        Of this shape and dtype; it may be read-only.

    Raises
    ------
    ValueError
        It is damaged, or holds something else.
    """
    if kind == "bpk":
        return bloscpack.unpack(data, shape, dtype)
    if kind == "npy":
        return _from_npy(data, shape, dtype)
    import cv2

    size, stored = check_image_file(data)
    # The orientation in a file may turn the image; nothing larger than expected is decoded.
    if sorted(size) != sorted(shape[:2]):
        raise ValueError(f"it holds an image of {size}, metadata.yaml says {shape}")
    # Before decoding, since OpenCV makes 8 bits of all others, or complains on stderr.
    if stored != dtype.name:
        raise ValueError(f"it holds {stored}, metadata.yaml says {dtype}")
    flags = cv2.IMREAD_COLOR if is_color(shape) else cv2.IMREAD_GRAYSCALE
    if dtype != np.uint8:
        flags |= cv2.IMREAD_ANYDEPTH
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot decode it ({error.err})") from error
    if image is None:
        raise ValueError("OpenCV cannot decode it")
    _check_is(image.shape, image.dtype, shape, dtype)
    return image


def read_npy(file: Blob, out: NDArray[Any]) -> bool:
    """Read an image straight into a C-contiguous array, if the file is as ``numpy.save`` writes it.

    Returns
    -------
    bool
        False where it is not, and `decode_image` must say what it is.
    """
    file_header, beyond = np.empty(_NPY_HEADER_BYTES, np.uint8), np.empty(1, np.uint8)
    got = file.read_into(0, [file_header, out.reshape(-1).view(np.uint8), beyond])
    header = _NPY.fullmatch(file_header.tobytes())
    return (
        header is not None
        and got == _NPY_HEADER_BYTES + out.nbytes
        and header["fortran"] == b"False"
        and np.dtype(header["descr"].decode()) == out.dtype
        and _npy_shape(header) == out.shape
    )


def npy_dtype(file: Blob) -> np.dtype[Any] | None:
    """Return the dtype of the image in an npy file; None where its header is damaged."""
    head = np.empty(_NPY_HEADER_BYTES, np.uint8)
    header = _NPY.match(head[: file.read_into(0, [head])].tobytes())
    return None if header is None else np.dtype(header["descr"].decode()).newbyteorder("=")


def _npy_shape(header: re.Match[bytes]) -> tuple[int, ...]:
    return tuple(int(size) for size in re.findall(rb"\d+", header["shape"]))


def _from_npy(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    # np.load parses the header with ast, which Python 3.11 cannot do in several threads at once.
    header = _NPY.match(data)
    if header is None:
        raise ValueError("its header is damaged, or it holds no numbers")
    stored: np.dtype[Any] = np.dtype(header["descr"].decode())
    _check_is(_npy_shape(header), stored, shape, dtype)
    needed = header.end() + math.prod(shape) * stored.itemsize
    if len(data) != needed:
        raise ValueError(f"it has {len(data)} bytes where {needed} are needed")
    order: Any = "F" if header["fortran"] == b"True" else "C"
    pixels = np.frombuffer(data, stored, offset=header.end())
    return pixels.reshape(shape, order=order).astype(dtype, copy=False)


def _check_is(
    found: tuple[int, ...],
    found_dtype: np.dtype[Any],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> None:
    if found != shape or found_dtype.newbyteorder("=") != dtype:
        raise ValueError(f"it holds {found_dtype} {found}, the recording {dtype} {shape}")

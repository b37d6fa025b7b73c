"""Pixels: encodings (Bayer, YUV, ...), gray and colour, and the step from stored to handed-out images.

OpenCV does the conversions. It is imported when the first pixel needs one, since importing it takes
longer than opening a recording.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import UnsupportedFormatError

Image = NDArray[Any]

# The last group tells methods of one codec apart (COLOR_BayerRG2BGR_VNG).
_CODE = re.compile(r"COLOR_(?P<codec>\w+?)2BGR(?:_(?P<method>\w+))?")


@functools.cache
def encodings() -> Mapping[str, int]:
    """Return the encodings that can be decoded to BGR.

    Returns
    -------
    Mapping[str, int]
        From the name (``cv_bayerrg``) to OpenCV's code (``cv2.COLOR_BayerRG2BGR``). The names are
        OpenCV's, in lower case and without underscores, as in imgstore; variants by method keep it
        as a suffix, except the demosaicing variants of Bayer patterns.
    """
    import cv2

    table: dict[str, int] = {}
    for name in dir(cv2):
        match = _CODE.fullmatch(name)
        if match is None:
            continue
        code = "cv_" + match["codec"].lower().replace("_", "")
        if method := match["method"]:
            if "bayer" in code:
                continue
            code += "_" + method.lower().replace("_", "")
        table[code] = int(getattr(cv2, name))
    return table


def check_encoding(encoding: str, imgshape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse an encoding that is unknown, or that OpenCV cannot decode for such images.

    Raises
    ------
    UnsupportedFormatError
        Lists the known encodings, or says what OpenCV said.
    """
    if encoding not in encodings():
        known = ", ".join(sorted(encodings()))
        raise UnsupportedFormatError(f"unknown encoding {encoding!r}; known are {known}")
    decode(np.zeros(imgshape, dtype), encoding)


def decode(image: Image, encoding: str) -> Image:
    """Convert one image from an encoding to BGR.

    Parameters
    ----------
    image
        (y, x) or (y, x, channel), as stored.
    encoding
        A key of `encodings`.

    Returns
    -------
    ndarray
        (y, x, 3), BGR.
    """
    import cv2

    try:
        code = encodings()[encoding]
    except KeyError:
        known = ", ".join(sorted(encodings()))
        raise UnsupportedFormatError(f"unknown encoding {encoding!r}; known are {known}") from None
    try:
        return cv2.cvtColor(np.ascontiguousarray(image), code)
    except cv2.error as error:
        raise UnsupportedFormatError(
            f"OpenCV cannot decode images of shape {image.shape} and dtype {image.dtype} "
            f"as {encoding}: {error.err}"
        ) from error


def is_color(shape: tuple[int, ...]) -> bool:
    """Whether an image shape is BGR: three dimensions, the last of them 3."""
    return len(shape) == 3 and shape[-1] == 3


def ensure_color(image: Image) -> Image:
    """Return an image as BGR; gray is repeated, BGR is returned as it is."""
    if is_color(image.shape):
        return image
    return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)


def ensure_gray(image: Image) -> Image:
    """Return an image as gray by OpenCV's BGR2GRAY; gray is returned as it is."""
    if not is_color(image.shape):
        return image
    import cv2

    try:
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY)
    except cv2.error as error:
        raise UnsupportedFormatError(
            f"OpenCV cannot make gray of dtype {image.dtype}: {error.err}"
        ) from error


@dataclass(frozen=True)
class Conversion:
    """The step from stored pixels to those handed out.

    Attributes
    ----------
    kind
        ``"none"``, ``"decode"`` (from `encoding` to BGR), ``"gray"`` or ``"color"``.
    encoding
        The encoding to decode from.
    """

    kind: str = "none"
    encoding: str = ""

    @classmethod
    def between(
        cls, stored: tuple[int, ...], wanted: tuple[int, ...], encoding: str | None
    ) -> Conversion:
        """Choose the conversion for a stored shape, a wanted shape and an encoding."""
        if encoding:
            return cls("decode", encoding)
        if is_color(stored) and len(wanted) == 2:
            return cls("gray")
        if len(stored) == 2 and is_color(wanted):
            return cls("color")
        return cls()

    def without_decoding(self) -> Conversion:
        """Return what is left when pixels are not decoded from their encoding."""
        return Conversion() if self.kind == "decode" else self

    def output_shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that `apply` makes of a stored shape."""
        if self.kind == "decode":
            return _decoded_shape(stored, self.encoding)
        if self.kind == "color":
            return (*stored, 3)
        return stored[:2] if self.kind == "gray" else stored

    def apply(self, image: Image) -> Image:
        """Convert one image."""
        if self.kind == "decode":
            return decode(image, self.encoding)
        if self.kind == "color":
            return ensure_color(image)
        return ensure_gray(image) if self.kind == "gray" else image


@functools.lru_cache(maxsize=64)
def _decoded_shape(stored: tuple[int, ...], encoding: str) -> tuple[int, ...]:
    # Planar YUV holds more rows than the picture: OpenCV knows how many.
    return decode(np.zeros(stored, np.uint8), encoding).shape

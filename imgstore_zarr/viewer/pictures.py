"""From the pixels of a frame to a picture for the screen: smaller, with levels and colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import UnsupportedFormatError
from imgstore_zarr.frames import Window

COLOR_MAPS = {
    "gray": None,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "turbo": cv2.COLORMAP_TURBO,
}
"""The colour maps for gray, by name, as OpenCV numbers them."""

FileType = Literal["jpeg", "webp", "png"]

HISTOGRAM_BINS = 64
"""Bins of the histogram beside the levels."""

_QUALITY = {
    "jpeg": [cv2.IMWRITE_JPEG_QUALITY, 88],
    "webp": [cv2.IMWRITE_WEBP_QUALITY, 82],
    # Speed counts: it goes over the loopback, or through a tunnel that compresses.
    "png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
}
_WHOLE_CHROMA = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]

# What cv2.resize takes.
_RESIZABLE = {"uint8", "uint16", "int16", "float32", "float64"}

# Of all pixels, what automatic levels leave out on both sides, in percent.
_LEFT_OUT = 0.35
_SAMPLED = 2**18
_MIDDLE = 0.5

Uint8s = NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """How pixels become gray values, or colours.

    Attributes
    ----------
    black, white
        The pixels that are shown as black and as white; None is the whole range of uint8.
    gamma
        Above 1 shows more in the dark.
    color_map
        One of `COLOR_MAPS`; what has colours of its own keeps them.
    """

    black: float | None = None
    white: float | None = None
    gamma: float = 1.0
    color_map: str = "gray"


@dataclass(frozen=True)
class Framing:
    """Which part of a frame is shown, and how large.

    Attributes
    ----------
    height, width
        The picture fits into so many pixels. It is never larger than the part of the frame.
    window
        The part; None is all of it.
    file_type
        What the picture is encoded as.
    """

    height: int
    width: int
    window: Window | None = None
    file_type: FileType = "jpeg"


@dataclass(frozen=True)
class Levels:
    """What the pixels of a frame are like.

    Attributes
    ----------
    low, high
        The smallest and the largest; of floats the finite ones.
    black, white
        Levels that show nearly all of them.
    counts
        How many pixels (of a sample) are in each of `HISTOGRAM_BINS` bins from low to high.
    """

    low: float
    high: float
    black: float
    white: float
    counts: list[int]


def encoded_picture(image: NDArray[Any], framing: Framing, look: Look) -> bytes:
    """Return a frame as an encoded picture.

    Parameters
    ----------
    image
        (y, x) or (y, x, channel), BGR where there are three channels; integers, floats, bool.
    framing, look
        What is shown of it, and how.
    """
    part = image if framing.window is None else image[framing.window.slices]
    shown = in_look(shrunk(displayable(part), framing.height, framing.width), look)
    options = list(_QUALITY[framing.file_type])
    if framing.file_type == "jpeg" and shown.ndim == 3:
        options += _WHOLE_CHROMA
    return cv2.imencode(f".{framing.file_type}", shown, options)[1].tobytes()


def displayable(image: NDArray[Any]) -> NDArray[Any]:
    """Return an image as gray or BGR: without alpha, and of channels that are no colours the first."""
    if image.ndim == 3 and image.shape[2] != 3:
        image = image[..., :3] if image.shape[2] > 3 else image[..., 0]
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * 255
    return image


def shrunk(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Return an image that fits into a size, each pixel the mean of those it stands for."""
    y, x = image.shape[:2]
    scale = min(height / y, width / x)
    if scale >= 1:
        return image
    size = max(1, round(x * scale)), max(1, round(y * scale))
    if image.dtype.name not in _RESIZABLE:
        image = image.astype(np.float64)
    image = np.ascontiguousarray(image)
    if image.dtype.kind != "f" or np.isfinite(image).all():
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    # Pixels that are not finite do not count.
    finite = np.isfinite(image)
    weight = cv2.resize(finite.astype(np.float64), size, interpolation=cv2.INTER_AREA)
    known = cv2.resize(
        np.where(finite, image, 0).astype(np.float64), size, interpolation=cv2.INTER_AREA
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 1e-6, known / weight, np.nan)


def in_look(image: NDArray[Any], look: Look) -> Uint8s:
    """Return gray or BGR pixels as they are shown; those that are not finite are gray."""
    gray = _leveled(image, look)
    color_map = COLOR_MAPS[look.color_map]
    if gray.ndim == 3 or color_map is None:
        return gray
    return np.asarray(cv2.applyColorMap(gray, color_map), np.uint8)


def _leveled(image: NDArray[Any], look: Look) -> Uint8s:
    untouched = look.black in (None, 0) and look.white in (None, 255) and look.gamma == 1
    if image.dtype == np.uint8:
        if untouched:
            return np.asarray(image, np.uint8)
        table = _shown(np.arange(256, dtype=np.float64), look)
        return np.asarray(cv2.LUT(np.ascontiguousarray(image), table), np.uint8)
    if image.dtype == np.uint16 and image.size > 2**17:
        return np.take(_shown(np.arange(2**16, dtype=np.float64), look), image)
    return _shown(image.astype(np.float64), look)


def _shown(values: NDArray[np.float64], look: Look) -> Uint8s:
    """Values as 0 .. 255. Halves: the distance of the largest floats is none."""
    black = 0.0 if look.black is None else look.black
    white = 255.0 if look.white is None else look.white
    half = white / 2 - black / 2
    with np.errstate(invalid="ignore", over="ignore"):
        if half > 0:
            light = np.clip((values / 2 - black / 2) / half, 0, 1)
        else:
            light = (values >= white).astype(np.float64)
    light = np.where(np.isfinite(values), light, _MIDDLE)
    return np.rint(light ** (1 / look.gamma) * 255).astype(np.uint8)


def levels_of(image: NDArray[Any]) -> Levels:
    """Return what the pixels of a frame are like."""
    values = displayable(image)
    step = max(1, int(np.sqrt(values.size / _SAMPLED)))
    sample = values[::step, ::step].astype(np.float64).ravel()
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        return Levels(0.0, 1.0, 0.0, 1.0, [0] * HISTOGRAM_BINS)
    low, high = float(sample.min()), float(sample.max())
    black, white = (float(v) for v in np.percentile(sample / 2, [_LEFT_OUT, 100 - _LEFT_OUT]) * 2)
    if black == white:
        black, white = (low, high) if low < high else (low, low + 1)
    span = (low / 2, high / 2) if low < high else (low / 2, low / 2 + 1)
    counts = np.histogram(sample / 2, HISTOGRAM_BINS, range=span)[0]
    return Levels(low, high, black, white, counts.tolist())


def original_png(image: NDArray[Any], name: str) -> bytes:
    """Return a frame as a PNG that holds its pixels as they are.

    Raises
    ------
    UnsupportedFormatError
        PNG cannot hold these pixels.
    """
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype.name not in ("uint8", "uint16") or channels not in (1, 3, 4):
        raise UnsupportedFormatError(
            f"{name}: a PNG holds uint8 and uint16, gray or colour, not {image.dtype} with "
            f"{channels} channels; read these pixels in Python, with store.frames[...]"
        )
    return cv2.imencode(".png", np.ascontiguousarray(image))[1].tobytes()

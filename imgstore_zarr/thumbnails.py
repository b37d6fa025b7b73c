"""A few frames of a recording as small pictures side by side, for notebooks."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import ImgStoreError
from imgstore_zarr.index import Float64s, Int64s

MAX_THUMBNAILS = 6
"""Frames in one strip, and so the most that are read."""

_HEIGHT = 72
_BETWEEN = 3

# A picture is at most so many times as wide as it is high, and the other way round.
_MOST_ASPECT = 4

# Of all pixels that are shown, what is black and what is white.
_PERCENTILES = (1.0, 99.0)

# A PNG of camera noise is large, and a notebook keeps it.
_LARGE_PNG = 48 * 1024
_JPEG_QUALITY = 88

_PAPER, _PLAIN, _HATCH, _MIDDLE = 255, 225, 190, 128

_Uint8s = NDArray[np.uint8]


class _Frames(Protocol):
    """What `Frames` and arrays have in common."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def spread_positions(count: int, most: int = MAX_THUMBNAILS) -> Int64s:
    """Return at most `most` positions at even distances among `count`, int64."""
    shown = min(count, most)
    return (np.arange(shown) * 2 + 1) * count // max(2 * shown, 1)


def thumbnail_strip(
    frames: _Frames, positions: Sequence[int] | Int64s, *, height: int = _HEIGHT
) -> bytes:
    """Return frames as small pictures side by side.

    Parameters
    ----------
    frames
        Integers or floats, (frame, y, x) or (frame, y, x, channel), BGR where there are three
        channels: `ImgStore.frames`, or an array.
    positions
        Of the frames to show. Of more than `MAX_THUMBNAILS`, that many at even distances.
    height
        Of the strip, in pixels.

    Returns
    -------
    bytes
        A PNG; a JPEG where that would be large. uint8 is shown as it is; else the 1st percentile of
        all that is shown is black and the 99th white, for all frames alike, and pixels that are not
        finite are gray. A frame that cannot be read is hatched.

    Raises
    ------
    ValueError
        No position is given.
    """
    return _strip(frames, positions, height)[0]


def strip_html(frames: _Frames, positions: Sequence[int] | Int64s, *, height: int = _HEIGHT) -> str:
    """Return `thumbnail_strip` as an ``<img>`` that holds its picture; empty without positions."""
    if not len(positions):
        return ""
    picture, unread = _strip(frames, positions, height)
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    shown = ", ".join(str(position) for position in _shown(positions))
    text = f"frames at positions {shown}"
    if unread:
        text += f" (not readable: {', '.join(map(str, unread))})"
    data = base64.b64encode(picture).decode()
    return f'<img src="data:image/{kind};base64,{data}" alt="{html.escape(text)}">'


def _shown(positions: Sequence[int] | Int64s) -> list[int]:
    return [int(positions[i]) for i in spread_positions(len(positions))]


def _strip(
    frames: _Frames, positions: Sequence[int] | Int64s, height: int
) -> tuple[bytes, list[int]]:
    """The encoded strip, and the positions that could not be read."""
    if not len(positions):
        raise ValueError("a strip of frames needs at least one position")
    # Read and made small one after the other: whole frames can be large.
    small: dict[int, _Uint8s | Float64s | None] = {}
    for position in _shown(positions):
        try:
            image = np.asarray(frames[position])
        except (ImgStoreError, OSError):
            # What is shown of a recording never fails for what is damaged in it.
            small[position] = None
        else:
            small[position] = _small(image, height) if image.size else None
    low, high = _range([image for image in small.values() if image is not None])
    y, x = _fitted(frames.shape[1], frames.shape[2], height)
    tiles = [
        _hatched(y, x) if image is None else _in_color(_as_uint8(image, low, high))
        for image in small.values()
    ]
    unread = [position for position, image in small.items() if image is None]
    return _encoded(_side_by_side(tiles, height)), unread


def _fitted(y: int, x: int, height: int) -> tuple[int, int]:
    """The size of an image that is to fit into a strip."""
    scale = min(height / max(y, 1), height * _MOST_ASPECT / max(x, 1))
    return max(1, round(y * scale)), max(1, round(x * scale))


def _small(image: NDArray[Any], height: int) -> _Uint8s | Float64s:
    """An image at the size of a thumbnail: uint8 as it is, all else as float64, perhaps NaN."""
    import cv2

    if image.ndim == 3 and image.shape[2] != 3:
        # With alpha, or of channels that are no colours.
        image = image[..., :3] if image.shape[2] > 3 else image[..., 0]
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * 255
    y, x = _fitted(image.shape[0], image.shape[1], height)
    # Pixels that become larger stay pixels.
    how = cv2.INTER_AREA if y < image.shape[0] or x < image.shape[1] else cv2.INTER_NEAREST

    def resized(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(cv2.resize(np.ascontiguousarray(values), (x, y), interpolation=how))

    if image.dtype == np.uint8:
        return resized(image)
    values = image.astype(np.float64)
    finite = np.isfinite(values)
    values[~finite] = 0
    # The sum of the largest floats is none.
    scale = float(np.abs(values).max()) or 1.0
    weight = resized(finite.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        shown: Float64s = resized(values / scale) / weight
    # What is left where no pixel counts can be as small as a rounding error.
    return np.where(weight > 1e-6, np.clip(shown, -1, 1), np.nan) * scale


def _range(images: Sequence[_Uint8s | Float64s]) -> tuple[float, float]:
    """Which values are black and white."""
    values = np.concatenate([np.empty(0), *(i.ravel() for i in images if i.dtype != np.uint8)])
    values = values[~np.isnan(values)]
    if not len(values):
        return 0.0, 0.0
    # Halves: the distance of the largest floats is none.
    low, high = np.percentile(values / 2, _PERCENTILES)
    if low == high:
        low, high = values.min() / 2, values.max() / 2
    return float(low), float(high)


def _as_uint8(image: _Uint8s | Float64s, low: float, high: float) -> _Uint8s:
    """An image as uint8, from half the value that is black to half the one that is white."""
    if image.dtype == np.uint8:
        return np.asarray(image, np.uint8)
    known = ~np.isnan(image)
    gray = np.full(image.shape, _MIDDLE, np.float64)
    if high > low:
        gray[known] = np.clip((image[known] / 2 - low) / (high - low), 0, 1) * 255
    return gray.round().astype(np.uint8)


def _in_color(image: _Uint8s) -> _Uint8s:
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def _hatched(y: int, x: int) -> _Uint8s:
    """What stands for a frame that cannot be read."""
    lines = np.add.outer(np.arange(y), np.arange(x)) % 12 < 3
    return _in_color(np.where(lines, _HATCH, _PLAIN).astype(np.uint8))


def _side_by_side(tiles: Sequence[_Uint8s], height: int) -> _Uint8s:
    """Images in one row, each in the middle of its height, on white."""
    width = sum(tile.shape[1] for tile in tiles) + _BETWEEN * (len(tiles) - 1)
    strip = np.full((height, width, 3), _PAPER, np.uint8)
    left = 0
    for tile in tiles:
        top = (height - tile.shape[0]) // 2
        strip[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        left += tile.shape[1] + _BETWEEN
    return strip


def _encoded(strip: _Uint8s) -> bytes:
    import cv2

    if bool((strip == strip[..., :1]).all()):
        strip = np.ascontiguousarray(strip[..., 0])
    png = cv2.imencode(".png", strip)[1].tobytes()
    if len(png) <= _LARGE_PNG:
        return png
    return cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()

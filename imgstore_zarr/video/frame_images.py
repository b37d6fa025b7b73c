"""FrameImages: decoded frames as images, with the pixels that OpenCV's VideoCapture gives."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.pixels import ensure_gray
from imgstore_zarr.video.planes import plane_memory

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Cut = tuple[slice, slice]

# Formats with 8 bits of luma in a plane of its own, and chroma, if any, in the planes after it.
_PLANAR = frozenset(
    {"gray", *(f"yuv{j}{s}p" for j in ("", "j") for s in ("411", "420", "422", "440", "444"))}
)
_NEUTRAL = 128


class _Kind(NamedTuple):
    """All that says how the pixels of a frame become BGR."""

    format: str
    width: int
    height: int
    colorspace: int
    color_range: int


class FrameImages:
    """Converts the frames of one decoder; for one thread at a time.

    Colour is what swscale makes of a frame (bicubic), gray what OpenCV makes of that. Where chroma is
    neutral, gray depends on luma alone: then a table gives the same, at less cost.

    Parameters
    ----------
    color
        Whether images are BGR or gray.
    """

    def __init__(self, color: bool) -> None:
        from av.video.reformatter import VideoReformatter

        self._color = color
        self._reformatter = VideoReformatter()

    def image(self, frame: VideoFrame, cut: Cut, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return a part of a frame, of this shape, in memory of its own."""
        if self._color:
            whole = _bgr(self._reformatter, frame)
            part = whole[cut]
            # Where nothing is cut off, the memory that swscale filled is handed on.
            return part if part.shape == whole.shape and part.flags.c_contiguous else part.copy()
        image = np.empty(shape, np.uint8)
        self.write(frame, cut, image)
        return image

    def write(self, frame: VideoFrame, cut: Cut, out: NDArray[np.uint8]) -> None:
        """Write a part of a frame into an array."""
        if not self._color:
            table = self._table(frame)
            if table is not None:
                _look_up(table, _plane(frame, 0)[cut], out)
                return
        bgr = _bgr(self._reformatter, frame)[cut]
        out[...] = bgr if self._color else ensure_gray(bgr)

    def _table(self, frame: VideoFrame) -> NDArray[np.uint8] | None:
        kind = _Kind(
            frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_range
        )
        if kind.format not in _PLANAR or not _is_top_down(frame) or not _is_neutral(frame):
            return None
        return gray_table(kind)


@functools.lru_cache(64)
def gray_table(kind: _Kind) -> NDArray[np.uint8] | None:
    """Return the gray of each luma for frames of a kind, if it depends on nothing else.

    Derived from the two conversions themselves, which are tried with each of the 256 levels in every
    column, and in even and odd rows: where one result differs, there is no table.

    Returns
    -------
    ndarray or None
        uint8 (256,).
    """
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    table, known = np.zeros(256, np.uint8), np.zeros(256, bool)
    # As many rows as show every level in each column; more would be converted like these.
    height = min(kind.height, 512)
    rows, columns = np.arange(height)[:, None] // 2, np.arange(kind.width)
    for start in range(0, 256, max(height // 2, 1)):
        frame = VideoFrame(kind.width, height, kind.format)
        frame.colorspace, frame.color_range = kind.colorspace, kind.color_range
        luma = ((rows + columns + start) % 256).astype(np.uint8)
        _plane(frame, 0)[...] = luma
        for i in range(1, len(frame.planes)):
            _plane(frame, i)[...] = _NEUTRAL
        gray = ensure_gray(np.ascontiguousarray(_bgr(reformatter, frame)))
        fresh = ~known[luma]
        table[luma[fresh]] = gray[fresh]
        known[luma] = True
        if not np.array_equal(table[luma], gray):
            return None
    return table


def _is_top_down(frame: VideoFrame) -> bool:
    """Whether the first row comes first in memory; raw video may have it last."""
    return all(plane.line_size > 0 for plane in frame.planes)


def _is_neutral(frame: VideoFrame) -> bool:
    import cv2

    for i in range(1, len(frame.planes)):
        low, high, _, _ = cv2.minMaxLoc(_plane(frame, i))
        if low != _NEUTRAL or high != _NEUTRAL:
            return False
    return True


def _look_up(table: NDArray[np.uint8], luma: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    import cv2

    if luma.size:
        # OpenCV writes into the array itself where it can, and into one of its own elsewhere.
        result = cv2.LUT(luma, table, dst=out)
        if result is not out:
            out[...] = result


def _bgr(reformatter: Any, frame: VideoFrame) -> NDArray[np.uint8]:
    """Return a frame as BGR, (y, x, 3), in the memory of FFmpeg."""
    from av.video.reformatter import Interpolation

    # Bicubic, and not the default: so does OpenCV, and with bilinear 10-bit differs.
    converted = reformatter.reformat(
        frame, format="bgr24", interpolation=Interpolation.BICUBIC, threads=1
    )
    plane = plane_memory(converted.planes[0])
    return plane[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)


def _plane(frame: VideoFrame, i: int) -> NDArray[np.uint8]:
    plane = frame.planes[i]
    return plane_memory(plane)[:, : plane.width]

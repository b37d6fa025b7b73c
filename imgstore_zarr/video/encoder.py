"""VideoEncoder: writes one video file, one frame after the other."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import UnsupportedFormatError
from imgstore_zarr.pixels import is_color

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


@dataclass(frozen=True)
class EncoderOptions:
    """How frames are encoded.

    Attributes
    ----------
    fps
        Frames per second that players show; frame times are in the index, not here.
    crf
        Constant rate factor of x264, 0 (best) to 51; 18 looks the same as the source.
    preset
        Speed against size, as x264 names it.
    gop
        Frames from one key frame to the next; None is about one second.
    """

    fps: float = 25.0
    crf: float = 18.0
    preset: str = "veryfast"
    gop: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fps < 1e6:
            raise UnsupportedFormatError(f"fps must be above 0, not {self.fps!r}")
        if not 0 <= self.crf <= 51:
            raise UnsupportedFormatError(f"crf must be from 0 to 51, not {self.crf!r}")
        if self.gop is not None and self.gop < 1:
            raise UnsupportedFormatError(f"gop must be at least 1, not {self.gop!r}")
        if self.preset not in _PRESETS:
            raise UnsupportedFormatError(
                f"preset {self.preset!r} is not known; known are {', '.join(_PRESETS)}"
            )


_PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
)


@functools.cache
def _limited_range() -> NDArray[np.uint8]:
    """Luma of gray 0 .. 255 in limited range: 16 + 219 g / 255 (ITU-R BT.601)."""
    return np.rint(16 + 219 * np.arange(256) / 255).astype(np.uint8)


class VideoEncoder:
    """Encodes images into a file; the number of frames in it is exactly the number written.

    After an error in `write` that is no longer so: the encoder may have taken the image. Then only
    `close` is of use.

    Parameters
    ----------
    path
        The file; its ending says the container.
    codec
        ``libx264`` or ``mjpeg``.
    image_shape
        (y, x) or (y, x, 3), even sizes.
    options
        How to encode.
    """

    def __init__(
        self, path: Path, codec: str, image_shape: tuple[int, ...], options: EncoderOptions
    ) -> None:
        self._color = is_color(image_shape)
        self._limited = codec == "libx264"
        self._count = 0
        import av

        self._container = av.open(str(path), "w")
        rate = Fraction(options.fps).limit_denominator(10_000)
        self._pixel_format = "yuv420p" if self._limited else "yuvj420p"
        self._stream = cast("VideoStream", self._container.add_stream(codec, rate=rate))
        self._stream.height, self._stream.width = image_shape[:2]
        self._stream.pix_fmt = self._pixel_format
        context = self._stream.codec_context
        context.time_base = 1 / rate
        if self._limited:
            context.gop_size = options.gop or max(1, round(options.fps))
            # Without B-frames a frame is decoded from fewer others, and nothing is reordered.
            context.max_b_frames = 0
            context.options = {"crf": str(options.crf), "preset": options.preset}
        else:
            context.options = {"qmin": "1", "qmax": "2"}

    def write(self, image: NDArray[np.uint8]) -> None:
        """Encode one image."""
        frame = self._frame(image)
        frame.pts = self._count
        frame.time_base = self._stream.codec_context.time_base
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def _frame(self, image: NDArray[np.uint8]) -> VideoFrame:
        from av.video.frame import VideoFrame

        if self._color:
            return VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        height, width = image.shape
        frame = VideoFrame(width, height, self._pixel_format)
        luma, *chroma = (_pixels(plane) for plane in frame.planes)
        if self._limited:
            np.take(_limited_range(), image, out=luma[:, :width], mode="clip")
        else:
            luma[:, :width] = image
        for plane in chroma:
            plane[:] = 128
        return frame

    def close(self) -> None:
        """Encode what is held back, and finish the file as far as that goes."""
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


def _pixels(plane: Any) -> NDArray[np.uint8]:
    """The memory of a plane, (rows, bytes in a row)."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]

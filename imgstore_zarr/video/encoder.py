"""VideoEncoder: writes one video file, one frame after the other."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.cores import CORES
from imgstore_zarr.errors import CorruptChunkError, UnsupportedFormatError
from imgstore_zarr.pixels import is_color
from imgstore_zarr.video.planes import plane_memory

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


# The frames that x264 looks ahead, and so holds back, for each preset (x264 --fullhelp).
_PRESETS = {
    "ultrafast": 0,
    "superfast": 0,
    "veryfast": 10,
    "faster": 20,
    "fast": 30,
    "medium": 40,
    "slow": 50,
    "slower": 60,
    "veryslow": 60,
    "placebo": 60,
}

# Looking ahead does more for quality than threads do for speed.
_HELD_PER_THREAD = 3

_INT_MAX = 2**31 - 1


@functools.cache
def _limited_range() -> NDArray[np.uint8]:
    """Luma of gray 0 .. 255 in limited range: 16 + 219 g / 255 (ITU-R BT.601)."""
    return np.rint(16 + 219 * np.arange(256) / 255).astype(np.uint8)


class VideoEncoder:
    """Encodes images into a file; the number of frames in it is exactly the number written.

    A process that is killed leaves a file from which all can be read but the frames that were held
    back. `close` makes it an ordinary file, which can be searched.

    After an error in `write` nobody knows how many frames are in the file: the encoder may have taken
    the image. Then only `close` is of use.

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
    held_back
        Frames that the encoder may hold back, and as many again the container, which always holds
        back one unless it is an AVI; None is half a second at ``options.fps``.
    """

    def __init__(
        self,
        path: Path,
        codec: str,
        image_shape: tuple[int, ...],
        options: EncoderOptions,
        held_back: int | None = None,
    ) -> None:
        import av

        if held_back is None:
            held_back = int(options.fps / 2)
        self._path = path
        self._color = is_color(image_shape)
        self._limited = codec == "libx264"
        self._count = 0
        self._encoded = 0
        rate = _fraction(options.fps)
        self._container = av.open(str(path), "w", options=_container_options(path, rate, held_back))
        self._pixel_format = "yuv420p" if self._limited else "yuvj420p"
        self._stream = cast("VideoStream", self._container.add_stream(codec, rate=rate))
        self._stream.height, self._stream.width = image_shape[:2]
        self._stream.pix_fmt = self._pixel_format
        context = self._stream.codec_context
        context.time_base = 1 / rate
        if self._limited:
            # Each thread has a frame of its own, and holds it back.
            threads = max(1, min(CORES, held_back // _HELD_PER_THREAD))
            context.thread_type = "FRAME"
            context.thread_count = threads
            looked_ahead = held_back - threads if threads > 1 else held_back
            context.gop_size = options.gop or max(1, round(options.fps))
            # Without B-frames a frame is decoded from fewer others, and nothing is reordered.
            context.max_b_frames = 0
            context.options = {
                "crf": str(options.crf),
                "preset": options.preset,
                "rc-lookahead": str(min(looked_ahead, _PRESETS[options.preset])),
                # At a variable rate x264 waits for the next frame, to see how long one is shown.
                "x264-params": "force-cfr=1",
            }
        else:
            # Threads with frames of their own would hold back as many, and are not needed.
            context.thread_type = "SLICE"
            context.options = {"qmin": "1", "qmax": "2"}

    def write(self, image: NDArray[np.uint8]) -> None:
        """Encode one image."""
        frame = self._frame(image)
        frame.pts = self._count
        frame.time_base = self._stream.codec_context.time_base
        self._count += 1
        self._encode(frame)

    def _encode(self, frame: VideoFrame | None) -> None:
        packets = self._stream.encode(frame)
        self._container.mux(packets)
        self._encoded += len(packets)

    def _frame(self, image: NDArray[np.uint8]) -> VideoFrame:
        from av.video.frame import VideoFrame

        if self._color:
            return VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        height, width = image.shape
        frame = VideoFrame(width, height, self._pixel_format)
        luma, *chroma = (plane_memory(plane) for plane in frame.planes)
        if self._limited:
            np.take(_limited_range(), image, out=luma[:, :width], mode="clip")
        else:
            luma[:, :width] = image
        for plane in chroma:
            plane[:] = 128
        return frame

    def close(self) -> None:
        """Encode what is held back, and finish the file as far as that goes.

        Raises
        ------
        CorruptChunkError
            The encoder gave another number of frames than it took.
        """
        try:
            self._encode(None)
        finally:
            self._container.close()
        if self._encoded != self._count:
            raise CorruptChunkError(
                f"{self._path}: of {self._count} frames the encoder gave {self._encoded}"
            )


def _fraction(fps: float) -> Fraction:
    """A rate as containers hold it; of low ones the time between two frames is what must be exact."""
    if fps >= 1:
        return Fraction(fps).limit_denominator(10_000)
    return 1 / Fraction(1 / fps).limit_denominator(10_000)


def _container_options(path: Path, rate: Fraction, held_back: int) -> dict[str, str]:
    """Options by which a container writes the file piece by piece, each of a few frames.

    A piece is written when a frame comes that is later than it may last.
    """
    seconds = (max(held_back, 1) - Fraction(1, 2)) / rate
    options = {"flush_packets": "1"}
    if path.suffix == ".mp4":
        # Fragments while it is written; its end makes it a file without fragments.
        options["movflags"] = "hybrid_fragmented"
        options["frag_duration"] = str(min(max(int(seconds * 1_000_000), 1), _INT_MAX))
    elif path.suffix == ".mkv":
        options["cluster_time_limit"] = str(min(int(seconds * 1000), _INT_MAX))
    return options

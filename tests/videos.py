"""Makes video files of many kinds, and the frames that OpenCV finds in them from start to end."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

Images = NDArray[np.uint8]


def barcode(number: int, shape: tuple[int, int] = (96, 128), bits: int = 16) -> Images:
    """A number as vertical bars, black and white, most significant bit at the left."""
    bars = np.array([255 * int(c) for c in f"{number:0{bits}b}"], np.uint8)
    return np.repeat(np.repeat(bars[None], shape[0], 0), -(-shape[1] // bits), 1)[:, : shape[1]]


def read_barcode(image: Images, bits: int = 16) -> int:
    """The number of a `barcode`, after lossy compression."""
    gray = image if image.ndim == 2 else image.mean(axis=2)
    width = gray.shape[1] // bits
    bars = [gray[:, i * width : (i + 1) * width].mean() > 127 for i in range(bits)]
    return int("".join(str(int(bar)) for bar in bars), 2)


def scene(count: int, shape: tuple[int, int] = (96, 128)) -> Images:
    """Frames with a barcode of their number above something that moves."""
    rng = np.random.default_rng(count)
    ground = cv2.GaussianBlur(rng.integers(0, 255, shape, dtype=np.uint8), (0, 0), 2)
    frames = []
    for number in range(count):
        frame = np.roll(ground, 3 * number, axis=1)
        frame[: shape[0] // 2] = barcode(number, (shape[0] // 2, shape[1]))
        frames.append(frame)
    return np.stack(frames)


@dataclass(frozen=True)
class Kind:
    """One way to encode a file."""

    name: str
    codec: str
    pix_fmt: str = "yuv420p"
    suffix: str = ".mp4"
    options: Mapping[str, str] = field(default_factory=dict)
    stamps: Sequence[int] | None = None


FRAMES = 60

_VARIABLE = tuple(int(n) for n in np.cumsum(np.random.default_rng(3).integers(1, 9, FRAMES)))

KINDS = [
    Kind("plain", "libx264", options={"bf": "0", "g": "12"}),
    Kind("b-frames", "libx264", options={"bf": "3", "g": "12", "x264-params": "b-pyramid=normal"}),
    Kind("open-gop", "libx264", options={"bf": "3", "g": "10", "x264-params": "open-gop=1"}),
    Kind("intra-refresh", "libx264", options={"g": "10", "x264-params": "intra-refresh=1"}),
    Kind("one-gop", "libx264", options={"bf": "2", "g": "999"}),
    Kind("key-frames", "libx264", options={"g": "1"}),
    Kind("yuv444p", "libx264", "yuv444p", options={"bf": "3", "g": "12"}),
    Kind("ten-bit", "libx264", "yuv420p10le", options={"bf": "3", "g": "12"}),
    Kind("gray", "libx264", "gray", options={"g": "12"}),
    Kind("variable-rate", "libx264", options={"bf": "2", "g": "12"}, stamps=_VARIABLE),
    Kind(
        "late-start",
        "libx264",
        options={"bf": "2", "g": "12"},
        stamps=[n + 1000 for n in range(FRAMES)],
    ),
    Kind("mkv", "libx264", suffix=".mkv", options={"bf": "3", "g": "12"}),
    Kind("fragmented", "libx264", options={"bf": "3", "g": "12", "movflags": "frag_keyframe"}),
    Kind("transport-stream", "libx264", suffix=".ts", options={"bf": "3", "g": "12"}),
    Kind("mjpeg", "mjpeg", "yuvj420p", ".avi"),
    # AVI holds no presentation times, so that its frames can only be counted.
    Kind("b-frames-avi", "libx264", suffix=".avi", options={"bf": "3", "g": "12"}),
    Kind("plain-avi", "libx264", suffix=".avi", options={"bf": "0", "g": "12"}),
    Kind("mpeg4-b-frames-avi", "mpeg4", suffix=".avi", options={"bf": "3", "g": "12"}),
    Kind("mpeg4", "mpeg4", suffix=".mp4", options={"bf": "2", "g": "12"}),
    Kind("mpeg4-avi", "mpeg4", suffix=".avi", options={"bf": "0", "g": "12"}),
    Kind("ffv1", "ffv1", suffix=".mkv", options={"g": "5"}),
    Kind("vp9", "libvpx-vp9", suffix=".webm", options={"g": "12", "deadline": "realtime"}),
    Kind("hevc", "libx265", options={"g": "12", "x265-params": "log-level=none:bframes=3"}),
]

# Options of the container; the others are the encoder's.
_CONTAINER = frozenset({"movflags"})


def encode(path: Path, frames: Images, kind: Kind) -> Path:
    """Write frames to a file in one way."""
    with av.open(
        str(path), "w", options={k: v for k, v in kind.options.items() if k in _CONTAINER}
    ) as file:
        stream = file.add_stream(
            kind.codec,
            rate=25,
            options={k: v for k, v in kind.options.items() if k not in _CONTAINER},
        )
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = kind.pix_fmt
        for i, frame in enumerate(frames):
            image = av.VideoFrame.from_ndarray(frame, format="gray").reformat(format=kind.pix_fmt)
            image.pts = i if kind.stamps is None else kind.stamps[i]
            image.time_base = Fraction(1, 25)
            file.mux(stream.encode(image))
        file.mux(stream.encode(None))
    return path


def opencv_frames(path: Path) -> Images:
    """What OpenCV decodes from the start to the end, (frame, y, x, 3)."""
    capture = cv2.VideoCapture(str(path))
    frames: list[Images] = []
    while True:
        there, frame = capture.read()
        if not there:
            capture.release()
            return np.stack(frames)
        frames.append(frame.astype(np.uint8, copy=False))


def decode_in_sequence(path: Path) -> dict[int, Images]:
    """What FFmpeg decodes from start to end by one thread, whatever is damaged: BGR by pts."""
    frames: dict[int, Images] = {}
    reformatter = VideoReformatter()
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.thread_type = "NONE"
        for packet in file.demux(stream):
            with contextlib.suppress(av.FFmpegError):
                for frame in stream.codec_context.decode(packet if packet.size else None):
                    bgr = reformatter.reformat(
                        frame, format="bgr24", interpolation=Interpolation.BICUBIC, threads=1
                    )
                    if frame.pts is not None:
                        frames[frame.pts] = bgr.to_ndarray().astype(np.uint8, copy=False)
    return frames

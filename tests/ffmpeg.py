"""The ffmpeg command: makes video files of many kinds, and says which frames are in them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation, VideoReformatter

from tests.videos import Images

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="the ffmpeg command is not installed"
)


@dataclass(frozen=True)
class Made:
    """One way to make a file with the ffmpeg command.

    Attributes
    ----------
    name, suffix
        The file.
    arguments
        What is given to the encoder and the muxer.
    shape
        (y, x) of the images.
    count
        How many of them.
    before
        What is given for the input.
    """

    name: str
    suffix: str
    arguments: str
    shape: tuple[int, int] = (96, 128)
    count: int = 60
    before: str = ""

    @property
    def encoder(self) -> str:
        words = self.arguments.split()
        return words[words.index("-c:v") + 1]


def has_encoder(name: str) -> bool:
    listing = subprocess.run(
        ["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True, check=True
    )
    return any(line.split()[1:2] == [name] for line in listing.stdout.splitlines())


def make(path: Path, images: Images, made: Made) -> Path:
    """Encode gray images."""
    height, width = images.shape[1:]
    command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "gray"]
    command += ["-s", f"{width}x{height}", "-r", "25", *made.before.split(), "-i", "-"]
    command += [*made.arguments.split(), str(path)]
    subprocess.run(command, input=images.tobytes(), check=True, timeout=100)
    return path


def copy(source: Path, target: Path, before: str = "", arguments: str = "") -> Path:
    """Put the packets of a file into another one."""
    command = ["ffmpeg", "-v", "error", "-y", *before.split(), "-i", str(source), "-c", "copy"]
    subprocess.run([*command, *arguments.split(), str(target)], check=True, timeout=100)
    return target


def _run(path: Path, arguments: Sequence[str]) -> bytes:
    command = ["ffmpeg", "-v", "quiet", "-copyts", "-i", str(path), "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-enc_time_base", "-1", "-autoscale", "0", *arguments]
    return subprocess.run([*command, "-"], capture_output=True, timeout=100, check=False).stdout


def decode(path: Path) -> tuple[list[int], Images]:
    """Return the frames of a decode from start to end.

    The command decodes; its planes become BGR by the swscale of PyAV, since that of the command may be
    another version.

    Returns
    -------
    pts, images
        pts in the time base of the stream, and uint8 (frame, y, x, 3).
    """
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        context, time_base = stream.codec_context, stream.time_base
        pixel_format, height, width = context.pix_fmt, context.height, context.width
        first = next(file.decode(stream))
    raw = _run(path, ["-f", "rawvideo", "-pix_fmt", str(pixel_format)])
    listing = _run(path, ["-f", "framemd5"]).decode().splitlines()
    own = next((Fraction(line.split()[-1]) for line in listing if line.startswith("#tb 0")), None)
    stamps = [int(line.split(",")[2]) for line in listing if not line.startswith("#")]
    pts = [int(stamp * own / time_base) for stamp in stamps] if own and time_base else []
    blank = av.VideoFrame(width, height, str(pixel_format))
    sizes = [(p.height, _bytes_in_row(blank, i)) for i, p in enumerate(blank.planes)]
    each = sum(rows * row for rows, row in sizes)
    assert len(raw) == each * len(pts)
    reformatter = VideoReformatter()
    images = []
    for at in range(0, len(raw), each):
        frame = av.VideoFrame(width, height, str(pixel_format))
        frame.colorspace, frame.color_range = first.colorspace, first.color_range
        for plane, (rows, row) in zip(frame.planes, sizes, strict=True):
            memory = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            memory[:rows, :row] = np.frombuffer(raw, np.uint8, rows * row, at).reshape(rows, row)
            at += rows * row
        bgr = reformatter.reformat(
            frame, format="bgr24", interpolation=Interpolation.BICUBIC, threads=1
        )
        images.append(bgr.to_ndarray().astype(np.uint8, copy=False))
    return pts, np.stack(images) if images else np.empty((0, height, width, 3), np.uint8)


def _bytes_in_row(frame: av.VideoFrame, i: int) -> int:
    component = frame.format.components[i]
    return frame.planes[i].width * (-(-component.bits // 8))

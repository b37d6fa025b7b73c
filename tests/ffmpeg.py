"""The ffmpeg command: makes video files of many kinds, and says which frames are in them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
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


def _command(path: Path, *arguments: str) -> list[str]:
    command = ["ffmpeg", "-v", "quiet", "-copyts", "-i", str(path), "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-enc_time_base", "-1", "-autoscale", "0"]
    return [*command, *arguments, "-"]


def frames(path: Path) -> Iterator[Images]:
    """Iterate over the frames of a decode from start to end, uint8 (y, x, 3).

    The command decodes; its planes become BGR by the swscale of PyAV, since that of the command may be
    another version.
    """
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        first = next(file.decode(stream))
    pixel_format = first.format.name
    sizes = [(p.height, _bytes_in_row(first, i)) for i, p in enumerate(first.planes)]
    if first.planes[0].line_size < 0:  # its last row comes first
        first = av.VideoFrame(first.width, first.height, pixel_format)
    reformatter = VideoReformatter()
    command = _command(path, "-f", "rawvideo", "-pix_fmt", pixel_format)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while raw := process.stdout.read(sum(rows * row for rows, row in sizes)):
            at = 0
            # Into a frame of PyAV, which knows the colour space, and where chroma is sampled.
            for plane, (rows, row) in zip(first.planes, sizes, strict=True):
                memory = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
                memory[:rows, :row] = np.frombuffer(raw, np.uint8, rows * row, at).reshape(
                    rows, row
                )
                at += rows * row
            bgr = reformatter.reformat(
                first, format="bgr24", interpolation=Interpolation.BICUBIC, threads=1
            )
            yield np.ascontiguousarray(bgr.to_ndarray(), np.uint8)


def decode(path: Path) -> Images:
    """Return all frames of a decode from start to end, uint8 (frame, y, x, 3)."""
    return np.stack(list(frames(path)))


def _bytes_in_row(frame: av.VideoFrame, i: int) -> int:
    component = frame.format.components[i]
    return frame.planes[i].width * (-(-component.bits // 8))


def times(path: Path) -> list[float]:
    """Return the times of the frames, in the order in which they are shown, in seconds."""
    fields = ["-select_streams", "v:0", "-show_entries", "frame=best_effort_timestamp_time"]
    done = subprocess.run(
        ["ffprobe", "-v", "error", *fields, "-of", "csv=p=0", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(line.split(",")[0]) for line in done.stdout.split()]

"""Where reading can begin: GOPs by the ffprobe command, shards and images by how they were written."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr import ChunkMissingError, Frames
from imgstore_zarr.dataarray import blocks_of
from imgstore_zarr.video import VideoFile
from tests.ffmpeg import Made, make, needs_ffmpeg

COUNT = 100
SHAPE = (48, 64)
EXTENSIONS = {".mp4", ".mkv", ".avi"}

needs_ffprobe = pytest.mark.skipif(
    shutil.which("ffprobe") is None, reason="the ffprobe command is not installed"
)


def scenes(count: int = COUNT) -> NDArray[np.uint8]:
    """Images that change all at once in places, where x264 begins a GOP of its own accord."""
    random = np.random.default_rng(0)
    texture = random.integers(0, 256, (4, *SHAPE), np.uint8)
    scene = np.searchsorted([17, 41, 66], np.arange(count), "right")
    return np.stack([np.roll(texture[s], i // 4, axis=1) for i, s in enumerate(scene)])


def recorded(path: Path, format: str, chunksize: int = 40, **options: Any) -> Path:
    with imgstore_zarr.create(path, format, SHAPE, chunksize=chunksize, **options) as writer:
        for i, image in enumerate(scenes()):
            writer.add_image(image, i, i / 25)
    return path


def key_frames(path: Path) -> list[int]:
    """The key frames of a file, in the order in which its frames are shown."""
    fields = ["-select_streams", "v:0", "-show_frames", "-show_entries", "frame=key_frame"]
    done = subprocess.run(
        ["ffprobe", "-v", "error", *fields, "-of", "json", str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    frames = json.loads(done.stdout)["frames"]
    return [i for i, frame in enumerate(frames) if frame["key_frame"]]


def by_ffprobe(path: Path, chunksize: int) -> list[int]:
    files = sorted(file for file in path.iterdir() if file.suffix in EXTENSIONS)
    return [i * chunksize + key for i, file in enumerate(files) for key in key_frames(file)]


@needs_ffprobe
@pytest.mark.parametrize(
    ("format", "chunksize", "options"),
    [
        ("avc1/mp4", 40, {"gop": 12}),
        ("avc1/mp4", 1000, {"gop": 250}),
        ("h264/mkv", 30, {"gop": 7}),
        # More chunks than are looked into for the blocks of dask.
        ("avc1/mp4", 5, {"gop": 3}),
        ("mjpeg/avi", 40, {}),
    ],
)
def test_gops_as_ffprobe_tells(
    tmp_path: Path, format: str, chunksize: int, options: dict[str, int]
) -> None:
    path = recorded(tmp_path / "r", format, chunksize, **options)
    expected = by_ffprobe(path, chunksize)
    with imgstore_zarr.open(path) as store:
        found = store.frames.boundaries()
        assert found.dtype == np.int64
        assert found.tolist() == expected
        assert {*range(0, COUNT, chunksize)} <= {*expected}
        for start, stop in [(0, 41), (1, 40), (39, 81), (40, 40), (99, 100), (-30, None), (7, -7)]:
            part = [p for p in expected if p in range(COUNT)[start:stop]]
            assert store.frames.boundaries(start, stop).tolist() == part
        assert store.frames.boundaries(3, 10**12).tolist() == [p for p in expected if p > 2]
    if "gop" in options:
        assert len(expected) < COUNT / 2


@needs_ffmpeg
@needs_ffprobe
@pytest.mark.parametrize(
    "made",
    [
        Made("b-frames", ".mp4", "-c:v libx264 -g 20 -bf 3 -x264-params open-gop=0", SHAPE),
        Made("intra", ".mkv", "-c:v libx264 -g 1", SHAPE),
        Made("mpeg4", ".avi", "-c:v mpeg4 -g 9", SHAPE),
    ],
    ids=lambda made: made.name,
)
def test_files_of_the_ffmpeg_command(tmp_path: Path, made: Made) -> None:
    path = make(tmp_path / f"{made.name}{made.suffix}", scenes(made.count), made)
    video = VideoFile(path)
    assert video.boundaries().tolist() == key_frames(path)
    assert video.frames.boundaries(5, 30).tolist() == [p for p in key_frames(path) if 5 <= p < 30]
    video.close()


@pytest.mark.parametrize("format", ["raw/zarr", "zstd/zarr"])
@pytest.mark.parametrize("options", [{}, {"inner_chunks": (8, 24, 32)}])
def test_shards(tmp_path: Path, format: str, options: dict[str, Any]) -> None:
    with imgstore_zarr.open(recorded(tmp_path / "r", format, **options)) as store:
        assert store.frames.boundaries().tolist() == [0, 40, 80]
        assert store.frames.boundaries(1, 80).tolist() == [40]
        assert store.frames.boundaries(80, 81).tolist() == [80]
        assert store.frames.boundaries(-60).tolist() == [40, 80]
        assert store.frames.boundaries(60, 20).tolist() == []
        assert store.frames.boundaries().dtype == store.frames.boundaries(3, 4).dtype == np.int64


@pytest.mark.parametrize("format", ["png/dir", "npy/dir"])
def test_images_are_read_one_by_one(tmp_path: Path, format: str) -> None:
    with imgstore_zarr.open(recorded(tmp_path / "r", format)) as store:
        assert store.frames.boundaries().tolist() == list(range(COUNT))
        assert store.frames.boundaries(30, 50).tolist() == list(range(30, 50))


@pytest.mark.parametrize(
    ("format", "options", "inside"),
    [
        ("zstd/zarr", {}, [40, 80]),
        ("avc1/mp4", {"gop": 12}, [36, 40, 52, 64, 76, 80, 92]),
    ],
)
def test_an_encoding_changes_nothing(
    tmp_path: Path, format: str, options: dict[str, Any], inside: list[int]
) -> None:
    with imgstore_zarr.create(
        tmp_path / "r", format, SHAPE, chunksize=40, encoding="cv_bayerrg", **options
    ) as writer:
        # So much alike that x264 makes no key frames but those it is asked for.
        for i in range(COUNT):
            writer.add_image(scenes(1)[0], i, i / 25)
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert store.image_shape == (*SHAPE, 3)
        assert store.frames.boundaries(30, 100).tolist() == inside
        # Shards that are longer than a block are still cut evenly.
        assert max(blocks_of(store.frames.source, store.index, 20)) <= 24


def test_of_nothing(tmp_path: Path) -> None:
    for format in ("zstd/zarr", "avc1/mp4", "png/dir"):
        path = tmp_path / format.replace("/", "-")
        imgstore_zarr.create(path, format, SHAPE).close()
        with imgstore_zarr.open(path) as store:
            found = store.frames.boundaries()
            assert found.tolist() == []
            assert found.dtype == np.int64


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r", "avc1/mp4")
    with imgstore_zarr.open(path) as store:
        (path / "000001.mp4").unlink()
        with pytest.raises(ChunkMissingError, match="chunk 1"):
            store.frames.boundaries()
        assert store.frames.boundaries(0, 40)[0] == 0
        assert Frames(store.frames.source).boundaries(80).tolist()[0] == 80
        # For blocks it is only advice.
        assert sum(blocks_of(store.frames.source, store.index, 10)) == COUNT

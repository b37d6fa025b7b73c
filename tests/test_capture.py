"""``imgstore-zarr save`` and ``imgstore-save``, and what they read from."""

from __future__ import annotations

import json
import os
import pty
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr import CorruptChunkError, UnsupportedFormatError
from imgstore_zarr.capture import Captured, State, open_source, save
from imgstore_zarr.capture.buffer import Buffer
from imgstore_zarr.capture.images import time_in_name
from imgstore_zarr.capture.source import CapturedFrames
from tests import ffmpeg
from tests.ffmpeg import needs_ffmpeg

Finished = subprocess.CompletedProcess[str]

SCRIPTS = Path(sys.executable).parent
MANY = 200_000

RANDOM = np.random.default_rng(5)
GRAY = RANDOM.integers(0, 256, (12, 24, 32), np.uint8)
DEEP = RANDOM.integers(0, 65536, (12, 24, 32), np.uint16)
COLOR = RANDOM.integers(0, 256, (12, 24, 32, 3), np.uint8)


def run(*words: object, script: str = "imgstore-zarr") -> Finished:
    command = [str(SCRIPTS / script), *(["save"] if script == "imgstore-zarr" else [])]
    return subprocess.run(
        [*command, *map(str, words)], capture_output=True, text=True, timeout=100, check=False
    )


def refused(finished: Finished) -> str:
    assert finished.returncode == 1, finished
    assert finished.stdout == ""
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1
    return finished.stderr


def check(
    path: Path,
    images: NDArray[Any],
    times: Sequence[float] | NDArray[np.float64],
    numbers: Sequence[int] | None = None,
) -> None:
    """Compare a recording, bit by bit."""
    with imgstore_zarr.open(path) as store:
        np.testing.assert_array_equal(store.frames[...], images, strict=True)
        np.testing.assert_allclose(store.index.frame_time, times, rtol=0, atol=1e-6)
        assert store.index.frame_number.tolist() == list(numbers or range(len(images)))
    assert imgstore_zarr.verify(path).ok


def write_images(folder: Path, images: NDArray[Any], suffix: str = ".png") -> Path:
    """One file each, with names that are in another order as text: frame-9 and frame-10."""
    folder.mkdir()
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"frame-{i}{suffix}"), image)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colour, at a variable rate, not beginning at 0."""
    path = tmp_path_factory.mktemp("video") / "bees.mp4"
    command = "ffmpeg -v error -f lavfi -i testsrc=size=64x48:rate=30:duration=3"
    command += " -vf select='lt(n,20)+not(mod(n,4))' -fps_mode vfr -pix_fmt yuv420p"
    command += " -output_ts_offset 2.5"
    subprocess.run([*command.split(), str(path)], check=True, timeout=100)
    return path


@needs_ffmpeg
def test_a_video(video: Path, tmp_path: Path) -> None:
    finished = run(tmp_path / "r", "--source", video)
    assert finished.returncode == 0
    assert finished.stderr == ""
    times = ffmpeg.times(video)
    assert times[0] > 2
    assert len({round(step, 3) for step in np.diff(times)}) > 1
    assert f"{len(times)} frames of {times[-1] - times[0]:.3f} s" in finished.stdout
    check(tmp_path / "r", ffmpeg.decode(video), times)


@needs_ffmpeg
def test_a_part_of_a_video_in_gray(video: Path, tmp_path: Path) -> None:
    images = np.stack([cv2.cvtColor(i, cv2.COLOR_BGR2GRAY) for i in ffmpeg.decode(video)])
    times = ffmpeg.times(video)
    finished = run(tmp_path / "n", "-s", video, "--gray", "--frames", 7, "--chunksize", 3, "--json")
    check(tmp_path / "n", images[:7], times[:7])
    with imgstore_zarr.open(tmp_path / "n") as store:
        assert store.chunks == [0, 1, 2]
    facts = json.loads(finished.stdout)
    assert (facts["frame_count"], facts["dropped"], facts["interrupted"]) == (7, 0, False)
    assert facts["format"] == "zstd/zarr"
    assert facts["duration"] == pytest.approx(times[6] - times[0])

    run(tmp_path / "d", "-s", video, "--gray", "--duration", times[9] - times[0])
    check(tmp_path / "d", images[:9], times[:9])


@needs_ffmpeg
def test_the_script_takes_what_that_of_imgstore_takes(video: Path, tmp_path: Path) -> None:
    decoded = ffmpeg.decode(video)
    assert run(tmp_path / "a", "--source", video, script="imgstore-save").returncode == 0
    with imgstore_zarr.open(tmp_path / "a") as store:
        assert store.format == "mjpeg/avi"  # what imgstore's writes, unless told otherwise
        assert len(store) == len(decoded)
        for image, original in zip(store.frames, decoded, strict=True):
            # The mean of three channels, since chroma has less resolution.
            assert np.abs(image.mean(2) - original.mean(2)).mean() < 3
    words = ("--format", "png", "--source", video, tmp_path / "b")
    assert run(*words, script="imgstore-save").returncode == 0
    check(tmp_path / "b", decoded, ffmpeg.times(video))
    helped = run("--help", script="imgstore-save").stdout
    assert all(word in helped for word in ("--source", "--format", "mjpeg"))


def test_the_script_takes_all_formats_of_imgstore() -> None:
    # As `imgstore-save --help` of imgstore 0.4.0 lists them.
    formats = "tif+color tif png+color bmp+color jpg jpg+color png pgm ppm bmp npy"
    formats += " mjpeg/avi h264/mkv avc1/mp4"
    assert set(formats.split()) <= set(imgstore_zarr.get_supported_formats())


@pytest.mark.parametrize("pixels", [GRAY, DEEP, COLOR], ids=["gray", "uint16", "colour"])
def test_a_folder_of_images_in_the_order_of_their_numbers(
    pixels: NDArray[Any], tmp_path: Path
) -> None:
    folder = write_images(tmp_path / "images", pixels)
    (folder / "notes.txt").write_text("no image")
    (folder / "._frame-3.png").write_bytes(b"what macOS leaves")
    finished = run(tmp_path / "r", "-s", folder, "--metadata", "hive=7", "--metadata", "name=007")
    assert finished.returncode == 0, finished.stderr
    check(tmp_path / "r", pixels, np.arange(12) / 25)
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert store.user_metadata == {"hive": 7, "name": "007"}


def test_a_pattern_of_images_at_a_rate(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", GRAY, ".tif")
    cv2.imwrite(str(folder / "dark.tif"), GRAY[0])
    finished = run(tmp_path / "r", "-s", f"{folder}/frame-*.tif", "--fps", 8, "-f", "png/dir")
    assert finished.returncode == 0, finished.stderr
    check(tmp_path / "r", GRAY, np.arange(12) / 8)


@needs_ffmpeg
@pytest.mark.parametrize("kind", ["rgb24", "rgb48be", "rgba"])
def test_colours_are_in_the_order_of_opencv(kind: str, tmp_path: Path) -> None:
    dtype = np.dtype(">u2" if "48" in kind else "u1")
    pixels = RANDOM.integers(0, 256, (24, 32, len(kind) if kind == "rgba" else 3)).astype(dtype)
    pixels[..., 3:] = 255
    command = f"ffmpeg -v error -f rawvideo -pix_fmt {kind} -s 32x24 -i - -frames:v 1"
    image = tmp_path / "image.png"
    subprocess.run([*command.split(), str(image)], input=pixels.tobytes(), check=True, timeout=100)
    save(open_source(str(image)), tmp_path / "r", "raw/zarr")
    check(tmp_path / "r", pixels[None, :, :, 2::-1].astype(dtype.newbyteorder("=")), [0.0])


@pytest.mark.parametrize("pixels", [GRAY, DEEP, COLOR], ids=["gray", "uint16", "colour"])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_a_stack(pixels: NDArray[Any], suffix: str, tmp_path: Path) -> None:
    stack = tmp_path / f"stack{suffix}"
    if suffix == ".npy":
        np.save(stack, pixels)
    else:
        assert cv2.imwritemulti(str(stack), [*pixels])
    finished = run(tmp_path / "r", "--source", stack, "--fps", "100")
    assert finished.returncode == 0, finished.stderr
    check(tmp_path / "r", pixels, np.arange(12) / 100)


def test_stacks_of_other_dtypes_and_orders(tmp_path: Path) -> None:
    for i, stack in enumerate([DEEP.astype(">u2"), np.asfortranarray(DEEP), DEEP.astype("f4") / 7]):
        np.save(tmp_path / f"{i}.npy", stack)
        save(open_source(str(tmp_path / f"{i}.npy")), tmp_path / str(i), "zstd/zarr")
        expected = np.ascontiguousarray(stack, stack.dtype.newbyteorder("="))
        check(tmp_path / str(i), expected, np.arange(12) / 25)


def test_a_stack_is_decoded_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgstore_zarr.capture.images._BATCH_BYTES", 5 * 24 * 32 * 4)
    asked = []
    read = cv2.imreadmulti

    def noted(file: str, start: int, count: int, flags: int) -> Any:
        asked.append((start, count))
        return read(file, start, count, flags=flags)

    monkeypatch.setattr(cv2, "imreadmulti", noted)
    cv2.imwritemulti(str(tmp_path / "s.tif"), [*DEEP])
    save(open_source(str(tmp_path / "s.tif")), tmp_path / "r", "zstd/zarr")
    assert asked == [(0, 5), (5, 5), (10, 2)]
    check(tmp_path / "r", DEEP, np.arange(12) / 25)


def test_several_stacks_are_one_recording(tmp_path: Path) -> None:
    folder = tmp_path / "stacks"
    folder.mkdir()
    cv2.imwritemulti(str(folder / "part9.tif"), [*DEEP[:5]])
    cv2.imwritemulti(str(folder / "part10.tif"), [*DEEP[5:]])
    source = open_source(str(folder))
    assert source.count == 12
    save(source, tmp_path / "r", "zstd/zarr")
    check(tmp_path / "r", DEEP, np.arange(12) / 25)


def test_tiff_files_by_others(tmp_path: Path) -> None:
    """Big-endian, BigTIFF, several images: made byte by byte."""
    for name, mark, order, word, head in (("II", 42, "<", "I", 8), ("MM", 43, ">", "Q", 16)):
        big = mark == 43
        dtype = np.dtype(f"{order}u2")
        data = bytearray(head)
        struct.pack_into(f"{order}2sH", data, 0, name.encode(), mark)
        if big:
            struct.pack_into(f"{order}HH", data, 4, 8, 0)
        links = [head - struct.calcsize(word)]
        for image in DEEP[:3]:
            strip = len(data)
            data += image.astype(dtype).tobytes()
            values = {256: 32, 257: 24, 258: 16, 259: 1, 262: 1, 273: strip, 277: 1, 278: 24}
            values[279] = image.nbytes
            struct.pack_into(order + word, data, links[-1], len(data))
            data += struct.pack(order + ("Q" if big else "H"), len(values))
            for tag, value in values.items():
                kind = 16 if big else 4
                data += struct.pack(f"{order}HH{word}{word}", tag, kind, 1, value)
            links.append(len(data))
            data += bytes(struct.calcsize(order + word))
        path = tmp_path / f"{name}.tif"
        path.write_bytes(data)
        save(open_source(str(path)), tmp_path / name, "zstd/zarr")
        check(tmp_path / name, DEEP[:3], np.arange(3) / 25)

        # Its last directory leads to the second.
        data[links[3] : links[3] + struct.calcsize(word)] = data[links[1] :][
            : struct.calcsize(word)
        ]
        path.write_bytes(data)
        with pytest.raises(CorruptChunkError, match="in a circle"):
            save(open_source(str(path)), tmp_path / "r", "zstd/zarr")
        struct.pack_into(order + word, data, links[3], len(data) + 1)
        path.write_bytes(data)
        with pytest.raises(CorruptChunkError, match="truncated"):
            save(open_source(str(path)), tmp_path / "r", "zstd/zarr")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cam1_2024-03-01_12-00-00.250Z.png", 1709294400.25),
        ("20240301T120000Z.tif", 1709294400.0),
        ("2024-03-01 12.00.00,5Z_x17.png", 1709294400.5),
        ("image_1709294400.png", 1709294400.0),
        ("image_1709294400.125.png", 1709294400.125),
        ("1709294400125.png", 1709294400.125),
        ("a-1709294400125250-b.png", 1709294400.12525),
        ("1709294400125250000.png", 1709294400.12525),
    ],
)
def test_times_in_names(name: str, expected: float) -> None:
    assert time_in_name(Path("20230101000000", name)) == pytest.approx(expected, abs=1e-6)


def test_times_in_names_are_those_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert time_in_name(Path("2024-03-01_21-00-00.png")) == 1709294400
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("name", ["frame-0012.png", "12345678901234.png", "20241301T120000Z.png"])
def test_names_without_times_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedFormatError, match="holds no time"):
        time_in_name(Path(name))


def test_recording_with_times_from_names(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    times = [1709294400 + i + i * i / 8 for i in range(5)]
    for moment, image in zip(times, GRAY, strict=False):
        cv2.imwrite(str(folder / f"c-{moment:.3f}.png"), image)
    assert run(tmp_path / "r", "-s", folder, "--times-from-names").returncode == 0
    check(tmp_path / "r", GRAY[:5], times)

    both = refused(run(tmp_path / "s", "-s", folder, "--times-from-names", "--fps", 3))
    assert "not both" in both
    cv2.imwrite(str(folder / "c-1709294400.0.png"), GRAY[0])
    assert "not later" in refused(run(tmp_path / "s", "-s", folder, "--times-from-names"))
    cv2.imwrite(str(folder / "dark.png"), GRAY[0])
    assert "dark.png holds no time" in refused(
        run(tmp_path / "s", "-s", folder, "--times-from-names")
    )
    assert not (tmp_path / "s").exists()


# What is refused, before anything is written.


def bad_sources(at: Path) -> dict[str, tuple[str, str]]:
    """What is given as a source, and what the message says."""
    (at / "empty").mkdir()
    (at / "cut.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(500))
    np.save(at / "line.npy", np.arange(9))
    (at / "cut.npy").write_bytes((at / "line.npy").read_bytes()[:-20])
    (at / "text.png").write_text("no image")
    cv2.imwritemulti(str(at / "whole.tif"), [*DEEP])
    whole = (at / "whole.tif").read_bytes()
    (at / "cut.tif").write_bytes(whole[: len(whole) * 2 // 3])
    (at / "imagej.tif").write_bytes(whole + b"ImageJ=1.53\nimages=99\n")
    clear = np.dstack([COLOR[0], GRAY[0]])
    cv2.imwrite(str(at / "clear.png"), clear)
    with imgstore_zarr.create(at / "recording", "raw/zarr", (24, 32)) as writer:
        writer.add_image(GRAY[0], 0, 0.0)
    return {
        "nothing": (f"{at}/nothing.mp4", "does not exist"),
        "pattern": (f"{at}/*.jpg", "does not exist"),
        "of-others": (f"{at}/cut.*", "is no image"),
        "folder": (f"{at}/empty", "holds no images"),
        "recording": (f"{at}/recording", "imgstore-zarr convert"),
        "url": ("s3://bucket/bees.mp4", "is a URL"),
        "video": (f"{at}/cut.mp4", "cut.mp4"),
        "shape": (f"{at}/line.npy", "shape (9,)"),
        "npy": (f"{at}/cut.npy", "cannot be read"),
        "image": (f"{at}/text.png", "it is no image file"),
        "tif": (f"{at}/cut.tif", "it is truncated"),
        "imagej": (f"{at}/imagej.tif", "says that it has 99 images"),
        "alpha": (f"{at}/clear.png", "transparent"),
        "camera": ("97", "OpenCV finds no camera 97"),
    }


def test_bad_sources(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    for name, (source, words) in bad_sources(tmp_path / "bad").items():
        said = refused(run(tmp_path / "r", "--source", source))
        assert words in said, name
        assert not (tmp_path / "r").exists(), name


@pytest.mark.skipif(any(Path("/dev").glob("video*")), reason="this machine has a camera")
@pytest.mark.parametrize("script", ["imgstore-zarr", "imgstore-save"])
def test_without_a_source_and_a_camera(script: str, tmp_path: Path) -> None:
    said = refused(run(tmp_path / "r", script=script))
    assert "no camera 0" in said
    assert "--source" in said
    assert not (tmp_path / "r").exists()


def test_bad_options(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", DEEP)
    cv2.imwritemulti(str(tmp_path / "s.tif"), [*DEEP])

    def save_with(*words: object, source: str = "s.npy") -> str:
        said = refused(run(tmp_path / "r", "-s", tmp_path / source, *words))
        assert not (tmp_path / "r").exists()
        return said

    assert "unknown format 'zstd'" in save_with("-f", "zstd")
    assert "uint8" in save_with("-f", "avc1/mp4")
    assert "NAME=VALUE" in save_with("--metadata", "hive")
    assert "NAME=VALUE" in save_with("--metadata", "=7")
    assert "NAME=VALUE" in save_with("--storage-option", "region")
    assert "my-secret" not in save_with("--storage-option", "=my-secret")
    assert "above 0" in save_with("--fps", 0)
    assert run(tmp_path / "r", "-s", tmp_path / "s.npy", "--frames", 0).returncode == 2


@needs_ffmpeg
def test_a_rate_is_not_for_videos(video: Path, tmp_path: Path) -> None:
    for option in (["--fps", "30"], ["--times-from-names"]):
        said = refused(run(tmp_path / "r", "-s", video, *option))
        assert "has times of its own" in said


@pytest.mark.parametrize("format", ["zstd/zarr", "png/dir", "mjpeg/avi"])
def test_a_destination_that_exists(format: str, tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", GRAY)
    assert run(tmp_path / "r", "-s", tmp_path / "s.npy").returncode == 0
    said = refused(run(tmp_path / "r", "-s", tmp_path / "s.npy", "-f", format))
    assert "already holds a recording" in said
    check(tmp_path / "r", GRAY, np.arange(12) / 25)


# What is noticed while it is written: what came before is kept.


@pytest.mark.parametrize("last", [GRAY[0, :20], DEEP[0], COLOR[0]], ids=["size", "dtype", "colour"])
def test_images_that_are_not_alike(last: NDArray[Any], tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", GRAY[:5])
    cv2.imwrite(str(folder / "frame-5.png"), last)
    said = refused(run(tmp_path / "r", "-s", folder))
    assert "frame-5.png" in said
    assert "frame-0.png" in said
    assert "holds the 5 frames before that" in said
    check(tmp_path / "r", GRAY[:5], np.arange(5) / 25)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_an_image_that_is_cut_off(suffix: str, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", GRAY[:5], suffix)
    third = folder / f"frame-3{suffix}"
    third.write_bytes(third.read_bytes()[:-100])
    said = refused(run(tmp_path / "r", "-s", folder))
    assert f"frame-3{suffix} cannot be read: it is truncated" in said
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert len(store) == 3


@needs_ffmpeg
def test_a_video_that_is_damaged(video: Path, tmp_path: Path) -> None:
    mkv = ffmpeg.copy(video, tmp_path / "v.mkv")
    data = bytearray(mkv.read_bytes())
    data[len(data) * 2 // 3 :] = bytes(len(data) - len(data) * 2 // 3)
    mkv.write_bytes(data)
    said = refused(run(tmp_path / "r", "-s", mkv))
    decoded = ffmpeg.decode(video)
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert 0 < len(store) < len(decoded)
        np.testing.assert_array_equal(store.frames[...], decoded[: len(store)])
        assert f"position {len(store)} cannot be decoded" in said
        assert f"holds the {len(store)} frames before that" in said


# Ctrl-C.

# Shells start what runs in the background deaf to Ctrl-C.
HEARING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def started(*command: object, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HEARING, *map(str, command)],
        stdout=subprocess.PIPE,
        text=True,
        **{"stderr": subprocess.PIPE, **more},
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stopped(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[str, str]:
    process.send_signal(number)
    try:
        return process.communicate(timeout=60)
    finally:
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_middle_of_a_stack(number: int, tmp_path: Path) -> None:
    stack = np.lib.format.open_memmap(
        tmp_path / "s.npy", "w+", dtype=np.uint8, shape=(MANY, 64, 64)
    )
    stack[:, 0, 0] = np.arange(MANY) % 251
    stack[:, 0, 1] = np.arange(MANY) // 251 % 256
    del stack
    words = ("save", tmp_path / "r", "-s", tmp_path / "s.npy", "--chunksize", 64)
    with started(SCRIPTS / "imgstore-zarr", *words) as process:
        wait_for(tmp_path / "r" / "image" / "c" / "1", process)
        out, error = stopped(process, number)
    assert process.returncode == 130
    assert error == ""
    assert "interrupted, and whole up to there" in out
    assert not (tmp_path / "r" / ".inflight").exists()
    assert imgstore_zarr.verify(tmp_path / "r").ok
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert 128 <= len(store) < MANY
        assert f": {len(store)} frames of" in out
        positions = np.arange(len(store))
        pixels = store.frames[:, 0, :2].astype(int)
        assert (pixels == np.stack([positions % 251, positions // 251 % 256], 1)).all()
        assert store.index.frame_number.tolist() == positions.tolist()


# A camera that gives a frame every few milliseconds, until it hangs, or ends, after so many.
CAMERA = """
import sys, time
import cv2, numpy
from imgstore_zarr.cli import main

hangs, ends = int(sys.argv.pop(1)), int(sys.argv.pop(1))

class Device:
    def __init__(self, number):
        self.number, self.count = number, 0
    def isOpened(self):
        return True
    def grab(self):
        time.sleep(600 if self.count == hangs else 0.003)
        self.count += 1
        return self.count <= ends
    def retrieve(self):
        image = numpy.full((24, 32, 3), (self.count - 1) % 256, numpy.uint8)
        image[0, 0] = 1, 2, 3
        return True, image
    def release(self):
        self.released = True

cv2.VideoCapture = Device
main()
"""


def camera(*words: object, hangs: int = -1, ends: int = MANY, **more: Any) -> subprocess.Popen[str]:
    return started(sys.executable, "-c", CAMERA, hangs, ends, "save", *words, **more)


@pytest.mark.parametrize("hangs", [-1, 30], ids=["that gives frames", "that hangs"])
def test_ctrl_c_is_how_a_camera_ends(hangs: int, tmp_path: Path) -> None:
    before = time.time()
    with camera(tmp_path / "r", "--chunksize", 10, hangs=hangs) as process:
        wait_for(tmp_path / "r" / "image" / "c" / "2", process)
        out, error = stopped(process)
    assert (process.returncode, error) == (0, "")
    assert imgstore_zarr.verify(tmp_path / "r").ok
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert len(store) == 30 if hangs > 0 else len(store) >= 30
        assert f"camera 0 -> {tmp_path / 'r'} (zstd/zarr): {len(store)} frames of" in out
        assert store.image_shape == (24, 32, 3)
        times = store.index.frame_time
        assert before < times[0]
        assert times[-1] < time.time()
        assert (np.diff(times) > 0.002).all()
        # What the camera counted is in the image, whether frames were dropped or not.
        assert (store.frames[:, 5, 5, 0] == store.index.frame_number % 256).all()


def test_a_camera_until_a_limit(tmp_path: Path) -> None:
    with camera(tmp_path / "r", "--frames", 20, "--gray", "-s", "3") as process:
        out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    assert out.startswith("camera 3 -> ")
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert store.index.frame_number.tolist() == [*range(20)]
        expected = np.full((24, 32), 7, np.uint8)
        expected[0, 0] = round(0.114 * 1 + 0.587 * 2 + 0.299 * 3)
        np.testing.assert_array_equal(store.frames[7], expected)

    with camera(tmp_path / "t", "--duration", 0.2) as process:
        assert process.wait(60) == 0
    with imgstore_zarr.open(tmp_path / "t") as store:
        assert 0 < store.duration < 0.2


def test_a_camera_that_is_unplugged(tmp_path: Path) -> None:
    with camera(tmp_path / "r", ends=15) as process:
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "camera 0 gives no more frames" in error
    assert "holds the 15 frames before that" in error
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert len(store) == 15


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    with camera(tmp_path / "r", "--frames", 300, stderr=slave, env=environment) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # nobody writes any more
                break
            if not part:
                break
            shown += part
        assert process.wait(60) == 0
    os.close(master)
    for words in ("camera 0", "/300 frames", "frames/s", "buffer 0%", "0 dropped"):
        assert words in shown.decode(), words


# What stands between the source and the writer.


class Counted:
    """A source of so many frames, which notes how many it gave."""

    name = "counted"

    def __init__(self, frames: int, count: int | None) -> None:
        self.count = count
        self.gave = 0
        self.ended = threading.Event()
        self._frames = frames

    def frames(self) -> CapturedFrames:
        try:
            for i in range(self._frames):
                self.gave += 1
                yield Captured(np.full((8, 8), i % 256, np.uint8), i, i / 25)
        finally:
            self.ended.set()


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgstore_zarr.capture.buffer.BUFFER_BYTES", 0)


@pytest.mark.usefixtures("little_room")
def test_frames_that_find_no_room_are_dropped_and_counted() -> None:
    source = Counted(10, None)
    buffer = Buffer(source.frames(), drops=True, stop=threading.Event())
    assert source.ended.wait(60)
    assert (buffer.dropped, buffer.fill) == (6, 1.0)
    assert [frame.frame_number for frame in buffer] == [0, 1, 2, 3]
    assert buffer.fill == 0.0


@pytest.mark.usefixtures("little_room")
def test_sources_that_can_wait_do() -> None:
    source = Counted(500, 500)
    buffer = Buffer(source.frames(), drops=False, stop=threading.Event())
    taken = 0
    for frame in buffer:
        assert frame.frame_number == taken
        taken += 1
        assert source.gave <= taken + 4 + 1
    assert taken == 500
    assert buffer.dropped == 0


def test_what_a_slow_writer_drops_is_missing_in_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Counted(2000, None)
    add = imgstore_zarr.ImgStoreWriter.add_image

    def slow(self: imgstore_zarr.ImgStoreWriter, *image: Any) -> None:
        assert source.ended.wait(60)  # the camera is done before the first frame is written
        add(self, *image)

    monkeypatch.setattr(imgstore_zarr.ImgStoreWriter, "add_image", slow)
    saved = save(source, tmp_path / "r", "raw/zarr")
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert saved.dropped > 0
        assert saved.frame_count == len(store) == 2000 - saved.dropped
        assert (store.frames[:, 0, 0] == store.index.frame_number % 256).all()


@pytest.mark.parametrize(("count", "interrupted"), [(None, False), (MANY, True)])
def test_stopping(count: int | None, interrupted: bool, tmp_path: Path) -> None:
    stop, states = threading.Event(), []

    def note(state: State) -> None:
        states.append(state)
        if state.frames == 5:
            stop.set()

    source = Counted(MANY, count)
    saved = save(source, tmp_path / "r", "raw/zarr", stop=stop, progress=note)
    assert source.ended.is_set()
    assert saved.interrupted is interrupted
    assert [state.frames for state in states] == [*range(1, saved.frame_count + 1)]
    assert states[0].total == count
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert 5 <= len(store) == saved.frame_count < MANY


def test_a_source_without_frames(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", GRAY[:0])
    assert "gave no frames" in refused(run(tmp_path / "r", "-s", tmp_path / "s.npy"))
    assert not (tmp_path / "r").exists()


def test_a_url(tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="the extra cloud is not installed")
    np.save(tmp_path / "s.npy", GRAY)
    destination = (tmp_path / "r").as_uri()
    assert run(destination, "-s", tmp_path / "s.npy").returncode == 0
    check(tmp_path / "r", GRAY, np.arange(12) / 25)

"""Writers of video that are killed: what was on storage is read, and repaired."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr import RecordingExistsError, RecordingLockedError
from tests.reference import Reference
from tests.test_motif import gray, small
from tests.videos import opencv_frames, read_barcode, scene

FORMATS = ["avc1/mp4", "h264/mkv", "mjpeg/avi"]
SHAPE = (96, 128)
ROOT = Path(__file__).resolve().parents[1]

# How many writers are killed per case; the long profile takes minutes.
KILLS = int(os.environ.get("IMGSTORE_ZARR_KILLS", "1"))

SCENE = scene(64)


def image(number: int) -> NDArray[np.uint8]:
    """A frame of which the number, up to 2**16, can be read again."""
    frame: NDArray[np.uint8] = SCENE[number % 64].copy()
    bars = [255 * int(bit) for bit in f"{number % 2**16:016b}"]
    frame[:48] = np.repeat(np.array(bars, np.uint8), SHAPE[1] // 16)
    return frame


def suffix(format: str) -> str:
    return "." + format.split("/")[1]


def number(position: int) -> int:
    return 1000 + 2 * position


def atoms(path: Path) -> list[bytes]:
    """The kinds of the atoms of an mp4, and of those in its moov."""
    return list(_atoms(path.read_bytes()))


def _atoms(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        assert size >= 8
        assert at + size <= len(data)
        yield kind
        if kind == b"moov":
            yield from _atoms(data[at + 8 : at + size])
        at += size


def videos(root: Path, format: str) -> list[Path]:
    return sorted(root.glob(f"[0-9]*{suffix(format)}"))


def holds(root: Path, format: str, rate: float) -> int:
    """Assert that a recording is a prefix of what was written; return its length."""
    with imgstore_zarr.open(root) as store:
        count = len(store)
        assert store.index.frame_number.tolist() == [number(i) for i in range(count)]
        assert store.index.frame_time.tolist() == [1e9 + i / rate for i in range(count)]
        if not count:
            return 0
        images = store.frames[...]
        sizes = np.diff([*store.index.chunk_starts, count])
        chunks = store.index.chunk_numbers.tolist()
    assert [read_barcode(image[:48]) for image in images] == list(range(count))
    decoded = [opencv_frames(root / f"{chunk:06d}{suffix(format)}") for chunk in chunks]
    expected = [frames[:size] for frames, size in zip(decoded, sizes, strict=True)]
    np.testing.assert_array_equal(images, gray(np.concatenate(expected)))
    return count


# Written by a process of its own


WRITER = """
import sys, time
import imgstore_zarr
from tests.test_video_crash import SHAPE, image, number

path, format, rate, speed, chunksize, flush_every = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
writer = imgstore_zarr.create(path, format, SHAPE, chunksize=int(chunksize))
start = time.monotonic()
for i in range(20_000):
    writer.add_image(image(i), number(i), 1e9 + i / rate)
    writer.add_extra_data(value=i)
    print("added", i + 1, flush=True)
    if flush_every and i % flush_every == flush_every - 1:
        writer.flush()
        print("flushed", i + 1, flush=True)
    if speed:
        time.sleep(max(0, start + (i + 1) / speed - time.monotonic()))
"""


def killed(
    path: Path, format: str, *, rate: float, speed: float, frames: int, chunksize: int, flush: int
) -> tuple[int, int]:
    """Kill a writer some time after so many frames; return how many it said were flushed, and added."""
    arguments = [str(path), format, *map(str, (rate, speed, chunksize, flush))]
    said = {"flushed": 0, "added": 0}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):
                word, count = line.split()
                said[word] = int(count)
            if said["added"] == frames and process.poll() is None:
                time.sleep(random.uniform(0, 2 / rate))
                process.kill()
    assert process.returncode == -9
    return said["flushed"], said["added"]


@pytest.mark.parametrize("kill", range(KILLS))
@pytest.mark.parametrize(
    ("rate", "speed", "chunksize", "flush"),
    [(50, 50, 10_000, 0), (100, 0, 10_000, 0), (100, 0, 40, 0), (25, 0, 10_000, 30)],
    ids=["real-time", "fast", "small-chunks", "flushed"],
)
@pytest.mark.parametrize("format", FORMATS)
def test_a_killed_writer(
    tmp_path: Path, format: str, rate: int, speed: int, chunksize: int, flush: int, kill: int
) -> None:
    root = tmp_path / "r"
    frames = random.Random(f"{format} {rate} {chunksize} {kill}").randint(3, 150)
    flushed, added = killed(
        root, format, rate=rate, speed=speed, frames=frames, chunksize=chunksize, flush=flush
    )
    count = holds(root, format, rate)
    assert max(flushed, added - rate) <= count <= added + 1
    with imgstore_zarr.open(root) as store:
        report = store.report()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* break off")
            table = store.get_extra_data()
    assert {p.kind for p in report.problems} <= {"repair-due", "extra-data-damaged"}
    assert table is not None
    values = table["value"].tolist()
    assert values == [*range(len(values))]
    assert added - 1 <= len(values) <= added + 1
    assert table["frame_number"].tolist() == [number(i) for i in values]
    with pytest.raises(RecordingExistsError):
        imgstore_zarr.create(root, format, SHAPE)

    imgstore_zarr.repair(root)
    assert holds(root, format, rate) == count
    names = {path.name.partition(".")[2] for path in root.iterdir()}
    assert names <= {suffix(format)[1:], "npz", "extra.json", "yaml"}
    kept = 0
    for path in videos(root, format):
        with np.load(path.with_suffix(".npz")) as index:
            here = len(index["frame_number"])
            expected = [number(i) for i in range(kept, kept + here)]
            assert index["frame_number"].tolist() == expected
        with av.open(str(path)) as container:
            assert sum(1 for _ in container.decode(video=0)) == here
        if format == "avc1/mp4":
            kinds = atoms(path)
            assert kinds.count(b"moov") == 1
            assert not {b"moof", b"mvex"} & set(kinds)
        kept += here
    assert kept == count
    with imgstore_zarr.open(root) as store:
        assert store.report().ok
        table = store.get_extra_data()
        assert table is not None
        assert table["value"].tolist() == values
    state = {path: path.stat().st_mtime_ns for path in root.iterdir()}
    assert imgstore_zarr.repair(root).ok
    assert {path: path.stat().st_mtime_ns for path in root.iterdir()} == state


# Read beside its writer, who need not be killed: what is in the file is what a kill would leave


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("fps", [None, 25])
@pytest.mark.parametrize("rate", [0.1, 1, 3, 10, 25, 120])
def test_at_most_the_last_second_is_held_back(
    tmp_path: Path, format: str, rate: float, fps: float | None
) -> None:
    options: dict[str, Any] = {} if fps is None else {"fps": fps}
    root = tmp_path / "r"
    with imgstore_zarr.create(root, format, SHAPE, **options) as writer:
        for i in range(70):
            writer.add_image(image(i), number(i), 1e9 + i / rate)
            if i % 7 == 0:
                assert i + 1 - max(1, rate) <= holds(root, format, rate) <= i + 1
        assert imgstore_zarr.open(root).report().problems
    assert holds(root, format, rate) == 70
    assert imgstore_zarr.open(root).report().ok


@pytest.mark.parametrize("preset", ["ultrafast", "slow"])
def test_no_preset_holds_back_more(tmp_path: Path, preset: str) -> None:
    with imgstore_zarr.create(tmp_path / "r", "avc1/mp4", SHAPE, preset=preset) as writer:
        for i in range(100):
            writer.add_image(image(i), number(i), 1e9 + i / 20)
        assert holds(tmp_path / "r", "avc1/mp4", 20) >= 80


def test_a_rate_that_falls_counts_from_the_next_chunk_on(tmp_path: Path) -> None:
    root = tmp_path / "r"
    times = [i / 100 for i in range(60)] + [10.0 + i for i in range(60)]
    with imgstore_zarr.create(root, "avc1/mp4", SHAPE, chunksize=80) as writer:
        for i, seconds in enumerate(times):
            writer.add_image(image(i), i, seconds)
        with imgstore_zarr.open(root) as store:
            assert len(store) >= len(times) - 1


@pytest.mark.parametrize("format", FORMATS)
def test_a_reader_goes_on_when_the_chunk_is_finished(tmp_path: Path, format: str) -> None:
    root = tmp_path / "r"
    with imgstore_zarr.create(root, format, SHAPE) as writer:
        for i in range(90):
            writer.add_image(image(i), number(i), 1e9 + i / 25)
        store = imgstore_zarr.open(root)
        assert len(store) >= 65
        assert read_barcode(store.frames[60][:48]) == 60
    for position in (3, 64, 40, 30):
        assert read_barcode(store.frames[position][:48]) == position
    store.close()


def test_a_living_writer_is_not_repaired(tmp_path: Path) -> None:
    root = tmp_path / "r"
    with imgstore_zarr.create(root, "avc1/mp4", SHAPE) as writer:
        writer.add_image(image(0), number(0), 1e9)
        with pytest.raises(RecordingLockedError, match="is being written to"):
            imgstore_zarr.repair(root)
        writer.add_image(image(1), number(1), 1e9 + 1)
    assert holds(root, "avc1/mp4", 1) == 2


# Cut off


def interrupted(tmp_path: Path, format: str) -> tuple[Path, NDArray[np.uint8], NDArray[np.uint8]]:
    """A recording as a kill at frame 60 leaves it; the video of its chunk, finished."""
    root = tmp_path / "writing"
    with imgstore_zarr.create(root, format, SHAPE) as writer:
        for i in range(60):
            writer.add_image(image(i), number(i), 1e9 + i / 25)
        shutil.copytree(root, tmp_path / "left")
    return (
        tmp_path / "left",
        gray(opencv_frames(root / f"000000{suffix(format)}")),
        np.fromfile(root / f"000000{suffix(format)}", np.uint8),
    )


def packet_ends(path: Path) -> NDArray[np.int64]:
    """Where each packet ends at the latest: the place that FFmpeg tells may be that of its header."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    return np.array([(p.pos or 0) + p.size + 8 for p in packets])


@pytest.mark.parametrize("format", FORMATS)
def test_a_video_that_is_cut_off(tmp_path: Path, format: str) -> None:
    root, expected, _ = interrupted(tmp_path, format)
    path = root / f"000000{suffix(format)}"
    data = path.read_bytes()
    ends = packet_ends(path)
    step = max(1, len(data) // (150 * KILLS))
    fewest = 0
    for cut in range(0, len(data), step):
        path.write_bytes(data[:cut])
        with imgstore_zarr.open(root) as store:
            count = len(store)
            np.testing.assert_array_equal(store.frames[...], expected[:count])
        # What is left out was cut.
        assert count >= np.count_nonzero(ends <= cut)
        assert count >= fewest
        fewest = count
        if cut % (40 * step) == 0:
            kinds = [problem.kind for problem in imgstore_zarr.open(root).report().problems]
            assert kinds == ["repair-due"]
            copy = tmp_path / f"repaired{cut}"
            shutil.copytree(root, copy)
            problems = imgstore_zarr.repair(copy).problems
            assert [problem.kind for problem in problems] == ["frames-lost"]
            assert holds(copy, format, 25) == count
            assert videos(copy, format) == videos(copy, format)[: bool(count)]
            shutil.rmtree(copy)


def test_a_kill_while_an_mp4_is_being_finished(tmp_path: Path) -> None:
    root, expected, finished = interrupted(tmp_path, "avc1/mp4")
    path = root / "000000.mp4"
    before = path.read_bytes()
    whole = bytes(finished)
    # First everything is appended, then the beginning is changed so that the fragments are hidden.
    appended = before + whole[len(before) :]
    for cut in range(len(before), len(appended) + 1, 37):
        path.write_bytes(appended[:cut])
        with imgstore_zarr.open(root) as store:
            count = len(store)
            np.testing.assert_array_equal(store.frames[...], expected[:count])
    path.write_bytes(appended)
    assert imgstore_zarr.repair(root).ok
    assert holds(root, "avc1/mp4", 25) == 60


def test_a_frame_that_cannot_be_decoded_is_not_kept(tmp_path: Path) -> None:
    root, _, _ = interrupted(tmp_path, "mjpeg/avi")
    path = root / "000000.avi"
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    at = packets[-1].pos
    assert at is not None
    # As after a loss of power: the length is there, the bytes are not.
    path.write_bytes(data[: at + 8] + bytes(len(data) - at - 8))
    report = imgstore_zarr.repair(root)
    assert [problem.kind for problem in report.problems] == ["frames-lost"]
    assert holds(root, "mjpeg/avi", 25) == 59


REPAIR = """
import os, sys
from pathlib import Path
import imgstore_zarr
from imgstore_compat.video import recovery as video_recovery

left = int(sys.argv[2])

def dying(function):
    def step(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        result = function(*arguments, **options)
        left -= 1
        if left == 0:
            os._exit(9)
        return result
    return step

Path.replace = dying(Path.replace)
Path.unlink = dying(Path.unlink)
video_recovery.copy_frames = dying(video_recovery.copy_frames)
imgstore_zarr.repair(sys.argv[1])
"""


def test_a_killed_repair_can_be_repeated(tmp_path: Path) -> None:
    left, _, _ = interrupted(tmp_path, "avc1/mp4")
    count = holds(left, "avc1/mp4", 25)
    died = 0
    for step in range(1, 40):
        root = tmp_path / "repaired"
        shutil.copytree(left, root)
        done = subprocess.run([sys.executable, "-c", REPAIR, root, str(step)], check=False)
        if done.returncode == 0:
            break
        assert done.returncode == 9
        died += 1
        assert holds(root, "avc1/mp4", 25) == count
        imgstore_zarr.repair(root)
        assert holds(root, "avc1/mp4", 25) == count
        assert sorted(path.name for path in root.iterdir()) == [
            "000000.mp4",
            "000000.npz",
            "metadata.yaml",
        ]
        shutil.rmtree(root)
    assert died >= 8


# Writers of others


def test_a_recording_that_motif_may_be_writing_is_not_repaired(tmp_path: Path) -> None:
    root = small(tmp_path / "r")
    with (root / "000000.extra.json").open("w") as theirs:
        theirs.write('[{"frame_index": 0}')
        theirs.flush()
        (root / ".lock").touch()
        # However long ago it wrote: frames may be minutes apart.
        for path in root.iterdir():
            os.utime(path, (1.5e9, 1.5e9))
        with pytest.raises(RecordingLockedError, match=r"make sure that neither is at work"):
            imgstore_zarr.repair(root)
        assert (root / ".lock").exists()
        theirs.write(', {"frame_index": 1}]')
    (root / ".lock").unlink()
    assert imgstore_zarr.repair(root).ok
    text = (root / "000000.extra.json").read_text()
    assert json.loads(text) == [{"frame_index": 0}, {"frame_index": 1}]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("format", ["mjpeg", "npy"])
def test_what_a_killed_imgstore_left(reference: Reference, tmp_path: Path, format: str) -> None:
    images = tmp_path / "images.npy"
    np.save(images, SCENE[:6])
    root = tmp_path / "r"
    reference("leave_open", path=root, format=format, images=images)
    assert (root / ".lock").read_bytes() == b""
    with pytest.raises(RecordingLockedError):
        imgstore_zarr.repair(root)
    (root / ".lock").unlink()
    imgstore_zarr.repair(root)
    assert not (root / ".lock").exists()
    table = imgstore_zarr.open(root).get_extra_data()
    assert table is not None
    assert table["a"].tolist() == list(range(6))
    # The list of its open chunk has an end now, for imgstore as well.
    lists = [json.loads(path.read_text()) for path in sorted(root.rglob("*.extra.json"))]
    assert [record["a"] for records in lists for record in records] == list(range(6))


def test_repair_of_a_whole_recording_writes_nothing(tmp_path: Path) -> None:
    root = small(tmp_path / "r")
    (root / "000000.extra.json").write_text('[{"frame_index": 0}]\n')
    before = {path.name: path.stat() for path in (root, *root.iterdir())}
    assert imgstore_zarr.repair(root).ok
    assert {path.name: path.stat() for path in (root, *root.iterdir())} == before

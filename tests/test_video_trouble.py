"""What goes wrong around a video file: files that lie or are replaced, forks, ends, memory."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from imgstore_zarr import CorruptChunkError
from imgstore_zarr.video import VideoFile, read_ahead
from tests import ffmpeg
from tests.ffmpeg import Made
from tests.videos import FRAMES, KINDS, Images, Kind, encode, opencv_frames, scene

PLAIN, B_FRAMES = KINDS[0], KINDS[1]


@pytest.fixture
def b_frames(tmp_path: Path) -> tuple[Path, Images]:
    path = encode(tmp_path / "b.mp4", scene(FRAMES), B_FRAMES)
    return path, opencv_frames(path)


@ffmpeg.needs_ffmpeg
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    "encoder",
    [
        "mpeg4 -q:v 4 -g 12 -bf 2",
        "mpeg2video -g 12 -bf 2",
        "libx264 -preset veryfast -g 12 -bf 3 -x264-params open-gop=1",
        "libx265 -preset ultrafast -x265-params log-level=none:keyint=12:bframes=4:open-gop=1",
    ],
    ids=lambda encoder: encoder.split()[0],
)
def test_a_muxer_that_knows_only_times_of_decoding(
    tmp_path: Path, encoder: str, suffix: str
) -> None:
    name = encoder.split()[0]
    if not ffmpeg.has_encoder(name):
        pytest.skip(f"the ffmpeg command has no encoder {name}")
    made = Made(name, ".mkv", f"-c:v {encoder} -pix_fmt yuv420p")
    source = ffmpeg.make(tmp_path / "source.mkv", scene(FRAMES), made)
    path = ffmpeg.copy(source, tmp_path / f"lies{suffix}", arguments="-bsf:v setts=pts=DTS")
    expected = ffmpeg.decode(path)
    whole = VideoFile(path, color=True)
    count = min(len(whole), len(expected))
    assert count >= FRAMES - 4
    for position in range(count):
        # The first read of a file may be anywhere.
        video = VideoFile(path, color=True)
        assert np.array_equal(video.frames[position], expected[position]), position
        video.close()
        assert np.array_equal(
            whole.frames[-1 - position % 7], expected[len(whole) - 1 - position % 7]
        )
    assert np.array_equal(whole.frames[:count], expected[:count])
    whole.close()


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_file_that_is_replaced_while_it_is_open(tmp_path: Path, suffix: str) -> None:
    kind = next(kind for kind in KINDS if kind.name == ("plain-avi" if suffix == ".avi" else "mkv"))
    path = encode(tmp_path / f"video{suffix}", scene(FRAMES), kind)
    before = opencv_frames(path)
    other = encode(tmp_path / f"other{suffix}", 255 - scene(FRAMES), kind)
    after = opencv_frames(other)
    video = VideoFile(path, color=True)
    np.testing.assert_array_equal(video.frames[0], before[0])
    other.replace(path)
    served = 0
    for position in [*range(FRAMES), *range(FRAMES - 1, -1, -3)]:
        try:
            image = video.frames[position]
        except CorruptChunkError as error:
            served -= "replaced by another file" not in str(error)
            continue
        np.testing.assert_array_equal(image, before[position])
    with pytest.raises(CorruptChunkError, match="replaced by another file"):
        video.frames[:]
    assert served == 0
    video.close()
    np.testing.assert_array_equal(video.frames[5], after[5])


def test_a_file_that_is_overwritten_raises_what_it_should(tmp_path: Path) -> None:
    kind = Kind("large", "libx264", "yuv420p", ".mp4", {"bf": "3", "g": "12", "qp": "2"})
    noise = np.random.default_rng(1).integers(0, 256, (FRAMES, 96, 128), np.uint8)
    path = encode(tmp_path / "video.mp4", noise, kind)
    assert path.stat().st_size > 500_000  # more than is read at once
    expected = opencv_frames(path)
    video = VideoFile(path, color=True)
    np.testing.assert_array_equal(video.frames[0], expected[0])
    path.write_bytes(bytes(path.stat().st_size))
    refused: set[int] = set()
    for wanted in ([50], [10], [50], [33], [0], [10, 55], [59, 20, 3], [50]):
        # What was read of the file before is still right; nothing else is handed out.
        try:
            np.testing.assert_array_equal(video.frames[wanted], expected[wanted])
        except CorruptChunkError:
            refused.update(wanted)
    assert {10, 33, 50} <= refused
    video.close()
    for wanted in ([0], [10, 55]):
        with pytest.raises(CorruptChunkError, match="cannot be opened as a video"):
            video.frames[wanted]


def test_a_reference_that_is_damaged_spoils_frames_shown_before_it(tmp_path: Path) -> None:
    kind = B_FRAMES
    path = encode(tmp_path / "video.mp4", scene(FRAMES), kind)
    expected = opencv_frames(path)
    data = path.read_bytes()
    table = VideoFile(path).table
    spoiled = 0
    for rank in range(1, 36, 5):
        damaged = bytearray(data)
        middle = int(table.pos[rank] + table.size[rank] // 2)
        for at in range(middle, middle + 6):
            damaged[at] ^= 0xA5
        path.write_bytes(damaged)
        video = VideoFile(path, color=True)
        first: dict[int, bool] = {}
        for position in [*range(FRAMES), *range(FRAMES - 1, -1, -1)]:
            try:
                video.frames[position]
            except CorruptChunkError:
                served = False
            else:
                served = True
            # Whether it can be read does not depend on what was read before.
            assert first.setdefault(position, served) == served, (rank, position)
        spoiled += not all(first.values())
        assert all(first[p] for p in range(int(table.entry_before(rank))))
        video.close()
    assert spoiled
    assert len(expected) == FRAMES


def test_a_window_does_not_hold_the_whole_image(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4", scene(FRAMES), PLAIN)
    expected = opencv_frames(path)
    video = VideoFile(path, color=True)
    for position in range(20):
        image = video.frames[position, 4:6]
        np.testing.assert_array_equal(image, expected[position, 4:6])
        base = image
        while isinstance(base.base, np.ndarray):
            base = base.base
        assert base.nbytes <= 2 * 128 * 3
        assert not isinstance(base.base, memoryview | av.plane.Plane)
    video.close()


def test_what_is_decoded_ahead_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = next(kind for kind in KINDS if kind.name == "one-gop")
    for wanted in (PLAIN, kind):
        path = encode(tmp_path / f"{wanted.name}.mp4", scene(FRAMES), wanted)
        video = VideoFile(path, color=False)
        image = int(np.prod(video.shape[1:]))
        monkeypatch.setattr(read_ahead, "AHEAD_BYTES", 36 * image)
        for position in range(12):
            video.frames[position]
        ahead = video._steps._ahead
        assert ahead is not None
        until = time.monotonic() + 10
        while any(not piece.done for piece in ahead._slices) and time.monotonic() < until:
            time.sleep(0.01)
        held = sum(len(piece.images) for piece in ahead._slices)
        assert 0 < held <= 36
        video.close()
        assert not ahead._slices


def test_an_array_to_fill_is_always_checked(b_frames: tuple[Path, Images]) -> None:
    video = VideoFile(b_frames[0], color=True)
    wrong = np.empty((1, *video.shape[1:]), np.float32)
    for position in range(8):
        with pytest.raises(ValueError, match="out has shape"):
            video.read(np.array([position]), out=wrong)
        video.frames[position]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_threads_of_a_forked_process(b_frames: tuple[Path, Images]) -> None:
    path, expected = b_frames
    video = VideoFile(path, color=True)
    for position in range(8):  # something is decoded ahead when the process forks
        np.testing.assert_array_equal(video.frames[position], expected[position])
    child = os.fork()
    if child == 0:
        wrong: list[int] = []

        def read(start: int) -> None:
            wrong.extend(
                p for p in range(start, FRAMES) if not np.array_equal(video.frames[p], expected[p])
            )

        threads = [threading.Thread(target=read, args=(n,), daemon=True) for n in (0, 8, 9, 30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        os._exit(len(wrong) + 100 * any(thread.is_alive() for thread in threads))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(video.frames[9], expected[9])


def test_a_thread_may_read_when_the_main_one_has_ended(b_frames: tuple[Path, Images]) -> None:
    path, _ = b_frames
    script = (
        "import sys, threading, time\n"
        "from imgstore_zarr.video import VideoFile\n"
        "def read():\n"
        "    time.sleep(0.3)\n"
        "    video = VideoFile(sys.argv[1])\n"
        "    steps = [video.frames[p].sum() for p in range(60)]\n"
        "    print(steps == [image.sum() for image in video.frames[:]])\n"
        "threading.Thread(target=read).start()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_files_that_are_dropped_let_go_of_what_they_held(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4", scene(FRAMES), PLAIN)

    def tasks() -> int:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - what is there, not paths

    if not Path("/proc/self/task").exists():
        pytest.skip("there is no /proc here")
    counts = []
    for turn in range(30):
        video = VideoFile(path, color=False)
        for position in itertools.chain(range(6), (40,)):
            video.frames[position]
        del video
        if turn >= 5:
            counts.append(tasks())
    # Decoders have threads of their own, which end with them; what is decoded ahead may still run.
    assert max(counts) - min(counts) <= 8


INTERRUPTED_READER = """
import signal, sys, time
import numpy as np
from imgstore_zarr.video import VideoFile

reading = False

def ctrl_c(*_):
    global reading
    if reading:  # what the lines below count is not interrupted
        reading = False
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, ctrl_c)
file, random = VideoFile(sys.argv[1], color=False), np.random.default_rng(0)
expected = file.frames[...].copy()
interrupted, reads, until = 0, 0, time.monotonic() + 2
print("ready", flush=True)
while interrupted <= 20 or time.monotonic() < until:
    start = int(random.integers(len(file)))
    stop = min(start + int(random.choice([1, 8, 40])), len(file))
    try:
        reading = True
        if random.integers(2):
            images = file.frames[start:stop]
        else:
            images = [file.frames[position] for position in range(start, stop)]
        reading = False
        np.testing.assert_array_equal(images, expected[start:stop])
        reads += 1
    except KeyboardInterrupt:
        interrupted += 1
signal.signal(signal.SIGINT, signal.SIG_IGN)
print(reads, interrupted, flush=True)
"""


def test_ctrl_c_of_another_process_while_video_is_read(b_frames: tuple[Path, Images]) -> None:
    """Whoever goes on after Ctrl-C gets the right frames, and never waits for nothing."""
    path, draw = b_frames[0], random.Random(5)
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_READER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        until = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < until:
            child.send_signal(signal.SIGINT)
            time.sleep(draw.uniform(0.002, 0.02))
        if child.poll() is None:
            child.kill()
        said = child.stdout.readline().split()
    assert child.returncode == 0
    reads, interrupted = map(int, said)
    assert min(reads, interrupted) > 20

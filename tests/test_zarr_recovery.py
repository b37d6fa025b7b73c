"""Writers that are killed: what was flushed is there, what was whole is brought back."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr.native import columns, recovery
from imgstore_zarr.storage import Directory

SHAPE, CHUNKSIZE = (24, 32), 8

# Frame i has pixels, number and time that follow from i. Each line printed is an acknowledgement.
WRITER = """
import sys
import numpy as np
import imgstore_zarr

path, format, group, flush_every, count = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
writer = imgstore_zarr.create(
    path, format, (24, 32), np.uint8, chunksize=8, inner_chunks=(group, 24, 32)
)
for i in range(count):
    image = np.random.default_rng(i).integers(0, 256, (24, 32), np.uint8)
    writer.add_image(image, 1000 + 2 * i, i / 8)
    writer.add_extra_data(value=i, text="x" * (i % 5))
    print("added", i + 1, flush=True)
    if flush_every and i % flush_every == flush_every - 1:
        writer.flush()
        print("flushed", i + 1, flush=True)
if sys.argv[6] == "wait":
    sys.stdin.read()
writer.close()
"""


def image(i: int) -> NDArray[np.uint8]:
    return np.random.default_rng(i).integers(0, 256, SHAPE, np.uint8)


def images(count: int) -> NDArray[np.uint8]:
    return np.array([image(i) for i in range(count)], np.uint8).reshape(-1, *SHAPE)


def start(
    path: Path, format: str, group: int, flush_every: int, count: int, then: str = "wait"
) -> subprocess.Popen[str]:
    arguments = [str(path), format, *map(str, (group, flush_every, count)), then]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def killed(path: Path, format: str, group: int, flush_every: int, frames: int) -> tuple[int, int]:
    """Kill a writer after so many frames; return how many it said were flushed, and added."""
    said = {"flushed": 0, "added": 0}
    with start(path, format, group, flush_every, 10_000) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):
                word, number = line.split()
                said[word] = int(number)
            if said["added"] >= frames:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    return said["flushed"], said["added"]


def holds(path: Path, least: int, most: int) -> int:
    """Assert that a recording is a prefix of what was recorded; return its length."""
    with imgstore_zarr.open(path) as store:
        count = len(store)
        assert least <= count <= most
        np.testing.assert_array_equal(store.frames[...], images(count))
        assert store.index.frame_number.tolist() == [1000 + 2 * i for i in range(count)]
        assert store.index.frame_time.tolist() == [i / 8 for i in range(count)]
        table = store.get_extra_data()
        values = [] if table is None else table["value"].tolist()
        # A record follows its frame, so that the last frame may lack it.
        assert values == [*range(len(values))]
        assert count - 1 <= len(values) <= count
        if table is not None:
            assert table["frame_number"].tolist() == [1000 + 2 * i for i in range(len(values))]
            assert table["text"].tolist() == ["x" * (i % 5) for i in range(len(values))]
    # Through the group, whose metadata are the commit record; those of an array may be ahead of it.
    array = zarr.open_group(path, mode="r")["image"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(array[...], images(count))
    return count


@pytest.mark.parametrize("frames", [1, 6, 21])
@pytest.mark.parametrize(
    ("format", "group", "flush_every"),
    [("raw/zarr", 1, 3), ("zstd/zarr", 4, 3), ("raw/zarr", 4, 0), ("zstd/zarr", 1, 0)],
)
def test_a_killed_writer(
    tmp_path: Path, format: str, group: int, flush_every: int, frames: int
) -> None:
    path = tmp_path / "recording"
    flushed, added = killed(path, format, group, flush_every, frames)
    before = holds(path, max(flushed, added // CHUNKSIZE * CHUNKSIZE), added + 1)
    with imgstore_zarr.open(path) as store:
        assert not store.report().ok
        assert "repair" in store.report().problems[0].message
    with pytest.raises(imgstore_zarr.RecordingExistsError):
        imgstore_zarr.create(path, format, SHAPE)

    report = imgstore_zarr.repair(path)
    assert report.ok, report.problems
    after = holds(path, max(before, flushed, added // group * group), added + 1)
    assert not (path / ".inflight").exists()
    assert report.frame_count == after

    state = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    assert imgstore_zarr.repair(path).ok
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == state


@pytest.fixture(
    scope="module", params=[("raw/zarr", 1), ("zstd/zarr", 1), ("raw/zarr", 4)], ids=str
)
def interrupted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int]:
    """A recording of 22 frames whose writer was killed after it had flushed 18; and its group."""
    format, group = request.param
    path = tmp_path_factory.mktemp("interrupted") / "recording"
    with start(path, format, group, 18, 22) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.split() == ["added", "22"]:
                break
        # The last record of extra data comes before this process waits for its input.
        time.sleep(0.2)
        process.kill()
    return path, group


@pytest.fixture
def broken(interrupted: tuple[Path, int], tmp_path: Path) -> Path:
    return Path(shutil.copytree(interrupted[0], tmp_path / "recording"))


def expected(group: int) -> int:
    """Frames that can be brought back: all whole groups, and what was flushed."""
    return max(18, 22 // group * group)


def test_everything_whole_is_brought_back(broken: Path, interrupted: tuple[Path, int]) -> None:
    assert holds(broken, 18, 18) == 18
    assert imgstore_zarr.repair(broken).ok
    count = expected(interrupted[1])
    holds(broken, count, count)


def test_unfinished_files_are_set_aside(broken: Path) -> None:
    (broken / "image" / ".new-1-2-zarr.json").write_bytes(b"{")
    assert imgstore_zarr.repair(broken).ok
    assert not [*broken.rglob(".new-*")]
    assert (broken / "set-aside" / "000" / "image-.new-1-2-zarr.json").read_bytes() == b"{"


STEPS: list[Callable[[pytest.MonkeyPatch, BaseException], None]] = [
    lambda patch, error: patch.setattr(Directory, "take", raising(error)),
    lambda patch, error: patch.setattr(recovery, "_commit", raising(error)),
    lambda patch, error: patch.setattr(columns.ColumnWriter, "extend", raising(error)),
    lambda patch, error: patch.setattr(recovery, "write_extra", raising(error)),
    lambda patch, error: patch.setattr(recovery, "_set_aside", raising(error)),
]


class KilledError(BaseException):
    """Stands for the end of the process."""


def raising(error: BaseException) -> Callable[..., None]:
    def step(*arguments: object, **options: object) -> None:
        raise error

    return step


@pytest.mark.parametrize("step", range(len(STEPS)))
@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_repair(
    broken: Path, interrupted: tuple[Path, int], step: int, torn: bool
) -> None:
    group = interrupted[1]
    count = expected(group)
    if torn and group == 1:
        tear(broken / ".inflight" / "2.shard", 10)
        count = 21
    with pytest.MonkeyPatch.context() as patch:
        STEPS[step](patch, KilledError())
        with pytest.raises(KilledError):
            imgstore_zarr.repair(broken)
    holds_frames(broken, 18, count)
    report = imgstore_zarr.repair(broken)
    assert report.frame_count == count
    assert [problem.kind for problem in report.problems] == ["frames-lost"] * (count == 21)
    holds_frames(broken, count, count)


def holds_frames(path: Path, least: int, most: int) -> None:
    """As `holds`, where the records of frames that are lost are gone with them."""
    with imgstore_zarr.open(path) as store:
        assert least <= len(store) <= most
        np.testing.assert_array_equal(store.frames[...], images(len(store)))
        table = store.get_extra_data()
        assert table is not None
        assert table["value"].tolist() == [*range(len(store))]


def test_a_repair_killed_while_it_cleans_up(broken: Path, interrupted: tuple[Path, int]) -> None:
    count = expected(interrupted[1])
    names = sorted(file.name for file in (broken / ".inflight").iterdir())
    whole = shutil.copytree(broken, broken.with_name("whole"))
    for left in names:
        shutil.rmtree(broken)
        shutil.copytree(whole, broken)
        imgstore_zarr.repair(broken)
        (broken / ".inflight").mkdir()
        shutil.copy(whole / ".inflight" / left, broken / ".inflight" / left)
        if left.endswith(".shard"):
            continue
        assert imgstore_zarr.repair(broken).ok
        holds(broken, count, count)


def tear(path: Path, nbytes: int) -> None:
    os.truncate(path, path.stat().st_size - nbytes)


@pytest.mark.parametrize("nbytes", [1, 20, 35, 36, 37, 73])
def test_torn_journal(broken: Path, interrupted: tuple[Path, int], nbytes: int) -> None:
    tear(broken / ".inflight" / "2.journal", nbytes)
    assert imgstore_zarr.repair(broken).ok
    # A record of the journal takes 36 bytes; what was flushed does not need it.
    in_journal = 22 // interrupted[1] * interrupted[1] - -(-nbytes // 36)
    holds_frames(broken, max(18, in_journal), max(18, in_journal))


def test_a_record_of_the_journal_that_is_damaged(
    broken: Path, interrupted: tuple[Path, int]
) -> None:
    path = broken / ".inflight" / "2.journal"
    data = bytearray(path.read_bytes())
    data[20 + 36 * 3 + 20] ^= 1  # of the fourth frame of the chunk, position 19
    path.write_bytes(data)
    report = imgstore_zarr.repair(broken)
    holds_frames(broken, 19, 19)
    lost = expected(interrupted[1]) - 19
    assert [problem.kind for problem in report.problems] == ["frames-lost"]
    assert f"from position 19 on; {lost} frame" in report.problems[0].message
    assert (broken / "set-aside" / "000" / "2.journal").read_bytes() == data


@pytest.mark.parametrize("data", [b"", b"imgst", b"imgstjn9" + b"\0" * 72, b"\0" * 80])
def test_a_journal_that_is_none(broken: Path, data: bytes) -> None:
    (broken / ".inflight" / "2.journal").write_bytes(data)
    report = imgstore_zarr.repair(broken)
    # Two frames of this chunk were flushed, so that two records tell of nothing that is lost.
    assert report.ok
    holds_frames(broken, 18, 18)


@pytest.mark.parametrize("nbytes", [1, 100, 768, 1000, 10**6])
def test_torn_shard(broken: Path, interrupted: tuple[Path, int], nbytes: int) -> None:
    """The journal says more than the shard holds, as after power loss."""
    path = broken / ".inflight" / "2.shard"
    group = interrupted[1]
    records = struct.iter_unpack("<QQqdI", path.with_suffix(".journal").read_bytes()[20:])
    size = max(0, path.stat().st_size - nbytes)
    whole = sum(offset + length <= size for offset, length, *_ in records)
    os.truncate(path, size)
    count = max(18, 16 + whole)
    report = imgstore_zarr.repair(broken)
    lost = (22 // group * group) - count
    assert report.frame_count == count
    assert [problem.kind for problem in report.problems] == ["frames-lost"] * (lost > 0)
    if lost > 0:
        assert f"from position {count} on; {lost} frames" in report.problems[0].message
        kept = broken / "set-aside" / "000"
        assert (kept / "2.journal").exists()
    holds_frames(broken, count, count)


def test_a_damaged_frame_in_the_shard(broken: Path, interrupted: tuple[Path, int]) -> None:
    path = broken / ".inflight" / "2.shard"
    data = bytearray(path.read_bytes())
    data[50] ^= 1  # of the first frame, which was flushed long ago
    path.write_bytes(data)
    report = imgstore_zarr.repair(broken)
    holds_frames(broken, 18, 18)
    assert report.frame_count == 18
    kept = [*(broken / "set-aside").rglob("*.shard"), *(broken / "set-aside").rglob("*.damaged")]
    assert bytes(data) in [file.read_bytes() for file in kept] or not report.problems


def test_torn_extra_data(broken: Path, interrupted: tuple[Path, int]) -> None:
    tear(broken / ".inflight" / "extra.jsonl", 5)
    with imgstore_zarr.open(broken) as store:
        assert store.get_extra_data() is not None
    assert imgstore_zarr.repair(broken).ok
    holds(broken, 18, 22)


def test_a_record_of_extra_data_that_is_damaged(broken: Path) -> None:
    path = broken / ".inflight" / "extra.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[8] = lines[8].replace(b'"value": 7', b'"value": 6')
    path.write_bytes(b"".join(lines))
    with imgstore_zarr.open(broken) as store:
        with pytest.raises(imgstore_zarr.CorruptChunkError, match="line 9 of the extra data"):
            store.get_extra_data()
        with pytest.warns(UserWarning, match="line 9"):
            table = store.get_extra_data(ignore_corrupt_chunks=True)
        assert table is not None
        assert table["value"].tolist() == [*range(7)]
    report = imgstore_zarr.repair(broken)
    assert [problem.kind for problem in report.problems] == ["extra-data-damaged"]
    assert (broken / "set-aside" / "000" / "extra.jsonl").read_bytes() == b"".join(lines)
    with imgstore_zarr.open(broken) as store:
        table = store.get_extra_data()
        assert table is not None
        assert table["value"].tolist() == [*range(7)]
        assert len(store) >= 20


def test_repair_beside_a_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    with start(path, "raw/zarr", 1, 3, 5) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.split() == ["added", "5"]:
                break
        with pytest.raises(imgstore_zarr.RecordingLockedError, match="being written to"):
            imgstore_zarr.repair(path)
        process.communicate("")
    assert process.returncode == 0
    assert holds(path, 5, 5) == 5


def test_repair_beside_a_writer_of_this_process_is_refused(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "raw/zarr", SHAPE) as writer:
        writer.add_image(image(0), 0, 0.0)
        with pytest.raises(imgstore_zarr.RecordingLockedError):
            imgstore_zarr.repair(tmp_path / "r")
        writer.add_image(image(1), 1, 1.0)
    with imgstore_zarr.open(tmp_path / "r") as store:
        np.testing.assert_array_equal(store.frames[...], images(2))


def test_repair_of_a_closed_recording_does_nothing(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "raw/zarr", SHAPE) as writer:
        writer.add_image(image(0), 0, 0.0)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "r").rglob("*")}
    report = imgstore_zarr.repair(tmp_path / "r")
    assert (report.ok, report.frame_count) == (True, 1)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "r").rglob("*")} == before


@pytest.mark.parametrize(("format", "group"), [("raw/zarr", 1), ("zstd/zarr", 4)])
def test_a_reader_beside_a_writer(tmp_path: Path, format: str, group: int) -> None:
    """A reader in another process always sees a consistent prefix, and never a shorter one."""
    path, total, last, seen = tmp_path / "recording", 300, 0, 0
    with start(path, format, group, 7, total, "close") as process:
        assert process.stdout is not None
        while not (path / "zarr.json").exists():
            assert process.poll() is None
        while last < total:
            with imgstore_zarr.open(path) as store:
                count = len(store)
                assert last <= count <= total
                numbers = store.index.frame_number.tolist()
                assert numbers == [1000 + 2 * i for i in range(count)]
                assert store.index.frame_time.tolist() == [i / 8 for i in range(count)]
                for i in {*range(last, count), *range(0, count, 17)}:
                    np.testing.assert_array_equal(store.frames[i], image(i))
            seen += count > last
            last = count
            # So that the writer is never far ahead: the pipe holds but so many lines.
            process.stdout.readline()
        process.stdout.read()
    assert process.returncode == 0
    assert seen > 3
    holds(path, total, total)

"""What happens between two steps: another writer, a failure, an interruption, just then."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr.lock import Holder
from imgstore_zarr.native import columns, layout, metadata
from imgstore_zarr.native.spool import Spool
from imgstore_zarr.native.writer import ZarrSink
from imgstore_zarr.storage import Directory, locate

SHAPE = (8, 8)


def image(i: int) -> NDArray[np.uint8]:
    return np.full(SHAPE, i % 251 + 1, np.uint8)


def create(path: Any, mode: Any = "x", format: str = "raw/zarr", **options: Any) -> Any:
    return imgstore_zarr.create(path, format, SHAPE, mode=mode, **options)


def add(writer: Any, start: int, stop: int, *, extra: bool = True) -> None:
    for i in range(start, stop):
        writer.add_image(image(i), i, float(i))
        if extra:
            writer.add_extra_data(x=i)


def content(path: Any) -> tuple[list[int], list[int] | None]:
    """The numbers of frames that are right, and the extra data."""
    with imgstore_zarr.open(path) as store:
        numbers: list[int] = store.index.frame_number.tolist()
        expected = np.array([image(i) for i in numbers], np.uint8).reshape(-1, *SHAPE)
        np.testing.assert_array_equal(store.frames[...], expected)
        table = store.get_extra_data()
        return numbers, None if table is None else table["x"].tolist()


class Once:
    """Lets something happen the first time that a function is called with fitting arguments."""

    def __init__(self, work: Callable[..., Any], fits: Callable[..., bool], then: Any) -> None:
        self._work, self._fits, self._then = work, fits, then
        self.done = False

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if not self.done and self._fits(*arguments):
            self.done = True
            self._then()
        return self._work(*arguments, **options)


def failing() -> None:
    raise OSError(28, "No space left on device")


def group_written(location: Directory, key: str, *rest: Any) -> bool:
    return key == "zarr.json"


def test_another_writer_between_reading_and_locking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    with create(path) as writer:
        add(writer, 0, 2)

    def other() -> None:
        with create(path, "a") as writer:
            add(writer, 2, 9)

    once = Once(ZarrSink.resume, lambda *_: True, other)
    monkeypatch.setattr(ZarrSink, "resume", once)
    with pytest.raises(imgstore_zarr.RecordingLockedError, match="just now by another process"):
        create(path, "a")
    with create(path, "a") as writer:
        add(writer, 9, 10)
    assert content(path) == ([*range(10)], [*range(10)])
    assert imgstore_zarr.verify(path).ok


@pytest.mark.parametrize("operation", ["write", "delete"])
def test_a_failure_while_extra_data_go_back_to_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    path = tmp_path / "r"
    with create(path) as writer:
        add(writer, 0, 3)
    writer = create(path, "a")
    fits = group_written if operation == "write" else lambda location, key: key == "extra"
    with monkeypatch.context() as patch:
        patch.setattr(
            Directory, operation, method(Once(getattr(Directory, operation), fits, failing))
        )
        writer.add_image(image(3), 3, 3.0)
        with pytest.raises(imgstore_zarr.RecordingAccessError, match="was not written"):
            writer.add_extra_data(x=3)
    writer.add_extra_data(x=3)
    writer.close()
    assert content(path) == ([0, 1, 2, 3], [0, 1, 2, 3])
    assert imgstore_zarr.verify(path).ok


def method(once: Once) -> Callable[..., Any]:
    return lambda *arguments, **options: once(*arguments, **options)


def test_emptying_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r"
    writer = create(path, chunksize=4)
    add(writer, 0, 6)
    writer.flush()
    with monkeypatch.context() as patch:
        patch.setattr(Directory, "write", method(Once(Directory.write, group_written, failing)))
        with pytest.raises(imgstore_zarr.RecordingAccessError, match="nothing was thrown away"):
            writer.empty()
    assert len(writer) == 6
    assert content(path) == ([*range(6)], [*range(6)])
    add(writer, 6, 7)
    writer.close()
    assert content(path) == ([*range(7)], [*range(7)])


def test_a_reader_of_a_recording_that_was_emptied_and_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (columns, layout, metadata):
        monkeypatch.setattr(module, "COLUMN_CHUNK", 4)
    path = tmp_path / "r"
    with create(path, chunksize=4) as writer:
        add(writer, 0, 4)
        writer.flush()
        store = imgstore_zarr.open(path)
        writer.empty()
        add(writer, 100, 107)
        writer.flush()
        assert store.refresh() == 3
        assert store.index.frame_number.tolist() == [*range(100, 107)]
        # Emptied between the reading of the commit record and that of the coordinates.
        fits = lambda location, key: key.startswith("frame_number/c")  # noqa: E731
        monkeypatch.setattr(Directory, "read", method(Once(Directory.read, fits, writer.empty)))
        assert store.refresh() == -7


class Interrupted:
    """Interrupts the n-th of all steps that it wraps."""

    def __init__(self, at: int) -> None:
        self._left = at

    def wrap(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt
            return work(*arguments, **options)

        return step


def killed(path: Path, script: str) -> None:
    command = [sys.executable, "-c", script, str(path)]
    subprocess.run(command, check=False, cwd=Path(__file__).parents[1])


CRASH = """
import os, sys
from tests.test_zarr_between import add, create
writer = create(sys.argv[1], inner_chunks=(4, 8, 8), chunksize=16)
add(writer, 0, 10)
writer.flush()
add(writer, 10, 12)
os.kill(os.getpid(), 9)
"""


def test_a_repair_that_is_interrupted_while_it_sets_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    killed(path, CRASH)
    shard = path / ".inflight" / "0.shard"
    data = bytearray(shard.read_bytes())
    data[2 * (4 * 64 + 4) + 9] ^= 1
    shard.write_bytes(data)
    source = tmp_path / "source"
    shutil.copytree(path, source)
    steps = 0
    while True:
        shutil.rmtree(path)
        shutil.copytree(source, path)
        counted = Interrupted(steps + 1)
        with monkeypatch.context() as patch:
            for owner, name in (
                (Path, "rename"),
                (Path, "unlink"),
                (os, "rmdir"),
                (Path, "replace"),
                (Directory, "take"),
            ):
                patch.setattr(owner, name, counted.wrap(getattr(owner, name)))
            try:
                imgstore_zarr.repair(path)
            except KeyboardInterrupt:
                steps += 1
            else:
                break
        imgstore_zarr.repair(path)
        numbers, _ = content(path)
        assert numbers == [*range(10)]
        kept = [file.read_bytes() for file in path.rglob("0.damaged")]
        assert kept in ([], [bytes(data)])
    assert steps >= 3


def test_what_a_repair_found_is_told_who_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "r"
    killed(path, CRASH.replace("inner_chunks=(4, 8, 8), ", ""))
    shard = path / ".inflight" / "0.shard"
    data = bytearray(shard.read_bytes())
    data[11 * (64 + 4) + 9] ^= 1
    shard.write_bytes(data)
    with (
        caplog.at_level(logging.WARNING, "imgstore_zarr"),
        create(path, "a", chunksize=16) as writer,
    ):
        assert len(writer) == 11
    assert "1 frames could not be brought back" in caplog.text


def test_what_a_writer_to_a_store_had_flushed() -> None:
    store = zarr.storage.MemoryStore()
    writer = create(store)
    add(writer, 0, 2)
    writer.flush()
    with pytest.raises(imgstore_zarr.RecordingLockedError, match=rf"{os.getpid()} .*lock"):
        create(store, "a")
    with pytest.raises(imgstore_zarr.RecordingLockedError):
        imgstore_zarr.repair(store)
    # Its process is gone: Linux gives no process such a number.
    dead = dataclasses.replace(Holder.this_process(), pid=2**22 + 1)
    locate(store).write(".inflight/lock", dead.encode())
    with create(store, "a") as writer:
        add(writer, 2, 3)
    assert content(store) == ([0, 1, 2], [0, 1, 2])


def test_a_reader_of_a_store_that_is_written() -> None:
    store = zarr.storage.MemoryStore()
    with create(store, format="zstd/zarr", inner_chunks=(4, 8, 8), chunksize=8) as writer:
        add(writer, 0, 2)
        writer.flush()
        reader = imgstore_zarr.open(store)
        np.testing.assert_array_equal(reader.frames[0], image(0))
        add(writer, 2, 4)
        writer.flush()
        np.testing.assert_array_equal(reader.frames[1], image(1))


def test_a_reader_of_extra_data_that_move(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with create(path) as writer:
        add(writer, 0, 2)
        writer.flush()
        reader = imgstore_zarr.open(path)
        add(writer, 2, 3)
    table = reader.get_extra_data()
    assert table is not None
    assert table["x"].tolist() == [0, 1]
    assert reader.has_extra_data
    with create(path, "a") as writer:
        later = imgstore_zarr.open(path)
        add(writer, 3, 4)
        table = later.get_extra_data()
        assert table is not None
        assert table["x"].tolist() == [0, 1, 2]


def test_a_writer_to_a_store_that_was_killed() -> None:
    store = zarr.storage.MemoryStore()
    with create(store) as writer:
        add(writer, 0, 2)
    dead = dataclasses.replace(Holder.this_process(), pid=2**70)
    locate(store).write(".inflight/lock", dead.encode())
    with imgstore_zarr.open(store) as reader:
        assert [problem.kind for problem in reader.report().problems] == ["repair-due"]
    assert imgstore_zarr.repair(store).ok
    assert content(store) == ([0, 1], [0, 1])
    assert imgstore_zarr.verify(store).ok


def test_a_store_of_a_directory_that_is_being_written(tmp_path: Path) -> None:
    with create(tmp_path / "r") as writer:
        add(writer, 0, 2)
        with pytest.raises(imgstore_zarr.RecordingLockedError):
            create(zarr.storage.LocalStore(tmp_path / "r"), "a")
    assert content(tmp_path / "r") == ([0, 1], [0, 1])


EMPTIED = """
import os, sys
from pathlib import Path
from imgstore_zarr.storage import Directory
from tests.test_zarr_between import add, create
writer = create(sys.argv[1], chunksize=8)
add(writer, 100, 108)
writer.flush()
def fails(*_):
    raise OSError(5, "Input/output error")

Directory.delete = Path.rename = fails
writer.empty()
add(writer, 0, 5)
os.kill(os.getpid(), 9)
"""


def test_a_crash_after_what_was_thrown_away_could_not_be_deleted(tmp_path: Path) -> None:
    path = tmp_path / "r"
    killed(path, EMPTIED)
    assert (path / "image/c/0/0/0").exists()
    imgstore_zarr.repair(path)
    assert content(path) == ([*range(5)], [*range(5)])
    assert imgstore_zarr.verify(path).ok


def test_a_writer_that_has_just_begun_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    create(path).close()
    once = Once(ZarrSink.resume, lambda *_: True, (path / ".inflight").mkdir)
    monkeypatch.setattr(ZarrSink, "resume", once)
    with pytest.raises(imgstore_zarr.RecordingLockedError, match="just now by another process"):
        create(path, "a")


def test_a_repair_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r"
    killed(path, CRASH)
    with monkeypatch.context() as patch:
        patch.setattr(Directory, "write", method(Once(Directory.write, group_written, failing)))
        with pytest.raises(
            imgstore_zarr.RecordingAccessError, match=r"repairing failed .*make room"
        ):
            create(path, "a", inner_chunks=(4, 8, 8), chunksize=16)


@pytest.mark.parametrize("earlier", [(), ("000", "001"), ("001",), ("notes",)])
def test_files_of_others_beside_the_open_chunk(tmp_path: Path, earlier: tuple[str, ...]) -> None:
    path = tmp_path / "r"
    killed(path, CRASH)
    for name in earlier:
        (path / "set-aside" / name).mkdir(parents=True)
    for name in ("notes.txt", "foo.journal"):
        (path / ".inflight" / name).write_text("mine")
    imgstore_zarr.repair(path)
    assert imgstore_zarr.verify(path).ok
    kept = {file.name for file in (path / "set-aside").rglob("*") if file.is_file()}
    assert {"notes.txt", "foo.journal"} <= kept
    assert {*earlier} <= {folder.name for folder in (path / "set-aside").iterdir()}


def test_a_crash_at_the_very_end_of_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    writer = create(path)
    add(writer, 0, 3)
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "remove", Spool.release)
        writer.close()
    assert imgstore_zarr.repair(path).ok
    assert imgstore_zarr.verify(path).ok
    assert not (path / ".lock").exists()


def test_a_writer_that_was_killed_before_there_was_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "r"
    script = """
import os, sys
from imgstore_zarr.native.committer import Committer
from tests.test_zarr_between import create
Committer.commit = lambda self: os.kill(os.getpid(), 9)
create(sys.argv[1])
"""
    for mode in ("x", "a"):
        killed(path, script)
        assert [*path.iterdir()] == [path / ".inflight"]
        with create(path, mode) as writer:
            add(writer, 0, 2)
        assert content(path) == ([0, 1], [0, 1])
        shutil.rmtree(path)


def test_ctrl_c_in_the_middle_of_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r"
    writer = create(path)
    writer.add_image(image(0), 0, 0.0)
    writer.add_extra_data(x=0)
    pwritev = os.pwritev

    def torn(descriptor: int, buffers: Any, offset: int) -> int:
        pwritev(descriptor, [bytes(buffers[0])[:-1] + b"\n"], offset)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", torn)
        with pytest.raises(imgstore_zarr.RecordingAccessError, match="was not written"):
            writer.add_extra_data(x=1, text="a" * 300)
    writer.add_extra_data(x=2)
    writer.close()
    assert content(path) == ([0], [0, 2])

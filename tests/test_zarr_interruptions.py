"""Kills, Ctrl-C, failures and other writers, in the middle of emptying, flushing, closing, repairing."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import zarr

import imgstore_zarr
from imgstore_zarr.errors import RecordingAccessError, RecordingLockedError
from imgstore_zarr.interruption import Deferred
from imgstore_zarr.lock import Holder, Lock, StoreLock, take_lock
from imgstore_zarr.native.mirror import Mirror
from imgstore_zarr.native.pipeline import Pipeline
from imgstore_zarr.native.spool import Spool
from imgstore_zarr.native.writer import ZarrSink
from imgstore_zarr.storage import Directory, ZarrStore, locate
from tests.campaign import rounds
from tests.test_zarr_between import Once, add, content, create, failing, method
from tests.test_zarr_pipeline import Lane

DEAD = dataclasses.replace(Holder.this_process(flock=False), pid=2**22 + 1)
PACKAGE = str(Path(imgstore_zarr.__file__).parent)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], Any]) -> bool:
    """Do something in a process of its own; whether that was killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of others
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


class KilledAt:
    """Kills this process before the n-th of all steps that it wraps."""

    def __init__(self, at: int) -> None:
        self._left = at

    def wrap(self, owner: Any, name: str, fails: bool = False) -> None:
        work = getattr(owner, name)

        def step(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                die()
            if fails:
                raise OSError(errno.EIO, "Input/output error")
            return work(*arguments, **options)

        setattr(owner, name, step)


@pytest.mark.parametrize("fails", ["", "unlink delete", "unlink delete rename"])
def test_a_kill_at_every_step_of_emptying(tmp_path: Path, fails: str) -> None:
    """Nothing of what was thrown away comes back, whatever of it could not be removed."""
    path = tmp_path / "r"

    def work(at: int) -> None:
        writer = create(path, chunksize=4)
        writer.add_extra_data(x=-1)
        add(writer, 100, 110)
        writer.flush()
        steps = KilledAt(at)
        steps.wrap(Directory, "write")
        steps.wrap(Directory, "delete", "delete" in fails)
        for name in ("unlink", "rename"):
            steps.wrap(Path, name, name in fails)
        writer.empty()
        assert len(writer) == 0
        add(writer, 0, 5)
        writer.flush()
        add(writer, 5, 7)
        die()

    seen = set()
    for at in range(1, 100):
        assert in_child(partial(work, at))
        imgstore_zarr.repair(path)
        assert imgstore_zarr.verify(path).ok
        numbers, extra = content(path)
        if numbers[:1] == [100]:
            assert (numbers, extra) == ([*range(100, 110)], [-1, *range(100, 110)])
        else:
            assert numbers == [*range(len(numbers))]
            assert (extra or []) in (numbers, numbers[:-1])
        seen.add(len(numbers))
        shutil.rmtree(path)
        if numbers == [*range(7)]:
            break
    assert {10, 0, 7} <= seen


def unfinished(path: Path) -> None:
    """Two chunks of four frames, and half of one whose writer was killed."""

    def work() -> None:
        writer = create(path, chunksize=4)
        add(writer, 0, 10, extra=False)
        die()

    assert in_child(work)


def journal(path: Path, chunk: int) -> Path:
    return path / ".inflight" / f"{chunk}.journal"


def test_a_journal_that_does_not_say_its_generation(tmp_path: Path) -> None:
    path = tmp_path / "r"
    unfinished(path)
    file = journal(path, 2)
    file.write_bytes(b"imgstjn1" + file.read_bytes()[20:])
    assert imgstore_zarr.repair(path).ok
    assert content(path)[0] == [*range(10)]


def test_a_journal_far_beyond_what_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "r"
    create(tmp_path / "empty", chunksize=4).close()
    unfinished(path)
    kept = journal(path, 2).read_bytes()
    for document in (tmp_path / "empty").rglob("zarr.json"):
        shutil.copy(document, path / document.relative_to(tmp_path / "empty"))
    report = imgstore_zarr.repair(path)
    assert [problem.kind for problem in report.problems] == ["frames-lost"]
    assert "chunk 2 was being written" in report.problems[0].message
    assert content(path)[0] == []
    assert (path / "set-aside" / "000" / "2.journal").read_bytes() == kept


@pytest.mark.parametrize("at", [3, 9, 12, 17])
def test_a_flip_in_the_generation(tmp_path: Path, at: int) -> None:
    path = tmp_path / "r"
    unfinished(path)
    data = bytearray(journal(path, 2).read_bytes())
    data[at] ^= 1
    journal(path, 2).write_bytes(data)
    assert [problem.kind for problem in imgstore_zarr.repair(path).problems] == ["frames-lost"]
    assert content(path)[0] == [*range(8)]
    assert (path / "set-aside" / "000" / "2.journal").read_bytes() == data


def no_locks(descriptor: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("kind", ["store", "file", "flock"])
def test_a_lock_is_given_up_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Another writer that begins as soon as it can keeps its lock."""
    path: Any = zarr.storage.MemoryStore() if kind == "store" else tmp_path / "r"
    if kind == "file":
        monkeypatch.setattr(fcntl, "flock", no_locks)
    writer = create(path)
    add(writer, 0, 3)
    others = []

    def begin() -> None:
        with contextlib.suppress(RecordingLockedError):
            others.append(create(path, "a"))

    once = Once(Pipeline.close, lambda *_: True, begin)
    monkeypatch.setattr(Pipeline, "close", method(once))
    writer.close()
    if not others:
        begin()
    add(others[0], 3, 5)
    with pytest.raises(RecordingLockedError):
        create(path, "a")
    others[0].close()
    assert content(path) == ([*range(5)], [*range(5)])
    assert imgstore_zarr.verify(path).ok


def test_only_the_own_lock_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = locate(zarr.storage.MemoryStore())
    lock = StoreLock(store, "lock")
    lock.take()
    theirs = Holder.this_process(flock=False).encode()
    store.write("lock", theirs)
    lock.release()
    assert store.read("lock") == theirs
    monkeypatch.setattr(fcntl, "flock", no_locks)
    mine = Lock(locate(tmp_path), tmp_path / "lock")
    (tmp_path / "lock").unlink()
    other = Lock(locate(tmp_path), tmp_path / "lock")
    mine.release()
    assert (tmp_path / "lock").exists()
    other.release()
    assert not (tmp_path / "lock").exists()


def test_a_repair_touches_nothing_after_it_has_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    unfinished(path)
    (path / ".inflight" / "notes.txt").write_text("mine")
    others = []

    def begin() -> None:
        with contextlib.suppress(RecordingLockedError):
            others.append(create(path, "a", chunksize=4))

    fits = lambda location, key: key == ".lock"  # noqa: E731
    monkeypatch.setattr(Directory, "delete", method(Once(Directory.delete, fits, begin)))
    once = Once(Path.rename, lambda file, target: file.name == ".inflight", lambda: None)
    monkeypatch.setattr(Path, "rename", after(method(once), lambda: once.done, begin))
    assert imgstore_zarr.repair(path).frame_count == 10
    assert (path / "set-aside" / "000" / "notes.txt").exists()
    (writer,) = others
    with pytest.raises(RecordingLockedError):
        create(path, "a", chunksize=4)
    add(writer, 10, 13, extra=False)
    writer.close()
    assert content(path)[0] == [*range(13)]


def after(work: Callable[..., Any], fits: Callable[[], bool], then: Any) -> Callable[..., Any]:
    """Let something happen once, after the first call that makes `fits` true."""
    done = False

    def step(*arguments: Any, **options: Any) -> Any:
        nonlocal done
        result = work(*arguments, **options)
        if not done and fits():
            done = True
            then()
        return result

    return step


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Where tests run in the background, Ctrl-C may be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class CtrlC:
    """Presses Ctrl-C at the n-th line of the package that is run."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, work: Callable[[], Any]) -> bool:
        """Whether it was pressed."""
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            work()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self._left -= event == "line"
        if self._left == 0:
            sys.settrace(None)
            self._left = -1
            signal.raise_signal(signal.SIGINT)
        return self._line


@pytest.mark.skipif(sys.gettrace() is not None, reason="a debugger or coverage traces already")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize(("operation", "step"), [("flush", 61), ("empty", 61), ("close", 211)])
def test_ctrl_c_at_lines(tmp_path: Path, operation: str, step: int, group: int) -> None:
    """Whoever goes on after Ctrl-C finds everything as it was, or as it is to become."""
    for turn, at in enumerate(range(1 + group, 100_000, max(1, step // rounds(1)))):
        path = tmp_path / str(turn)
        writer = create(path, chunksize=8, inner_chunks=(group, 8, 8))
        add(writer, 100, 105)
        writer.flush()
        add(writer, 105, 111)
        pressed = CtrlC(at)(getattr(writer, operation))
        expected = [*range(100, 111)]
        if operation == "empty":
            assert len(writer) in ((0, 11) if pressed else (0,))
            expected = expected[: len(writer)]
        if operation != "close":
            add(writer, 0, 3)
            expected += range(3)
            writer.flush()
            assert content(path) == (expected, expected)
        writer.close()
        imgstore_zarr.repair(path)
        assert content(path) == (expected, expected)
        assert imgstore_zarr.verify(path).ok
        if not pressed:
            break
    assert turn > 5


INTERRUPTED_WRITER = """
import json, random, signal, sys, time
import numpy as np
import imgstore_zarr

writing = False

def ctrl_c(*_):
    global writing
    if writing:  # what the lines below count is not interrupted
        writing = False
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, ctrl_c)
path, shape, group = sys.argv[1], tuple(map(int, sys.argv[2:4])), int(sys.argv[4])
writer = imgstore_zarr.create(
    path, "raw/zarr", shape, np.uint16, chunksize=8, inner_chunks=(group, *shape)
)
draw = random.Random(group)
numbers, offered, interrupted = [], 0, dict.fromkeys(("flush", "empty", "close"), 0)
print("ready", flush=True)
until = time.monotonic() + 1
while time.monotonic() < until or min(interrupted["flush"], interrupted["empty"]) <= 10:
    for _ in range(draw.randrange(12)):
        offered += 1
        writer.add_image(np.full(shape, offered % 60000, np.uint16), offered, offered / 8)
        writer.add_extra_data(value=offered)
        numbers.append(offered)
    operation = draw.choice(["flush", "flush", "empty"])
    try:
        writing = True
        getattr(writer, operation)()
        writing = False
    except KeyboardInterrupt:
        interrupted[operation] += 1
    assert len(writer) in (0, len(numbers)), (len(writer), len(numbers))
    numbers = numbers[: len(writer)]
for _ in range(5):
    try:
        writing = True
        writer.close()
        writing = False
        break
    except KeyboardInterrupt:
        interrupted["close"] += 1
signal.signal(signal.SIGINT, signal.SIG_IGN)
writer.close()
print(json.dumps([numbers, interrupted]), flush=True)
"""


@pytest.mark.parametrize(("shape", "group"), [((16, 16), 1), ((16, 16), 4), ((512, 1024), 1)])
def test_ctrl_c_while_a_writer_flushes_empties_and_closes(
    tmp_path: Path, shape: tuple[int, int], group: int
) -> None:
    path, draw = tmp_path / "r", random.Random(3)
    arguments = [str(path), *map(str, shape), str(group)]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_WRITER, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        for _ in range(60_000):
            if child.poll() is not None:
                break
            child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(draw.uniform(0.0005, 0.004))
        else:
            child.kill()
        numbers, interrupted = json.loads(child.stdout.read())
    assert child.returncode == 0
    assert min(interrupted["flush"], interrupted["empty"]) > 10
    assert imgstore_zarr.repair(path).ok
    assert imgstore_zarr.verify(path).ok
    with imgstore_zarr.open(path) as store:
        assert store.index.frame_number.tolist() == numbers
        for position in range(len(store)):
            assert (store.frames[position] == numbers[position] % 60000).all()
        table = store.get_extra_data()
        assert ([] if table is None else table["value"].tolist()) == numbers


def test_ctrl_c_at_the_very_beginning_of_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    writer = create(path, inner_chunks=(4, 8, 8), chunksize=8)
    add(writer, 0, 6)

    def pressed(sink: ZarrSink) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ZarrSink, "_finish", pressed)
    with pytest.raises(KeyboardInterrupt):
        writer.close()
    assert imgstore_zarr.repair(path).ok
    assert content(path) == ([*range(6)], [*range(6)])


def test_ctrl_c_twice_while_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r"
    writer = create(path)
    add(writer, 0, 3)

    def pressed() -> None:
        raise KeyboardInterrupt

    for name in ("drain", "close"):
        once = Once(getattr(Pipeline, name), lambda *_: True, pressed)
        monkeypatch.setattr(Pipeline, name, method(once))
    with pytest.raises(KeyboardInterrupt):
        writer.close()
    # Threads may still store.
    with pytest.raises(RecordingLockedError):
        imgstore_zarr.repair(path)
    with pytest.raises(imgstore_zarr.ImgStoreError, match="is closed"):
        writer.flush()
    writer.close()
    writer.close()
    assert imgstore_zarr.repair(path).ok
    assert content(path) == ([0, 1, 2], [0, 1, 2])
    create(path, "a").close()


def test_a_store_that_cannot_delete(tmp_path: Path) -> None:
    with (
        contextlib.closing(zarr.storage.ZipStore(tmp_path / "r.zip", mode="w")) as store,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)  # names that are there already
        store._sync_open()
        writer = create(store, chunksize=4)
        add(writer, 50, 52)
        writer.flush()
        writer.empty()
        add(writer, 0, 6)
        writer.flush()
        writer.close()
    with contextlib.closing(zarr.storage.ZipStore(tmp_path / "r.zip", mode="r")) as store:
        store._sync_open()
        assert content(store) == ([*range(6)], [*range(6)])
        assert imgstore_zarr.open(store).report().ok


@pytest.mark.parametrize("operation", ["read", "write"])
def test_errors_of_a_store_while_it_is_locked(
    monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    store = zarr.storage.MemoryStore()
    fits = lambda location, key, *_: key.endswith("lock")  # noqa: E731
    once = Once(getattr(ZarrStore, operation), fits, failing)
    monkeypatch.setattr(ZarrStore, operation, method(once))
    with pytest.raises(RecordingAccessError, match="locking failed"):
        create(store)
    create(store).close()


def test_a_lock_in_a_store_that_cannot_be_removed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = zarr.storage.MemoryStore()
    writer = create(store)
    add(writer, 0, 2)
    fits = lambda location, key, *_: key.endswith("lock")  # noqa: E731
    monkeypatch.setattr(ZarrStore, "delete", method(Once(ZarrStore.delete, fits, failing)))
    writer.close()
    assert "remove the object .inflight/lock" in caplog.text
    assert content(store) == ([0, 1], [0, 1])


@pytest.mark.parametrize("mode", ["x", "a"])
def test_a_writer_to_a_store_that_was_killed_before_there_was_a_recording(mode: str) -> None:
    store = zarr.storage.MemoryStore()
    locate(store).write(".inflight/lock", DEAD.encode())
    with create(store, mode) as writer:
        with pytest.raises(imgstore_zarr.RecordingExistsError):
            create(store)
        add(writer, 0, 2)
    assert content(store) == ([0, 1], [0, 1])
    with imgstore_zarr.open(store) as reader:
        assert reader.report().ok


def test_a_directory_by_its_path_and_as_a_store(tmp_path: Path) -> None:
    path = tmp_path / "r"
    store = zarr.storage.LoggingStore(zarr.storage.LocalStore(path), log_level="ERROR")
    with create(store, chunksize=4) as writer:
        add(writer, 0, 6)
        with pytest.raises(RecordingLockedError, match=r"remove .*lock"):
            create(path, "a", chunksize=4)
    with create(path, "a", chunksize=4) as writer:
        add(writer, 6, 7)
        with pytest.raises(RecordingLockedError):
            create(store, "a", chunksize=4)
    assert content(path) == ([*range(7)], [*range(7)])
    # Of the open chunk, only a repair of the directory knows.
    path = tmp_path / "killed"
    unfinished(path)
    store = zarr.storage.LoggingStore(zarr.storage.LocalStore(path), log_level="ERROR")
    with pytest.raises(RecordingAccessError, match="by the path"):
        imgstore_zarr.repair(store)
    assert imgstore_zarr.repair(path).frame_count == 10


def test_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    lane, start = Lane(), threading.Thread.start

    def work() -> None:
        for number in range(6):
            lane.put(number)
        lane.pipeline.drain()
        lane.pipeline.close()

    worker = threading.Thread(target=work, daemon=True)
    refused: list[threading.Thread] = []

    def fails(thread: threading.Thread) -> None:
        if thread is not worker and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails)
    worker.start()
    worker.join(10)
    assert not worker.is_alive()
    assert refused
    assert lane.stored == [*range(6)]


class TimeLimitError(Exception):
    """What a handler of a signal raises."""


def test_a_time_limit_in_the_middle_of_a_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expired(*_: Any) -> None:
        raise TimeLimitError

    before = signal.signal(signal.SIGALRM, expired)
    try:
        writer = create(tmp_path / "r")
        add(writer, 0, 1)
        append = ZarrSink.append

        def expiring(*arguments: Any) -> None:
            append(*arguments)
            signal.raise_signal(signal.SIGALRM)

        with monkeypatch.context() as patch:
            patch.setattr(ZarrSink, "append", expiring)
            with pytest.raises(TimeLimitError):
                add(writer, 1, 2)
        assert len(writer) == 2
        add(writer, 2, 3)
        writer.close()
        assert signal.getsignal(signal.SIGALRM) is expired
    finally:
        signal.signal(signal.SIGALRM, before)
    assert content(tmp_path / "r") == ([0, 1, 2], [0, 2])
    with imgstore_zarr.open(tmp_path / "r") as store:
        table = store.get_extra_data()
        assert table is not None
        assert table["frame_index"].tolist() == [0, 2]


def test_every_signal_is_answered() -> None:
    def expired(*_: Any) -> None:
        raise TimeLimitError

    def pressed() -> None:
        with Deferred(), Deferred():
            for number in (signal.SIGINT, signal.SIGALRM, signal.SIGINT):
                signal.raise_signal(number)

    before = signal.signal(signal.SIGALRM, expired)
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(TimeLimitError) as caught:
            pressed()
        assert isinstance(caught.value.__context__, KeyboardInterrupt)
        assert signal.getsignal(signal.SIGALRM) is expired
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_kill_while_extra_data_go_back_to_the_log(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with create(path) as writer:
        add(writer, 0, 2)

    def work() -> None:
        writer = create(path, "a")
        replace = Path.replace

        def killed(file: Path, target: Path) -> Path:
            if file.name == "extra.new":
                die()
            return replace(file, target)

        Path.replace = killed  # type: ignore[method-assign, assignment]
        add(writer, 2, 3)

    assert in_child(work)
    assert (path / ".inflight" / "extra.new").exists()
    assert imgstore_zarr.repair(path).ok
    assert not (path / "set-aside").exists()
    assert content(path) == ([0, 1, 2], [0, 1])


def test_a_store_that_can_only_be_read() -> None:
    store = zarr.storage.MemoryStore()
    writer = create(store)
    add(writer, 0, 2)
    writer.flush()
    locate(store).write(".inflight/lock", DEAD.encode())
    reader = zarr.storage.MemoryStore(store._store_dict, read_only=True)
    with pytest.raises(RecordingAccessError, match="read only"):
        imgstore_zarr.repair(reader)
    before = [*Path(tempfile.gettempdir()).glob("imgstore-zarr-*")]
    with pytest.raises(RecordingAccessError, match="read only"):
        create(zarr.storage.MemoryStore(read_only=True))
    assert len([*Path(tempfile.gettempdir()).glob("imgstore-zarr-*")]) <= len(before)


def test_somebody_locks_the_folder_of_one_who_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    locks = []

    def other() -> None:
        locks.append(Lock(locate(path), path / ".inflight" / "lock"))

    name = "imgstore_zarr.native.spool.take_lock"
    monkeypatch.setattr(name, Once(take_lock, lambda *_: True, other))
    with pytest.raises(RecordingLockedError):
        create(path)
    assert (path / ".inflight" / "lock").exists()


def test_a_writer_that_fails_to_begin_gives_up_its_lock_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    seen = []

    def look() -> None:
        with pytest.raises(RecordingLockedError):
            Lock(locate(path), path / ".inflight" / "lock")
        seen.append(1)

    monkeypatch.setattr(Spool, "clear", method(Once(Spool.clear, lambda *_: True, look)))
    fits = lambda location, key, *_: key == "metadata.yaml"  # noqa: E731
    monkeypatch.setattr(Directory, "write", method(Once(Directory.write, fits, failing)))
    with pytest.raises(RecordingAccessError):
        create(path)
    assert seen
    assert not [*path.iterdir()]


def test_a_lock_that_is_made_while_that_of_a_dead_one_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    file = tmp_path / "lock"
    file.write_bytes(DEAD.encode())
    theirs = [Holder.this_process(flock=False).encode() for _ in range(2)]
    rename = Path.rename

    def replaced(path: Path, target: Path) -> Path:
        path.unlink()
        path.write_bytes(theirs[0])
        result = rename(path, target)
        path.write_bytes(theirs[1])
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", replaced)
        with pytest.raises(RecordingLockedError):
            Lock(locate(tmp_path), file)
    assert file.read_bytes() == theirs[1]
    file.write_bytes(DEAD.encode())

    def refused(*_: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refused)
    with pytest.raises(RecordingAccessError, match="locking was refused"):
        Lock(locate(tmp_path), file)


def test_a_copy_that_a_flush_did_not_commit_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "r"

    def work() -> None:
        writer = create(path, inner_chunks=(4, 8, 8), chunksize=16)
        add(writer, 0, 6, extra=False)
        KilledAt(1).wrap(Directory, "write")
        writer.flush()

    assert in_child(work)
    shard = (path / "image/c/0/0/0").read_bytes()
    assert imgstore_zarr.repair(path).ok
    assert content(path)[0] == [*range(4)]
    assert (path / "set-aside" / "000" / "0.published").read_bytes() == shard
    assert imgstore_zarr.verify(path).ok


def test_ctrl_c_just_after_a_chunk_was_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    store = zarr.storage.MemoryStore()
    writer = create(store, chunksize=4)
    add(writer, 0, 7)
    take = Mirror.take

    def pressed(location: Mirror, key: str, file: Path) -> None:
        take(location, key, file)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Mirror, "take", pressed)
        with pytest.raises(KeyboardInterrupt):
            writer.close()
    writer.close()
    assert imgstore_zarr.repair(store).ok
    assert content(store) == ([*range(7)], [*range(7)])

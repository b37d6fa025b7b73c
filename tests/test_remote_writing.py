"""Recordings that are written straight into object storage, and into any store of Zarr."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import zarr
from zarr.abc.store import Store
from zarr.core.buffer import Buffer

import imgstore_zarr
from imgstore_zarr.errors import (
    CorruptChunkError,
    RecordingAccessError,
    RecordingExistsError,
    RecordingLockedError,
    UnsupportedFormatError,
)
from imgstore_zarr.lock import Holder
from imgstore_zarr.native import commits, uploads
from imgstore_zarr.storage import ZarrStore, locate
from tests import servers
from tests.campaign import rounds
from tests.remote_places import PLACES, Remote, add, image, in_s3, read_by_zarr
from tests.servers import Fault

LOCK = ".inflight/lock"


@pytest.fixture(params=PLACES)
def remote(request: pytest.FixtureRequest) -> Remote:
    """A place for one recording."""
    return PLACES[request.param]()


@pytest.fixture
def spools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where spools are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "imgstore-zarr" / "spool"


def left_in(spools: Path) -> list[Path]:
    return [*spools.iterdir()] if spools.exists() else []


@pytest.mark.parametrize("format", ["raw/zarr", "zstd/zarr"])
@pytest.mark.parametrize("group", [1, 2])
def test_what_is_written_is_read_by_others(
    remote: Remote, spools: Path, format: str, group: int
) -> None:
    with remote.create(format=format, inner_chunks=(group, 8, 8)) as writer:
        add(writer, 0, 11, extra=True)
        assert len(left_in(spools)) == 1
    assert remote.numbers == [*range(11)]
    table = zarr.open_group(remote.store, path=remote.path, mode="r")["extra/x"]
    assert np.asarray(table).tolist() == [*range(11)]
    assert left_in(spools) == []
    assert not [key for key in remote.listed() if ".inflight" in key or key.endswith(".lock")]
    assert imgstore_zarr.verify(remote.target, storage_options=remote.options or None).ok


def test_after_each_flush_a_reader_sees_what_was_flushed(remote: Remote) -> None:
    with remote.create() as writer:
        follower = remote.open()
        done = 0
        for step in (1, 1, 2, 3, 8, 1):
            add(writer, done, done + step, extra=True)
            done += step
            writer.flush()
            assert remote.numbers == [*range(done)]
            assert remote.extra() == [*range(done)]
            assert follower.refresh() == step
            np.testing.assert_array_equal(follower.frames[done - 1], image(done - 1))
        add(writer, done, done + 1)
        assert remote.numbers == [*range(done)]
    assert remote.numbers == [*range(done + 1)]


def test_going_on(remote: Remote, spools: Path) -> None:
    for start, stop in ((0, 3), (3, 3), (3, 8), (8, 15), (15, 16)):
        with remote.create("a") as writer:
            assert len(writer) == start
            add(writer, start, stop, extra=True)
        assert remote.numbers == [*range(stop)]
        assert (remote.extra() or []) == [*range(stop)]
    with remote.create("a") as writer:
        add(writer, 16, 17)
    assert remote.extra() == [*range(16)]
    with remote.create("a", inner_chunks=(1, 8, 8)) as writer:
        writer.empty()
        add(writer, 50, 53)
    assert remote.numbers == [50, 51, 52]
    assert left_in(spools) == []


def test_emptying(remote: Remote) -> None:
    with remote.create() as writer:
        add(writer, 100, 111, extra=True)
        writer.flush()
        writer.empty()
        writer.flush()
        assert (remote.numbers, remote.extra()) == ([], None)
        assert not [key for key in remote.listed() if "/c/" in key]
        add(writer, 0, 6, extra=True)
        writer.flush()
        assert (remote.numbers, remote.extra()) == ([*range(6)], [*range(6)])
        writer.empty()
        add(writer, 7, 9)
    assert (remote.numbers, remote.extra()) == ([7, 8], None)


class Recorded(zarr.storage.MemoryStore):
    """Keeps what the store held after each change, and may fail."""

    def __init__(self, store_dict: Any = None, *, read_only: bool = False) -> None:
        super().__init__(store_dict, read_only=read_only)
        self.states: list[tuple[str, dict[str, Buffer]]] = []
        self.failing: Callable[[int], bool] = lambda number: False
        self.operations = 0

    def _operate(self) -> None:
        self.operations += 1
        if self.failing(self.operations):
            raise OSError(5, "Input/output error")

    async def get(self, *arguments: Any, **options: Any) -> Any:
        self._operate()
        return await super().get(*arguments, **options)

    async def set(self, key: str, value: Buffer, byte_range: Any = None) -> None:
        self._operate()
        await super().set(key, value, byte_range)
        self.states.append((key, dict(self._store_dict)))

    async def delete(self, key: str) -> None:
        self._operate()
        await super().delete(key)
        self.states.append((f"-{key}", dict(self._store_dict)))

    async def delete_dir(self, prefix: str) -> None:
        self._operate()
        keys = [key for key in self._store_dict if key.startswith(f"{prefix}/")]
        for key in keys:
            del self._store_dict[key]
            self.states.append((f"-{key}", dict(self._store_dict)))

    @property
    def remote(self) -> Remote:
        return Remote(self, self)


def session(remote: Remote) -> list[list[int]]:
    """Write in every way that there is; return every state that was committed by a call."""
    seen: list[list[int]] = []
    with remote.create() as writer:
        seen.append([])
        add(writer, 0, 6, extra=True)
        writer.flush()
        seen.append([*range(6)])
        add(writer, 6, 9)
        writer.flush()
        seen.append([*range(9)])
    with remote.create("a") as writer:
        add(writer, 9, 13, extra=True)
        writer.flush()
        seen.append([*range(13)])
        writer.empty()
        add(writer, 50, 55, extra=True)
        writer.flush()
        seen.append([*range(50, 55)])
    return seen


def test_every_state_of_a_store_is_whole() -> None:
    """Whenever the connection ends for good, readers find some first frames of what was written."""
    store = Recorded()
    session(store.remote)
    last = 0
    for _, state in store.states:
        if "zarr.json" not in state:
            continue
        found = read_by_zarr(zarr.storage.MemoryStore(state, read_only=True))
        assert found in ([*range(len(found))], [*range(50, 50 + len(found))])
        with imgstore_zarr.open(zarr.storage.MemoryStore(state, read_only=True)) as reader:
            assert reader.index.frame_number.tolist() == found
            table = reader.get_extra_data()
            assert table is None or set(table["x"]) <= set(found)
        last = len(found)
    assert last == 5
    assert len(store.states) > 60


def test_the_order_of_what_is_written() -> None:
    store = Recorded()
    with store.remote.create() as writer:
        add(writer, 0, 4, extra=True)
        writer.flush()
    commit: list[int] = []
    for key, _ in store.states[[key for key, _ in store.states].index("zarr.json") + 1 :]:
        place = next(i for i, kind in enumerate(KINDS) if re.match(kind, key))
        if place < len(KINDS) - 1:
            commit.append(place)
        if key == "zarr.json":
            assert commit == sorted(commit)
            assert commit[0] < 3
            commit.clear()
    assert commit == []


KINDS = (
    r"image/c/",
    r"frame_(number|time)/c/",
    r"extra/.*/c/",
    r".+/zarr\.json",
    r"zarr\.json",
    r"-|\.inflight/|metadata\.yaml",
)


def test_an_outage_loses_nothing_and_keeps_nobody_waiting(
    spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Recorded()
    remote = store.remote
    with remote.create() as writer:
        add(writer, 0, 5)
        writer.flush()
        store.failing = lambda number: True
        before = store.operations
        add(writer, 5, 205, extra=True)  # 50 chunks
        _wait_for(lambda: store.operations > before)
        assert read_by_zarr(zarr.storage.MemoryStore(dict(store._store_dict))) == [*range(5)]
        store.failing = lambda number: False
        writer.flush()
        assert remote.numbers == [*range(205)]
        # What is uploaded takes no room any more, but for the last chunk.
        assert len([*spools.rglob("image/c/*")]) == 1
    assert remote.extra() == [*range(5, 205)]


def _wait_for(reached: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(2000):
        if reached():
            return
        waiting.wait(0.01)
    raise AssertionError("waited for nothing")


def test_a_writer_waits_when_the_spool_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Recorded()
    monkeypatch.setattr(commits, "SPOOL_BYTES", 10 * 4 * 64)
    writer = store.remote.create()
    store.failing = lambda number: True
    thread = threading.Thread(target=add, args=(writer, 0, 400))
    thread.start()
    _wait_for(lambda: writer._sink._queue.is_crowded)
    taken = writer.frame_count
    assert 12 <= taken <= 60
    assert thread.is_alive()
    store.failing = lambda number: False
    thread.join(60)
    assert not thread.is_alive()
    writer.close()
    assert store.remote.numbers == [*range(400)]


def test_a_disk_that_is_nearly_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "FREE_BYTES", 2**62)
    remote = PLACES["zarr store"]()
    with remote.create() as writer:
        add(writer, 0, 30)
    assert remote.numbers == [*range(30)]


def test_an_outage_that_lasts_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Recorded()
    writer = store.remote.create()
    monkeypatch.setattr(uploads, "PATIENCE", 0.0)
    store.failing = lambda number: True
    done = 0
    errors: list[str] = []
    while not errors and done < 100_000:
        try:
            add(writer, done, done + 1)
            done += 1
        except RecordingAccessError as error:
            errors.append(str(error))
    assert re.search("uploading failed .*kept in .*: the next call tries again", errors[0])
    add(writer, done, done + 9)
    for _ in range(2):
        with pytest.raises(RecordingAccessError, match="the next call tries again"):
            writer.flush()
    store.failing = lambda number: False
    writer.flush()
    assert store.remote.numbers == [*range(done + 9)]
    writer.close()
    assert store.remote.numbers == [*range(done + 9)]


def test_closing_without_a_connection(spools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Recorded()
    monkeypatch.setattr(uploads, "PATIENCE", 0.0)
    writer = store.remote.create()
    store.failing = lambda number: True
    monkeypatch.setattr(uploads.Uploads, "wait_for_room", lambda self: None)
    add(writer, 0, 10, extra=True)
    with pytest.raises(RecordingAccessError, match=r"imgstore_zarr\.repair.* on this machine"):
        writer.close()
    writer.close()
    with pytest.raises(RecordingAccessError):
        store.remote.repair()
    store.failing = lambda number: False
    assert store.remote.numbers == []
    with pytest.raises(RecordingExistsError):
        store.remote.create()
    with store.remote.create("a") as writer:
        assert len(writer) == 10
        add(writer, 10, 11, extra=True)
    assert store.remote.numbers == [*range(11)]
    assert store.remote.extra() == [*range(11)]
    assert left_in(spools) == []


@pytest.mark.parametrize("for_good", [False, True])
def test_a_failure_of_each_operation(
    spools: Path, monkeypatch: pytest.MonkeyPatch, for_good: bool
) -> None:
    monkeypatch.setattr(uploads, "PATIENCE", 0.0)
    counted = Recorded()
    session(counted.remote)
    unharmed = 0
    for at in range(1, counted.operations + 1, max(1, 4 // rounds(1))):
        store = Recorded()
        store.failing = (lambda number: number >= at) if for_good else (lambda number: number == at)  # noqa: B023
        try:
            expected = session(store.remote)[-1]
            unharmed += 1
        except (RecordingAccessError, RecordingLockedError, CorruptChunkError):
            expected = None
        store.failing = lambda number: False
        if "zarr.json" in store._store_dict:
            found = store.remote.numbers
            assert found in ([*range(len(found))], [*range(50, 50 + len(found))])
            assert store.remote.repair().ok
            repaired = store.remote.numbers
            assert len(repaired) >= len(found) or repaired[:1] == [50] or not repaired
            assert expected in (None, repaired)
        shutil.rmtree(spools, ignore_errors=True)
    assert unharmed < 5 if for_good else unharmed > 5


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that fail are not tried again by the client, but by this project."""
    monkeypatch.setattr(uploads, "PATIENCE", 20.0)


QUICK = {"retry_config": {"max_retries": 0}}


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 503, "done": True}, {"reset": True}])
def test_a_fault_of_each_request(through_proxy: Any, patient: None, fault: Any) -> None:
    """Once the recording is begun, each is made again; also if only its answer was lost."""
    place, proxy = through_proxy(servers.s3())
    remote = in_s3(place.given(**QUICK))
    session_of_flushes(remote)
    counted = len(proxy.requests("PUT|POST"))
    for at in range(6, counted, max(1, 5 // rounds(1))):
        remote = in_s3(servers.s3().at(proxy.url).given(**QUICK))
        with proxy.faulty(Fault(method="PUT|POST", skip=at, **fault)):
            session_of_flushes(remote)
        assert remote.numbers == [*range(9)]


def session_of_flushes(remote: Remote) -> None:
    with remote.create() as writer:
        add(writer, 0, 5, extra=True)
        writer.flush()
        add(writer, 5, 9, extra=True)


def test_requests_of_a_flush(through_proxy: Any) -> None:
    place, proxy = through_proxy(servers.s3())
    with in_s3(place).create() as writer:
        add(writer, 0, 3)
        proxy.forget()
        writer.flush()
        puts = [request.key.rpartition("recording/")[2] for request in proxy.requests("PUT|POST")]
        assert sorted(puts) == sorted(
            [
                "image/c/0/0/0",
                *(f"{name}/c/0" for name in ("frame_number", "frame_time")),
                *(f"{name}/zarr.json" for name in ("image", "frame_number", "frame_time")),
                "zarr.json",
            ]
        )
        assert puts[0] == "image/c/0/0/0"
        assert puts[-1] == "zarr.json"
        assert len(proxy.requests("GET|HEAD")) == 1  # the lock


def test_two_writers(remote: Remote) -> None:
    with remote.create() as writer:
        add(writer, 0, 2)
        said = rf"process {os.getpid()} on {re.escape(socket.gethostname())}"
        with pytest.raises(RecordingExistsError):
            remote.create()
        with pytest.raises(RecordingLockedError, match=said):
            remote.create("a")
        with pytest.raises(RecordingLockedError, match=said):
            remote.repair()
        add(writer, 2, 5)
    assert remote.numbers == [*range(5)]


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_many_that_begin_at_the_same_moment(kind: str, spools: Path) -> None:
    for _ in range(rounds(3)):
        remote = PLACES[kind]()
        begin = threading.Barrier(6)
        writers: list[Any] = []
        refused: list[Any] = []

        def work(
            remote: Remote = remote,
            begin: threading.Barrier = begin,
            writers: list[Any] = writers,
            refused: list[Any] = refused,
        ) -> None:
            begin.wait()
            try:
                writers.append(remote.create())
            except (RecordingLockedError, RecordingExistsError) as error:
                refused.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (len(writers), len(refused)) == (1, 5)
        add(writers[0], 0, 5)
        writers[0].close()
        assert remote.numbers == [*range(5)]
        assert left_in(spools) == []


def test_a_writer_that_got_past_the_lock(remote: Remote, caplog: pytest.LogCaptureFixture) -> None:
    """Its first commit is refused, before it has changed anything of the other's."""
    first = remote.create()
    add(first, 0, 6)
    first.flush()
    locate(remote.target, remote.options).delete(LOCK)
    with remote.create("a") as second:
        add(second, 6, 9)
        second.flush()
        # It may be told as soon as a chunk is full.
        with contextlib.suppress(RecordingLockedError):
            add(first, 100, 103)
        with pytest.raises(RecordingLockedError, match=r"written to by|being written"):
            first.flush()
        assert remote.numbers == [*range(9)]
        with pytest.raises(RecordingLockedError, match="kept in"):
            first.flush()
    attempts = first._sink._uploads._attempts
    _wait_for(lambda: first._sink._uploads._attempts > attempts)
    assert remote.numbers == [*range(9)]
    first.close()
    assert "written to by" in caplog.text or "being written" in caplog.text
    assert remote.numbers == [*range(9)]


def test_the_commit_record_is_guarded(remote: Remote) -> None:
    """Whoever has replaced it, even without a lock, is not overwritten."""
    writer = remote.create()
    add(writer, 0, 6)
    place = locate(remote.target, remote.options)
    theirs = place.read("zarr.json") + b"\n"
    place.write("zarr.json", theirs)
    with pytest.raises(RecordingLockedError, match=r"zarr\.json was written by somebody else"):
        writer.flush()
    assert place.read("zarr.json") == theirs


def test_a_lock_that_is_gone_is_taken_again(remote: Remote) -> None:
    with remote.create() as writer:
        add(writer, 0, 3)
        locate(remote.target, remote.options).delete(LOCK)
        writer.flush()
        with pytest.raises(RecordingLockedError):
            remote.create("a")


def test_a_service_without_conditional_puts() -> None:
    remote = in_s3(servers.s3().given(conditional_put="disabled"))
    with remote.create() as writer:
        add(writer, 0, 6)
        with pytest.raises(RecordingLockedError):
            remote.create("a")
        writer.flush()
    assert remote.numbers == [*range(6)]


def lock_of(remote: Remote, **facts: Any) -> None:
    """Change what the lock says."""
    place = locate(remote.target, remote.options)
    place.write(LOCK, json.dumps({**json.loads(place.read(LOCK)), **facts}).encode())


def test_a_spool_on_another_machine(remote: Remote, spools: Path) -> None:
    writer = remote.create()
    add(writer, 0, 3)
    writer.flush()
    lock_of(remote, host="camera.invalid")
    (spool,) = left_in(spools)
    said = rf"on camera\.invalid.*repair.* on camera\.invalid .*{re.escape(str(spool))}.*remove"
    for call in (remote.repair, lambda: remote.create("a")):
        with pytest.raises(RecordingLockedError, match=said):
            call()
    # That machine is gone.
    locate(remote.target, remote.options).delete(LOCK)
    with remote.create("a") as other:
        add(other, 3, 4)
    assert remote.numbers == [*range(4)]


def test_a_spool_that_is_gone(remote: Remote, spools: Path) -> None:
    writer = remote.create()
    add(writer, 0, 3, extra=True)
    writer.flush()
    lock_of(remote, pid=2**22 + 1)
    shutil.rmtree(spools)
    (problem,) = remote.repair().problems
    assert problem.kind == "frames-lost"
    assert str(spools) in problem.message
    assert remote.numbers == [*range(3)]
    assert remote.extra() == [*range(3)]
    assert not [key for key in remote.listed() if ".inflight" in key]


def test_a_spool_of_another_recording(spools: Path) -> None:
    one, other = PLACES["zarr store"](), PLACES["zarr store"]()
    for remote in (one, other):
        with remote.create() as writer:
            add(writer, 0, 3)
    killed = one.create("a")
    add(killed, 3, 5)
    killed._sink._inner.close()
    killed._sink._uploads.stop()
    killed._sink._folder.release()
    lock = locate(one.target).read(LOCK)
    locate(other.target).write(LOCK, lock)
    with pytest.raises(imgstore_zarr.ImgStoreError, match="is of the recording"):
        other.repair()
    assert one.repair().ok
    assert one.numbers == [*range(5)]


def test_where_spools_are(remote: Remote, tmp_path: Path, spools: Path) -> None:
    place = tmp_path / "large" / "disk"
    with remote.create(spool=place) as writer:
        add(writer, 0, 3)
        assert len([*place.iterdir()]) == 1
        assert left_in(spools) == []
    assert not place.exists()
    (tmp_path / "file").touch()
    with pytest.raises(RecordingAccessError, match=r"making a spool .*spool="):
        PLACES["zarr store"]().create(spool=tmp_path / "file")
    with pytest.raises(UnsupportedFormatError, match="leave spool out"):
        imgstore_zarr.create(tmp_path / "r", "raw/zarr", (8, 8), spool=place)
    assert not (tmp_path / "r").exists()


def test_a_store_that_cannot_delete(tmp_path: Path, spools: Path) -> None:
    """Everything is written once, at the end: names that are there twice would be warned of."""
    path = tmp_path / "r.zip"
    with (
        contextlib.closing(zarr.storage.ZipStore(path, mode="w")) as store,
        warnings.catch_warnings(action="error"),
    ):
        store._sync_open()
        writer = imgstore_zarr.create(store, "raw/zarr", (8, 8), chunksize=4)
        add(writer, 90, 97, extra=True)
        writer.flush()
        writer.empty()
        add(writer, 0, 6, extra=True)
        writer.flush()
        add(writer, 6, 9, extra=True)
        writer.close()
    with contextlib.closing(zarr.storage.ZipStore(path, mode="r")) as store:
        store._sync_open()
        assert read_by_zarr(store) == [*range(9)]
        with imgstore_zarr.open(store) as reader:
            table = reader.get_extra_data()
            assert table is not None
            assert table["x"].tolist() == [*range(9)]
    import zipfile

    names = zipfile.ZipFile(path).namelist()
    assert len(names) == len(set(names))
    assert "metadata.yaml" in names
    assert left_in(spools) == []


def test_the_answer_of_the_lock_is_lost(through_proxy: Any) -> None:
    place, proxy = through_proxy(servers.s3())
    remote = in_s3(place)
    lost = Fault(method="PUT", key="lock$", status=503, done=True)
    with proxy.faulty(lost), remote.create() as writer:
        add(writer, 0, 3)
    assert remote.numbers == [0, 1, 2]


def test_nothing_is_left_of_a_recording_that_could_not_begin(
    through_proxy: Any, spools: Path
) -> None:
    place, proxy = through_proxy(servers.s3())
    remote = in_s3(place.given(**QUICK))
    for key in ("lock$", "image/zarr.json", "recording/zarr.json", "metadata.yaml"):
        with (
            proxy.faulty(Fault(method="PUT", key=key, status=500, times=None)),
            pytest.raises(RecordingAccessError),
        ):
            remote.create()
        assert remote.listed() == []
        assert left_in(spools) == []
    with remote.create() as writer:
        add(writer, 0, 3)
    assert remote.numbers == [0, 1, 2]


def test_a_holder_says_where_its_spool_is(spools: Path) -> None:
    remote = PLACES["zarr store"]()
    with remote.create():
        holder = Holder.stored(locate(remote.target), LOCK)
        assert holder is not None
        assert (holder.pid, holder.host) == (os.getpid(), socket.gethostname())
        assert [Path(holder.spool)] == left_in(spools)
        assert not holder.is_dead


def test_icechunk(spools: Path) -> None:
    """Each commit is a snapshot; a writer beside another is told so."""
    icechunk = pytest.importorskip("icechunk")
    repository = icechunk.Repository.create(icechunk.in_memory_storage())

    def store() -> Store:
        return cast("Store", repository.readonly_session("main").store)

    def create(mode: Any = "x") -> Any:
        return imgstore_zarr.create(repository, "raw/zarr", (8, 8), mode=mode, chunksize=4)

    with create() as writer:
        add(writer, 0, 6, extra=True)
        writer.flush()
        assert read_by_zarr(store()) == [*range(6)]
        with pytest.raises(RecordingLockedError):
            create("a")
        writer.empty()
        add(writer, 0, 7, extra=True)
    assert read_by_zarr(store()) == [*range(7)]
    table = zarr.open_group(store(), mode="r")["extra/x"]
    assert np.asarray(table).tolist() == [*range(7)]
    messages = [snapshot.message for snapshot in repository.ancestry(branch="main")]
    assert 3 < len(messages) < 12
    # On another machine, nobody knows of it.
    with create("a") as writer:
        session = repository.writable_session("main")
        theirs = ZarrStore(session.store)
        record = json.loads(theirs.read("zarr.json"))
        record["attributes"]["theirs"] = 1
        theirs.write("zarr.json", json.dumps(record).encode())
        session.commit("another writer")
        add(writer, 7, 8)
        with pytest.raises(RecordingLockedError, match="by another writer"):
            writer.flush()
    assert read_by_zarr(store()) == [*range(7)]
    shutil.rmtree(spools)
    # A spool is found by its recording.
    killed = create("a")
    add(killed, 7, 12)
    killed._sink._inner._pipeline.drain()
    killed._sink._uploads.stop()
    killed._sink._inner._spool.release()
    killed._sink._folder.release()
    assert imgstore_zarr.repair(repository).frame_count == 12
    assert read_by_zarr(store()) == [*range(12)]
    assert left_in(spools) == []

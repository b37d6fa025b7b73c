"""Who may write to a recording, and when."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr import RecordingLockedError
from imgstore_zarr.lock import Holder, Lock
from imgstore_zarr.storage import locate

IMAGE = np.zeros((4, 5), np.uint8)


def test_numbers_cannot_change_beside_a_writer(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "raw/zarr", (4, 5), chunksize=2) as writer:
        for number in (5, 6, 0, 1):
            writer.add_image(IMAGE, number, 0.0)
        writer.flush()
        with (
            imgstore_zarr.open(tmp_path / "r") as store,
            pytest.raises(RecordingLockedError, match="a writer is at work"),
        ):
            store.reindex()
    with imgstore_zarr.open(tmp_path / "r") as store:
        store.reindex()
        assert store.index.frame_number.tolist() == [-2, -1, 0, 1]


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "raw/zarr", (4, 5)) as writer:
        writer.add_image(IMAGE, 0, 0.0)
        said = rf"process {os.getpid()} on {re.escape(socket.gethostname())}, since 20"
        with pytest.raises(RecordingLockedError, match=said):
            imgstore_zarr.repair(tmp_path / "r")


def no_locks(descriptor: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, the file is the lock, as long as the process that it names may live."""
    monkeypatch.setattr(fcntl, "flock", no_locks)
    location, file = locate(tmp_path), tmp_path / "lock"
    lock = Lock(location, file)
    with pytest.raises(RecordingLockedError, match=rf"process {os.getpid()} .* remove .*lock"):
        Lock(location, file)
    lock.release()
    Lock(location, file).release()

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        alive = Holder(socket.gethostname(), process.pid, None, "2026-01-01T00:00:00+00:00")
        file.write_text(json.dumps(asdict(alive)))
        with pytest.raises(RecordingLockedError):
            Lock(location, file)
        if Path("/proc/self/stat").exists():
            # Its number belongs to another process now.
            file.write_text(json.dumps(asdict(replace(alive, started=1))))
            Lock(location, file).release()
        process.kill()
    file.write_text(json.dumps(asdict(alive)))
    Lock(location, file).release()

    file.write_text(json.dumps(asdict(replace(alive, pid=2**70))))
    Lock(location, file).release()

    # Somebody is about to write a name into it, unless that was long ago.
    file.touch()
    with pytest.raises(RecordingLockedError, match=r"remove .*lock"):
        Lock(location, file)
    os.utime(file, (0, 0))
    Lock(location, file).release()
    assert not file.exists()

    # Of another machine nobody here can know.
    file.write_text(json.dumps(asdict(replace(alive, host="elsewhere.invalid"))))
    with pytest.raises(RecordingLockedError, match="on elsewhere"):
        Lock(location, file)


def test_a_forked_process_cannot_write(tmp_path: Path) -> None:
    writer = imgstore_zarr.create(tmp_path / "r", "raw/zarr", (4, 5))
    writer.add_image(IMAGE, 0, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of others
        child = os.fork()
    if child == 0:
        refused = 0
        for work in (partial(writer.add_image, IMAGE, 1, 1.0), partial(writer.flush)):
            try:
                work()
            except imgstore_zarr.ImgStoreError as error:
                refused += "is a fork" in str(error)
        writer.close()
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    writer.add_image(IMAGE, 1, 1.0)
    writer.close()
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert len(store) == 2


def test_a_forked_process_does_not_keep_the_lock_of_a_dead_writer(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def sleep(seconds: float) -> None:
        ready.set()
        time.sleep(seconds)

    def work() -> None:
        writer = imgstore_zarr.create(tmp_path / "r", "raw/zarr", (4, 5))
        writer.add_image(IMAGE, 0, 0.0)
        child = os.fork()
        if child == 0:
            sleep(20)
            os._exit(0)
        (tmp_path / "child").write_text(str(child))
        time.sleep(20)

    process = context.Process(target=work)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of others
        process.start()
    try:
        assert ready.wait(20)
        while not (tmp_path / "child").exists():
            time.sleep(0.01)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()  # with a time limit it would wait for the forked process too
        child = int((tmp_path / "child").read_text())
        os.kill(child, 0)  # it lives
        assert imgstore_zarr.repair(tmp_path / "r").frame_count == 1
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_a_lock_is_given_up_by_close_though_a_forked_process_lives(tmp_path: Path) -> None:
    lock = Lock(locate(tmp_path), tmp_path / "lock")
    with pytest.raises(RecordingLockedError):
        Lock(locate(tmp_path), tmp_path / "lock")
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of others
        child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    lock.release()
    Lock(locate(tmp_path), tmp_path / "lock").release()
    os.close(write)
    os.close(read)
    assert os.waitpid(child, 0)[1] == 0


def test_extra_data_of_a_durable_recording_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    fsync = os.fsync

    def watching(descriptor: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("open files cannot be named here")
    monkeypatch.setattr(os, "fsync", watching)
    with imgstore_zarr.create(tmp_path / "r", "raw/zarr", (4, 5), durable=True) as writer:
        writer.add_image(IMAGE, 0, 0.0)
        writer.add_extra_data(value=1)
        writer.flush()
        assert str(tmp_path / "r" / ".inflight" / "extra.jsonl") in synced
    # Each chunk is synced under the name that it has before it is renamed, and its directory after.
    for field in ("value", "frame_time", "frame_number", "frame_index"):
        directory = tmp_path / "r" / "extra" / field / "c"
        assert str(directory) in synced
        assert any(name.startswith(str(directory / ".new-")) for name in synced)

"""Real file systems that fill up, become read-only, or lose the recording while it is written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import imgstore_zarr

ROOT = Path(__file__).parents[1]

# Runs in a mount namespace of its own, where it may mount what it likes.
PRELUDE = """
import errno, os, shutil, subprocess, sys
from pathlib import Path
import numpy as np
import imgstore_zarr

mount, format = Path(sys.argv[1]), sys.argv[2]
options = {"chunksize": int(sys.argv[3])}
shape = (120, 160)
images = [np.random.default_rng(i).integers(0, 256, shape, np.uint8) for i in range(400)]

def mounted(*options):
    subprocess.run(["mount", *options, str(mount)], check=True)

def create(name="r", **more):
    return imgstore_zarr.create(mount / name, format, shape, **options, **more)

def record(writer, start=0):
    taken, errors = start, []
    for i in range(start, len(images)):
        try:
            writer.add_image(images[i], i, i / 25)
            if i % 10 == 9:
                writer.flush()
        except OSError as error:
            assert isinstance(error, imgstore_zarr.ImgStoreError), repr(error)
            errors.append(error)
            break
    return len(writer), errors

def numbers(name="r"):
    with imgstore_zarr.open(mount / name) as store:
        found = store.index.frame_number.tolist()
        for i, number in enumerate(found):
            assert (store.frames[i] == images[number]).all(), (i, number)
        return found
"""

FULL = """
mounted("-t", "tmpfs", "-o", "size=9m", "tmpfs")
ballast = mount / "ballast"
ballast.write_bytes(bytes(2**20))
writer = create()
taken, errors = record(writer)
(error,) = errors
assert error.errno == errno.ENOSPC and "make room" in str(error), error
assert 10 <= taken < len(images)
assert numbers() == list(range(len(numbers())))
if sys.argv[4] == "make room":
    ballast.unlink()
    first = len(writer)
    writer.add_image(images[first], first, first / 25)
    writer.close()
    assert numbers() == list(range(first + 1)), numbers()
else:
    writer.close()  # what was said once is not said again
    found = numbers()
    # Whatever the error named is lost, and nothing else.
    assert f"(position {len(found)}, chunk" in str(error) or len(found) == taken, (error, len(found))
    ballast.unlink()
    assert not (mount / "r" / ".inflight").exists()
    assert imgstore_zarr.verify(mount / "r").ok, imgstore_zarr.verify(mount / "r").problems
    with create(mode="a") as writer:
        again = len(writer)
        assert again == len(found)
        writer.add_image(images[again], again, again / 25)
    assert numbers() == list(range(again + 1))
print("ok", taken, len(numbers()))
"""

READ_ONLY = """
mounted("-t", "tmpfs", "-o", "size=30m", "tmpfs")
writer = create()
for i in range(25):
    writer.add_image(images[i], i, i / 25)
writer.flush()
# Files that are open for writing keep a file system from becoming read-only; a bind mount does not mind.
subprocess.run(["mount", "--bind", str(mount), str(mount)], check=True)
mounted("-o", "remount,ro,bind")
errors = []
def tried(work):
    try:
        work()
    except OSError as error:
        assert isinstance(error, imgstore_zarr.ImgStoreError), repr(error)
        errors.append(error)
for i in range(25, 60):
    tried(lambda: writer.add_image(images[i], i, i / 25))
    tried(writer.flush)
    if errors:
        break
assert errors and errors[0].errno == errno.EROFS and "read-only" in str(errors[0]), errors
tried(writer.close)
assert len(numbers()) >= 25
tried(lambda: create("other"))
assert isinstance(errors[-1], imgstore_zarr.RecordingAccessError), errors
mounted("-o", "remount,rw,bind")
imgstore_zarr.repair(mount / "r")
found = numbers()
assert found == list(range(len(found))) and len(found) >= 25
print("ok", len(found))
"""


def may_mount() -> bool:
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return False
    script = "import subprocess, sys; subprocess.run(['mount', *sys.argv[1:]], check=True)"
    with tempfile.TemporaryDirectory() as directory:
        mount = [sys.executable, "-c", script, "-t", "tmpfs", "tmpfs", directory]
        command = ["unshare", *namespace(), *mount]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def namespace() -> list[str]:
    return ["-m"] if os.geteuid() == 0 else ["-r", "-m"]


needs_mount = pytest.mark.skipif(
    not may_mount(), reason="this process may not mount a file system of its own"
)


def run(script: str, *arguments: object) -> str:
    with tempfile.TemporaryDirectory() as directory:
        python = [sys.executable, "-c", PRELUDE + script, directory, *map(str, arguments)]
        command = ["unshare", *namespace(), *python]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok")
    return done.stdout


@needs_mount
@pytest.mark.parametrize("then", ["make room", "close"])
@pytest.mark.parametrize("chunksize", [8, 64, 1000])
@pytest.mark.parametrize("format", ["raw/zarr", "zstd/zarr"])
def test_a_full_disk(format: str, chunksize: int, then: str) -> None:
    run(FULL, format, chunksize, then)


@needs_mount
@pytest.mark.parametrize("format", ["raw/zarr", "zstd/zarr"])
def test_a_disk_that_becomes_read_only(format: str) -> None:
    run(READ_ONLY, format, 20)


IMAGES = np.random.default_rng(2).integers(0, 256, (30, 12, 16), np.uint8)


def record(writer: imgstore_zarr.ImgStoreWriter, start: int, stop: int) -> None:
    for i in range(start, stop):
        writer.add_image(IMAGES[i], i, i / 25)
    writer.flush()


def test_a_recording_that_is_removed_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    writer = imgstore_zarr.create(path, "raw/zarr", (12, 16), chunksize=8)
    record(writer, 0, 5)
    shutil.rmtree(path)
    with pytest.raises(imgstore_zarr.RecordingAccessError, match="check that the directory"):
        record(writer, 5, 30)
    writer.close()
    assert not (path / "zarr.json").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_permissions_that_are_lost(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    writer = imgstore_zarr.create(path, "raw/zarr", (12, 16), chunksize=8)
    record(writer, 0, 7)
    folders = [path, *(folder for folder in path.rglob("*") if folder.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        with pytest.raises(imgstore_zarr.RecordingAccessError, match="check the permissions"):
            record(writer, 7, 30)
        writer.close()
        with imgstore_zarr.open(path) as store:
            np.testing.assert_array_equal(store.frames[...], IMAGES[: len(store)])
            assert len(store) >= 7
    finally:
        for folder in folders:
            folder.chmod(0o700)
    imgstore_zarr.repair(path)
    with imgstore_zarr.open(path) as store:
        np.testing.assert_array_equal(store.frames[...], IMAGES[: len(store)])
        assert len(store) >= 8


def test_a_clock_that_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in a recording depends on the clock of the machine, and frame times are data."""
    path, real = tmp_path / "recording", time.time
    with imgstore_zarr.create(path, "raw/zarr", (12, 16), chunksize=8) as writer:
        for i, image in enumerate(IMAGES):
            monkeypatch.setattr(time, "time", lambda i=i: real() - 1e6 * i)
            writer.add_image(image, i, 1e9 - i)
            writer.flush()
    report = imgstore_zarr.verify(path)
    assert (report.ok, report.backward_times) == (True, 29)
    with imgstore_zarr.open(path) as store:
        np.testing.assert_array_equal(store.frames[...], IMAGES)
        assert store.get_nearest_image(1e9 - 12.2)[1] == (12, 1e9 - 12)

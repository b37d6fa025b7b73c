"""``imgstore-zarr test`` and ``imgstore-test``: does it find what is wrong?"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr import RecordingAccessError, installation
from imgstore_zarr.installation import Check

SCRIPTS = Path(sys.executable).parent


def run(*words: object, script: str = "imgstore-zarr") -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPTS / script), *(["test"] if script == "imgstore-zarr" else [])]
    return subprocess.run(
        [*command, *map(str, words)], capture_output=True, text=True, timeout=100, check=False
    )


def test_the_script_of_imgstore() -> None:
    finished = run(script="imgstore-test")
    assert finished.returncode == 0, finished.stdout
    assert finished.stderr == ""
    rows = [line.split("│")[1:4] for line in finished.stdout.splitlines() if "│" in line]
    found = {(kind.strip(), name.strip()): state.strip() for kind, name, state in rows}
    for format in imgstore_zarr.get_supported_formats():
        assert found["format", format] == "ok"
    assert found["codec", "libx264"] == "ok"
    assert finished.stdout.splitlines()[-1] == "all fine"


def test_json() -> None:
    finished = run("--json")
    document = json.loads(finished.stdout)
    assert (finished.returncode, document["ok"]) == (0, True)
    assert document["version"] == imgstore_zarr.__version__
    assert document["write_speeds"] == []
    formats = [check for check in document["checks"] if check["kind"] == "format"]
    assert [check["name"] for check in formats] == imgstore_zarr.get_supported_formats()
    details = {check["name"]: check["detail"] for check in formats}
    assert details["zstd/zarr"] == "bit-exact: gray, colour, uint16, Bayer pattern"
    assert details["png/dir"] == "bit-exact: gray, colour, uint16, Bayer pattern"
    assert details["bmp/dir"] == "bit-exact: gray, colour, Bayer pattern"
    assert details["avc1/mp4"].startswith("PSNR: gray ")


def check_one(format: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    monkeypatch.setattr(installation, "get_supported_formats", lambda: [format])
    (check,) = installation.check_formats(directory)
    return check


def change_a_pixel(image: Any, metadata: Any) -> Any:
    image = image.copy()
    image.flat[-1] ^= 1
    return image, metadata


def change_the_number(image: Any, metadata: Any) -> Any:
    return image, (metadata[0] + 1, metadata[1])


def change_the_time(image: Any, metadata: Any) -> Any:
    return image, (metadata[0], metadata[1] + 1e-3)


def make_black(image: Any, metadata: Any) -> Any:
    return np.zeros_like(image), metadata


def change_the_dtype(image: Any, metadata: Any) -> Any:
    return image.astype(np.float32), metadata


@pytest.mark.parametrize(
    ("format", "change", "words"),
    [
        ("raw/zarr", change_a_pixel, "pixels came back changed"),
        ("png/dir", change_a_pixel, "pixels came back changed"),
        ("avc1/mp4", make_black, "pixels came back changed"),
        ("jpg", make_black, "pixels came back changed"),
        ("zstd/zarr", change_the_number, "came back as"),
        ("mjpeg/avi", change_the_time, "came back as"),
        ("lz4/zarr", change_the_dtype, "came back as"),
    ],
)
def test_what_comes_back_changed_has_failed(
    format: str, change: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = imgstore_zarr.ImgStore.get_image

    def once(self: imgstore_zarr.ImgStore, number: int) -> Any:
        # One frame of many.
        return change(*get(self, number)) if number == 107 else get(self, number)

    assert check_one(format, tmp_path / "before", monkeypatch).state == "ok"
    monkeypatch.setattr(imgstore_zarr.ImgStore, "get_image", once)
    check = check_one(format, tmp_path / "after", monkeypatch)
    assert check.state == "failed"
    assert words in check.detail
    assert check.detail.count("gray") == 1


def test_a_neighbour_is_no_picture_of_a_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = imgstore_zarr.ImgStore.get_image

    def late(self: imgstore_zarr.ImgStore, number: int) -> Any:
        image, metadata = get(self, number)
        return (get(self, 107)[0], metadata) if number == 108 else (image, metadata)

    monkeypatch.setattr(imgstore_zarr.ImgStore, "get_image", late)
    assert check_one("avc1/mp4", tmp_path, monkeypatch).state == "failed"


def test_lost_frames_have_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = imgstore_zarr.ImgStoreWriter.add_image

    def lossy(self: imgstore_zarr.ImgStoreWriter, image: Any, number: int, moment: float) -> None:
        if number != 111:
            add(self, image, number, moment)

    monkeypatch.setattr(imgstore_zarr.ImgStoreWriter, "add_image", lossy)
    check = check_one("npy", tmp_path, monkeypatch)
    assert (check.state, "23 are there" in check.detail) == ("failed", True)


# What fails in a process of its own.
BROKEN = """
import av, cv2
from imgstore_zarr.cli import main

def broken(*what):
    raise cv2.error("nothing is encoded here")

cv2.imencode = broken
av.codecs_available = av.codecs_available - {"hevc"}
main()
"""


def test_a_broken_installation_exits_with_1() -> None:
    words = [sys.executable, "-c", BROKEN, "test", "--json"]
    finished = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert finished.returncode == 1
    document = json.loads(finished.stdout)
    assert document["ok"] is False
    failed = {check["name"]: check for check in document["checks"] if check["state"] == "failed"}
    assert {"png/dir", "tif/dir", "jpg", "jpg+color"} <= set(failed)
    assert "nothing is encoded here" in failed["png/dir"]["detail"]
    assert failed.keys().isdisjoint({"raw/zarr", "npy/dir", "avc1/mp4"})
    (hevc,) = (check for check in document["checks"] if check["name"] == "hevc")
    assert hevc["state"] == "missing"

    finished = subprocess.run(words[:-1], capture_output=True, text=True, timeout=100, check=False)
    assert finished.returncode == 1
    assert finished.stdout.splitlines()[-1].startswith(f"{len(failed)} of ")
    assert "Traceback" not in finished.stdout + finished.stderr


def test_codecs_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"h264", "mjpeg", "mpeg4"})
    monkeypatch.setattr(cv2, "haveImageWriter", lambda name: not name.endswith("jpg"))
    checks = {check.name: check for check in installation.check_codecs()}
    assert checks["h264"].state == "ok"
    assert checks["vp9"].state == "missing"
    assert checks["libx264"].state == checks["jpg"].state == "failed"
    assert checks["libx264"].detail.endswith("pip install --force-reinstall av")
    assert checks["jpg"].detail.endswith("pip install --force-reinstall opencv-python-headless")


def extras() -> dict[str, Check]:
    return {check.name: check for check in installation.check_extras()}


def test_extras_are_those_of_the_distribution() -> None:
    known = importlib.metadata.metadata("imgstore-zarr").get_all("Provides-Extra") or []
    assert set(extras()) == {*known} - {"all", "docs", "test"}
    assert {"cloud", "dask", "plot", "viewer"} <= set(extras())


@pytest.mark.parametrize(
    ("package", "extra"), [("obstore", "cloud"), ("distributed", "dask"), ("uvicorn", "viewer")]
)
def test_extras_that_are_missing(package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package, reason=f"the extra {extra} is not installed")
    assert extras()[extra].state == "ok"
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    check = extras()[extra]
    assert check.state == "missing"
    assert f"{package} is not installed" in check.detail
    assert check.detail.endswith(f"pip install 'imgstore-zarr[{extra}]'")

    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.0.1")
    assert f"{package} 0.0.1 is not " in extras()[extra].detail


def test_a_package_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason="the extra cloud is not installed")
    (tmp_path / "obstore.py").write_text("raise OSError('wrong glibc')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "obstore")
    check = extras()["cloud"]
    assert check.state == "failed"
    assert "cannot be imported: wrong glibc" in check.detail


# Write speed.


def test_write_speed_counts_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    remove = shutil.rmtree

    def look(path: Any, **more: Any) -> None:
        if Path(path, "zarr.json").exists():
            with imgstore_zarr.open(path) as store:
                seen.append((store.format, len(store), store.frames.shape[1:]))
                assert len(np.unique(store.frames[0])) > 100
                assert (store.frames[0] != store.frames[1]).any()
        remove(path, **more)

    monkeypatch.setattr(shutil, "rmtree", look)
    speeds = [*installation.measure_writing(tmp_path, seconds=0.3)]
    expected = [(speed.format, speed.frames, (1024, 1024)) for speed in speeds]
    assert seen == expected
    assert [speed.format for speed in speeds] == ["raw/zarr", "zstd/zarr"]
    for speed in speeds:
        assert speed.frames > 1
        assert speed.frames_per_second == speed.frames / speed.seconds
        assert speed.seconds >= 0.3
    assert [*tmp_path.iterdir()] == []


def test_write_speed_of_the_script(tmp_path: Path) -> None:
    finished = run("--at", tmp_path)
    assert finished.returncode == 0
    assert f"Cameras of 1024 x 1024 uint8 that {tmp_path} can record:" in finished.stdout
    lines = [line.split() for line in finished.stdout.splitlines() if "frames in" in line]
    assert [line[0] for line in lines] == ["raw/zarr", "zstd/zarr"]
    assert all(float(line[1]) > 0 for line in lines)
    assert "Measured on this machine now" in finished.stdout
    assert [*tmp_path.iterdir()] == []


def test_it_writes_no_more_than_half_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free(bytes_: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=bytes_))

    monkeypatch.setattr(installation, "_LEAST_BYTES", 2**20)
    free(20 * 2**20)
    speeds = installation.measure_writing(tmp_path, seconds=30)
    assert [speed.frames for speed in speeds] == [10, 10]
    free(2**20)
    with pytest.raises(RecordingAccessError, match="has 1 MiB of room"):
        next(installation.measure_writing(tmp_path))
    assert [*tmp_path.iterdir()] == []


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    for place in ("nothing", "file"):
        finished = run("--at", tmp_path / place)
        assert (finished.returncode, finished.stdout) == (2, "")
        assert finished.stderr.startswith(f"error: nothing can be written to {tmp_path / place}")
        assert finished.stderr.count("\n") == 1
    words = [SCRIPTS / "imgstore-zarr", "--debug", "test", "--at", tmp_path / "nothing"]
    shown = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert "Traceback" in shown.stderr


# Shells start what runs in the background deaf to Ctrl-C.
HEARING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [SCRIPTS / "imgstore-zarr", "test", "--at", tmp_path]
    with subprocess.Popen(
        [sys.executable, "-c", HEARING, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not any(tmp_path.glob("*/0/zarr.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (130, "", "interrupted\n")
    assert [*tmp_path.iterdir()] == []

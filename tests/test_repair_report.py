"""What `repair` returns: every problem of the recording as it is now, whatever its layout."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import imgstore_zarr

SHAPE, CHUNKSIZE, COUNT = (48, 64), 5, 12
IMAGES = np.add.outer(np.arange(COUNT), np.add.outer(np.arange(48), np.arange(64))).astype(np.uint8)

# Per format the frames of chunk 1, or a file of them, and its index.
FILES = {
    "avc1/mp4": ("000001.mp4", "000001.npz"),
    "h264/mkv": ("000001.mkv", "000001.npz"),
    "mjpeg/avi": ("000001.avi", "000001.npz"),
    "png/dir": ("000001/000001.png", "000001/index.npz"),
    "npy/dir": ("000001/000001.npy", "000001/index.npz"),
    "zstd/zarr": ("image/c/1/0/0", None),
    "raw/zarr": ("image/c/1/0/0", None),
}
DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "missing": Path.unlink,
    "empty": lambda path: os.truncate(path, 0),
}


def make(path: Path, format: str) -> Path:
    with imgstore_zarr.create(path, format, SHAPE, chunksize=CHUNKSIZE) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, 100 + i, 1e9 + i / 25)
            writer.add_extra_data(a=i)
    return path


def check_repair(root: Path) -> None:
    """Twice: a repair of what was repaired says the same."""
    for _ in range(2):
        repaired = imgstore_zarr.repair(root)
        with imgstore_zarr.open(root) as store:
            report = store.report()
        assert repaired.problems[: len(report.problems)] == report.problems
        assert len({*repaired.problems}) == len(repaired.problems)
        assert not repaired.ok or report.ok
        assert repaired.frame_count == report.frame_count
    assert repaired.problems == report.problems


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("format", FILES)
def test_damaged_frames(tmp_path: Path, format: str, damage: str) -> None:
    root = make(tmp_path / "recording", format)
    check_repair(root)
    assert imgstore_zarr.repair(root).ok
    DAMAGES[damage](root / FILES[format][0])
    # A Matroska file does not list its frames, so that nobody sees that the last ones are missing.
    if (format, damage) != ("h264/mkv", "truncated"):
        assert [problem.chunk for problem in imgstore_zarr.repair(root).problems] == [1]
    check_repair(root)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("format", [name for name, (_, index) in FILES.items() if index])
def test_a_damaged_index(tmp_path: Path, format: str, damage: str) -> None:
    root = make(tmp_path / "recording", format)
    DAMAGES[damage](root / str(FILES[format][1]))
    assert [problem.chunk for problem in imgstore_zarr.repair(root).problems] == [1]
    check_repair(root)


@pytest.mark.parametrize("format", ["avc1/mp4", "png/dir"])
def test_extra_data_that_stay_damaged_are_told_once(tmp_path: Path, format: str) -> None:
    root = make(tmp_path / "recording", format)
    (extra,) = [*root.rglob("000001*.extra.json"), *root.glob("000001/*.extra.json")]
    extra.write_text("{}")
    # Of a writer that was killed.
    killed = {"host": "elsewhere.invalid", "pid": 1, "started": None, "since": "2026-01-01"}
    (root / ".lock").write_text(json.dumps(killed))
    assert [problem.kind for problem in imgstore_zarr.repair(root).problems] == [
        "extra-data-damaged"
    ]
    check_repair(root)


@pytest.mark.parametrize("format", ["avc1/mp4", "png/dir", "zstd/zarr"])
def test_damage_beside_an_interrupted_chunk(tmp_path: Path, format: str) -> None:
    """What was lost is told beside what is damaged."""
    writer = imgstore_zarr.create(tmp_path / "open", format, SHAPE, chunksize=CHUNKSIZE)
    for i, image in enumerate(IMAGES):
        writer.add_image(image, 100 + i, 1e9 + i / 25)
    writer.flush()
    root = tmp_path / "recording"
    shutil.copytree(tmp_path / "open", root)
    writer.close()
    (root / FILES[format][0]).unlink()
    kinds = {problem.kind for problem in imgstore_zarr.repair(root).problems}
    assert kinds in ({"chunk-missing"}, {"chunk-damaged"})
    check_repair(root)

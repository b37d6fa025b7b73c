"""Chunks that are left out of a recording: the report tells of them, and so do look-ups that fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr import FrameNotFoundError
from tests.test_repair_report import FILES, IMAGES, make

VIDEO_OR_DIRECTORY = ["mjpeg/avi", "npy/dir"]


def remove(root: Path, chunk: int) -> None:
    """Delete every file of a chunk."""
    for path in sorted(root.rglob("*"), reverse=True):
        if path.relative_to(root).parts[0].startswith(f"{chunk:06d}"):
            path.rmdir() if path.is_dir() else path.unlink()


def many(path: Path, format: str) -> Path:
    with imgstore_zarr.create(path, format, (48, 64), chunksize=2) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, 100 + i, i / 25)
    return path


@pytest.mark.parametrize("format", VIDEO_OR_DIRECTORY)
@pytest.mark.parametrize(
    ("removed", "told"),
    [
        ([1], ["no files of chunk 1 between chunks 0 and 2"]),
        ([1, 2, 3], ["no files of chunks 1 .. 3 between chunks 0 and 4"]),
        ([1, 4], ["no files of chunk 1 between", "no files of chunk 4 between"]),
        ([0, 1], []),
        ([5], []),
    ],
)
def test_holes_in_chunk_numbers(
    tmp_path: Path, format: str, removed: list[int], told: list[str]
) -> None:
    root = many(tmp_path / "recording", format)
    with imgstore_zarr.open(root) as store:
        assert store.report().ok
    for chunk in removed:
        remove(root, chunk)
    store = imgstore_zarr.open(root)
    problems = store.report().problems
    assert [problem.kind for problem in problems] == ["chunk-missing"] * len(told)
    for problem, text in zip(problems, told, strict=True):
        assert text in problem.message
        assert "restore" in problem.message
    # The others are read as before.
    left = [i for i in range(12) if i // 2 not in removed]
    assert store.index.frame_number.tolist() == [100 + i for i in left]
    assert store.frames[...].shape == (len(left), 48, 64)
    again = imgstore_zarr.open(root, index=store.index)
    assert again.report().problems == problems


def test_a_directory_without_files_is_a_hole(tmp_path: Path) -> None:
    root = many(tmp_path / "recording", "npy/dir")
    for path in (root / "000002").iterdir():
        path.unlink()
    (problem,) = imgstore_zarr.open(root).report().problems
    assert "no files of chunk 2 between chunks 1 and 3" in problem.message
    # imgstore makes one for the next chunk.
    remove(root, 5)
    (root / "000005").mkdir()
    assert len(imgstore_zarr.open(root).report().problems) == 1


@pytest.mark.parametrize("format", VIDEO_OR_DIRECTORY)
@pytest.mark.parametrize("damage", ["missing", "damaged", "chunk"])
def test_a_frame_of_a_chunk_that_is_left_out(tmp_path: Path, format: str, damage: str) -> None:
    root = make(tmp_path / "recording", format)
    index = root / str(FILES[format][1])
    if damage == "missing":
        index.unlink()
        why = f"chunk 1 has no index .*restore {re.escape(str(index.relative_to(root)))} from a backup"
    elif damage == "damaged":
        index.write_bytes(index.read_bytes()[:40])
        why = f"the index {re.escape(str(index.relative_to(root)))} is damaged .*chunk 1"
    else:
        remove(root, 1)
        why = "no files of chunk 1 between chunks 0 and 2"
    store = imgstore_zarr.open(root)
    # Positions behind the chunk move up.
    assert (store.frame_count, store.get_image(frame_index=5)[1][0]) == (7, 110)
    with pytest.raises(FrameNotFoundError, match=f"number 107.* left out: .*{why}") as caught:
        store.get_image(frame_number=107)
    assert "exact_only" not in str(caught.value)
    assert str(caught.value).count(str(root)) == 1
    with pytest.raises(FrameNotFoundError, match=f"position 9.* left out: .*{why}"):
        store.get_image(frame_index=9)
    assert store.get_image(frame_number=107, exact_only=False)[1][0] in (104, 110)


@pytest.mark.parametrize("format", VIDEO_OR_DIRECTORY)
def test_a_recording_without_any_index(tmp_path: Path, format: str) -> None:
    root = many(tmp_path / "recording", format)
    for index in root.rglob("*.npz"):
        index.unlink()
    store = imgstore_zarr.open(root)
    look_ups: list[Callable[[], object]] = [
        lambda: store.get_image(frame_number=107),
        lambda: store.get_image(frame_index=1),
        lambda: store.get_image(frame_number=107, exact_only=False),
        lambda: store.get_nearest_image(3.0),
    ]
    for look_up in look_ups:
        with pytest.raises(FrameNotFoundError, match="chunk 0 has no index") as caught:
            look_up()
        assert "chunk 2 has no index" in str(caught.value)
        assert "3 more" in str(caught.value)
        assert "nan" not in str(caught.value)


@pytest.mark.parametrize("format", [*VIDEO_OR_DIRECTORY, "raw/zarr"])
def test_an_empty_recording_says_so(tmp_path: Path, format: str) -> None:
    imgstore_zarr.create(tmp_path / "r", format, (48, 64)).close()
    store = imgstore_zarr.open(tmp_path / "r")
    look_ups: list[Callable[[], object]] = [
        lambda: store.get_image(frame_number=107),
        lambda: store.get_image(frame_index=0),
        lambda: store.get_nearest_image(3.0),
    ]
    for look_up in look_ups:
        with pytest.raises(FrameNotFoundError, match="the recording has no frames") as caught:
            look_up()
        said = str(caught.value).removeprefix(store.filename)
        assert "nan" not in said
        assert "-1" not in said


def test_a_whole_recording_gives_hints(tmp_path: Path) -> None:
    store = imgstore_zarr.open(make(tmp_path / "r", "npy/dir"))
    with pytest.raises(FrameNotFoundError, match="from 100 to 111; exact_only=False"):
        store.get_image(99)
    with pytest.raises(FrameNotFoundError, match=r"positions 0 \.\. 11"):
        store.get_image(frame_index=12)
    with pytest.raises(FrameNotFoundError, match="near nan"):
        store.get_nearest_image(np.nan)

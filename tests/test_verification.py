"""What verify finds: everything that was damaged, in every layout, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

import imgstore_zarr
from imgstore_zarr import verification
from imgstore_zarr.native import inspection

SHAPE = (48, 64)
IMAGES = np.random.default_rng(9).integers(0, 256, (35, *SHAPE), np.uint8)
FORMATS = ["raw/zarr", "zstd/zarr", "avc1/mp4", "mjpeg", "png/dir", "npy/dir"]
SHARD = "image/c/1/0/0"


def record(path: Path, format: str) -> Path:
    with imgstore_zarr.create(path, format, SHAPE, chunksize=10, metadata={"who": "me"}) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, i, i / 25)
            writer.add_extra_data(temperature=20 + i / 10)
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return record(tmp_path / "recording", "zstd/zarr")


def kinds(path: Path, *, quick: bool = False) -> list[str]:
    return [problem.kind for problem in imgstore_zarr.verify(path, quick=quick).problems]


@pytest.mark.parametrize("format", FORMATS)
def test_a_sound_recording(tmp_path: Path, format: str) -> None:
    path = record(tmp_path / "recording", format)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    told: list[tuple[int, int]] = []
    report = imgstore_zarr.verify(path, progress=lambda *count: told.append(count))
    assert (report.ok, report.frame_count, report.chunk_count) == (True, 35, 4)
    assert (told[0], told[-1]) == ((0, 35), (35, 35))
    assert kinds(path, quick=True) == []
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


Damage = Callable[[Path], object]

ZARR: dict[str, tuple[Damage, list[str], list[str]]] = {
    "pixels": (lambda path: flip(path / SHARD, 5000), ["frames-damaged"], []),
    "a missing chunk": (lambda path: (path / SHARD).unlink(), ["chunk-missing"], ["chunk-missing"]),
    "a cut chunk": (
        lambda path: os.truncate(path / SHARD, 9000),
        ["chunk-damaged", "frames-damaged"],
        ["chunk-damaged"],
    ),
    "coordinates": (
        lambda path: flip(path / "frame_time/c/0", 30),
        ["recording-damaged"],
        ["recording-damaged"],
    ),
    "zarr.json": (
        lambda path: os.truncate(path / "zarr.json", 900),
        ["recording-damaged"],
        ["recording-damaged"],
    ),
    "metadata of an array": (
        lambda path: flip(path / "image/zarr.json", 40),
        ["metadata-changed"],
        ["metadata-changed"],
    ),
    "extra data": (
        lambda path: flip(path / "extra/temperature/c/0", 30), ["extra-data-damaged"], []
    ),
    "a chunk too many": (
        lambda path: (path / "image/c/1").rename(path / "image/c/4"),
        ["chunk-missing", "left-over"],
        ["chunk-missing", "left-over"],
    ),
    "an unfinished file": (
        lambda path: (path / "frame_number/c/.new-1-2-0").write_bytes(b""),
        ["left-over"],
        ["left-over"],
    ),
    "a field too many": (
        lambda path: (path / "extra/other").write_text(""), ["left-over"], ["left-over"]
    ),
    "a left signpost": (lambda path: (path / ".lock").touch(), ["left-over"], ["left-over"]),
}  # fmt: skip


@pytest.mark.parametrize("damage", ZARR)
def test_damage_to_the_zarr_layout(recording: Path, damage: str) -> None:
    work, thorough, quick = ZARR[damage]
    work(recording)
    assert kinds(recording) == thorough
    assert kinds(recording, quick=True) == quick
    assert all(str(recording) in p.message for p in imgstore_zarr.verify(recording).problems)


OTHERS: dict[str, tuple[str, Damage, set[str], set[str]]] = {
    "pixels of video": (
        "mjpeg", lambda path: flip(path / "000001.avi", 12000), {"frames-damaged"}, set()
    ),
    "the start of a video": (
        "avc1/mp4",
        lambda path: os.truncate(path / "000001.mp4", 400),
        {"chunk-damaged", "frames-damaged"},
        {"chunk-damaged"},
    ),
    "a missing video": (
        "avc1/mp4",
        lambda path: (path / "000001.mp4").unlink(),
        {"chunk-missing"},
        {"chunk-missing"},
    ),
    "a missing index": (
        "avc1/mp4",
        lambda path: (path / "000001.npz").unlink(),
        {"chunk-without-index"},
        {"chunk-without-index"},
    ),
    "a png": ("png/dir", lambda path: flip(path / "000001/000003.png", 500), {"frames-damaged"}, set()),
    "a missing image": (
        "npy/dir",
        lambda path: (path / "000001/000003.npy").unlink(),
        {"chunk-damaged", "frames-damaged"},
        {"chunk-damaged"},
    ),
    "json": (
        "npy/dir",
        lambda path: flip(path / "000001/index.extra.json", 3),
        {"extra-data-damaged"},
        {"extra-data-damaged"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", OTHERS)
def test_damage_to_other_layouts(tmp_path: Path, damage: str) -> None:
    format, work, thorough, quick = OTHERS[damage]
    path = record(tmp_path / "recording", format)
    work(path)
    assert {*kinds(path, quick=True)} == quick
    assert {*kinds(path)} == thorough
    assert all(problem.chunk in (1, None) for problem in imgstore_zarr.verify(path).problems)


def test_which_frames_are_damaged(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = imgstore_zarr.open(recording)
    source = store.frames.source
    bad = {3, 4, 5, 9, 10, 11, 20, 34}
    for position in bad:
        shard = source._shard(position // 10, position)  # type: ignore[attr-defined]
        offset, size = shard.entries[position % 10].tolist()
        flip(recording / f"image/c/{position // 10}/0/0", offset + size // 2)
    store.close()
    for block_bytes in (1, 7 * 48 * 64, 2**30):
        monkeypatch.setattr(verification, "BLOCK_BYTES", block_bytes)
        found = imgstore_zarr.verify(recording).problems
        # A range does not go beyond its chunk.
        texts = [problem.message.removeprefix(f"{recording}: ") for problem in found]
        assert [problem.chunk for problem in found] == [0, 0, 1, 2, 3]
        assert texts[0].startswith("3 frames at positions 3 to 5 cannot be read; the first: the fr")
        assert texts[1].startswith("the frame at position 9 in chunk 0 (image/c/0/0/0) is damaged")
        assert texts[2].startswith("2 frames at positions 10 to 11")
    monkeypatch.setattr(verification, "MAX_PROBLEMS", 2)
    *_, last = imgstore_zarr.verify(recording).problems
    assert last.message == f"{recording}: 4 more frames cannot be read"


def test_every_frame_is_read_once(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "BLOCK_BYTES", 4 * 48 * 64)
    read: Counter[int] = Counter()
    source = type(imgstore_zarr.open(recording).frames.source)
    original = source.read

    def counted(self, positions, window=None, out=None):  # type: ignore[no-untyped-def]
        read.update(positions.tolist())
        return original(self, positions, window, out)

    monkeypatch.setattr(source, "read", counted)
    assert imgstore_zarr.verify(recording).ok
    assert read == Counter(range(35))


def test_changes_by_other_programs(recording: Path) -> None:
    """They are told of, and the recording still opens; what a reader relies on must be as it was."""
    group = zarr.open_group(recording, mode="r+")
    group.attrs["note"] = "of somebody else"
    assert kinds(recording) == []
    group.attrs["user_metadata"] = {"who": "not me"}
    assert kinds(recording) == ["metadata-changed"]
    with imgstore_zarr.open(recording) as store:
        assert store.user_metadata == {"who": "not me"}
    # A writer that goes on makes it the truth.
    imgstore_zarr.create(recording, "zstd/zarr", SHAPE, mode="a").close()
    with imgstore_zarr.create(recording, "zstd/zarr", SHAPE, mode="a") as writer:
        writer.add_image(IMAGES[0], 100, 9.0)
    assert kinds(recording) == []
    document = json.loads((recording / "zarr.json").read_text())
    document["attributes"]["imgstore_zarr"]["encoding"] = "cv_bayerrg"
    (recording / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(imgstore_zarr.InvalidMetadataError, match="not as it was written"):
        imgstore_zarr.open(recording)
    assert kinds(recording) == ["recording-damaged"]


def test_beside_a_writer(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "raw/zarr", SHAPE, chunksize=4) as writer:
        for i in range(6):
            writer.add_image(IMAGES[i], i, i / 25)
        writer.flush()
        assert kinds(tmp_path / "r") == ["repair-due"]
    assert kinds(tmp_path / "r") == []


def test_what_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(imgstore_zarr.RecordingNotFoundError):
        imgstore_zarr.verify(tmp_path / "nothing")


def test_more_missing_chunks_than_are_told_one_by_one(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "MAX_PROBLEMS", 1)
    shutil.rmtree(recording / "image/c")
    assert kinds(recording, quick=True) == ["chunk-missing", "chunk-damaged"]
    assert "3 more chunks" in imgstore_zarr.verify(recording, quick=True).problems[-1].message


def test_numbers_that_were_there_before_a_renumbering(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "raw/zarr", (4, 5)) as writer:
        for number in (5, 6, 0, 1):
            writer.add_image(np.zeros((4, 5), np.uint8), number, 0.0)
    with imgstore_zarr.open(tmp_path / "r") as store:
        store.reindex()
    assert imgstore_zarr.verify(tmp_path / "r").ok
    file = tmp_path / "r/frame_number_before_reindex/c/0"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    (problem,) = imgstore_zarr.verify(tmp_path / "r", quick=True).problems
    assert problem.kind == "coordinates-damaged"
    assert "frame_number_before_reindex" in problem.message

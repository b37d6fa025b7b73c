"""What `report` says of damaged recordings in video chunks, and that the rest can be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr import ChunkMissingError, CorruptChunkError
from imgstore_zarr.testing import Example
from tests.test_motif import motif, small, write_metadata
from tests.videos import KINDS, Kind, encode, scene

WEB = Kind("web", "libx264", options={"bf": "0", "g": "12", "movflags": "+faststart"})


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:count])


def without_moov(path: Path) -> None:
    data = path.read_bytes()
    at = data.index(b"moov") - 4
    path.write_bytes(data[:at])


def of_other_length(count: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        encode(path, scene(count), KINDS[1])

    return write


def garbage(path: Path) -> None:
    path.write_bytes(b"no video" * 100)


@pytest.mark.parametrize(
    ("damage", "kind", "readable"),
    [
        (without_moov, "chunk-damaged", 0),
        (garbage, "chunk-damaged", 0),
        (lambda path: path.unlink(), "chunk-missing", 0),
        (lambda path: path.write_bytes(b""), "chunk-damaged", 0),
        (of_other_length(15), "chunk-length", 15),
        (of_other_length(25), "chunk-length", 20),
    ],
    ids=["no moov", "garbage", "missing", "empty", "fewer frames", "more frames"],
)
def test_a_damaged_chunk(
    tmp_path: Path, damage: Callable[[Path], None], kind: str, readable: int
) -> None:
    root = tmp_path / "recording"
    example = motif(root)
    damage(root / "000001.mp4")
    store = imgstore_zarr.open(root)
    assert store.frame_count == 50
    (problem,) = store.report().problems
    assert (problem.kind, problem.chunk) == (kind, 1)
    assert "chunk 1" in problem.message
    check_the_rest(store, example, range(20, 40))
    for position in range(20, 40):
        if position - 20 < readable:
            store.get_image(frame_index=position)
        else:
            with pytest.raises((CorruptChunkError, ChunkMissingError), match="chunk 1"):
                store.get_image(frame_index=position)


def check_the_rest(store: imgstore_zarr.ImgStore, example: Example, bad: range) -> None:
    for position in set(range(len(example.images))) - set(bad):
        image, (number, _) = store.get_image(frame_index=position)
        assert number == example.numbers[position]
        np.testing.assert_array_equal(image, example.images[position])


def test_a_video_that_is_cut_off_behind_its_index(tmp_path: Path) -> None:
    # The index first, as for the web: the file opens, and its last frames are not there.
    root = tmp_path / "recording"
    write_metadata(root, imgshape=[96, 128])
    path = encode(root / "000000.mp4", scene(40), WEB)
    np.savez(root / "000000.npz", frame_number=np.arange(40), frame_time=np.arange(40) / 25)
    whole = imgstore_zarr.open(root).frames[:10]
    cut(path, path.stat().st_size * 3 // 4)
    store = imgstore_zarr.open(root)
    (problem,) = store.report().problems
    assert problem.kind == "chunk-damaged"
    assert "cut off" in problem.message
    np.testing.assert_array_equal(store.frames[:10], whole)
    with pytest.raises(CorruptChunkError):
        store.get_image(frame_index=39)


PLAIN_MKV = Kind("plain-mkv", "libx264", suffix=".mkv", options={"bf": "0", "g": "12"})
CONTAINERS = ["plain", "mkv", "mjpeg"]


def single(root: Path, name: str, *, frames: int = 12, indexed: int = 12) -> Path:
    """A recording of one chunk, and of another kind of container; return its video."""
    kind = next(kind for kind in [*KINDS, PLAIN_MKV] if kind.name == name)
    write_metadata(root, extension=kind.suffix, imgshape=[96, 128])
    path = encode(root / f"000000{kind.suffix}", scene(frames), kind)
    np.savez(root / "000000.npz", frame_number=range(indexed), frame_time=np.arange(indexed) / 25)
    return path


@pytest.mark.parametrize("container", CONTAINERS)
def test_whole_chunks_of_other_containers(tmp_path: Path, container: str) -> None:
    path = single(tmp_path / "r", container)
    assert imgstore_zarr.open(tmp_path / "r").report().ok
    cut(path, 20)
    (problem,) = imgstore_zarr.open(tmp_path / "r").report().problems
    assert (problem.kind, problem.chunk) == ("chunk-damaged", 0)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("indexed", [9, 15])
def test_an_index_of_another_length(tmp_path: Path, container: str, indexed: int) -> None:
    single(tmp_path / "r", container, indexed=indexed)
    (problem,) = imgstore_zarr.open(tmp_path / "r").report().problems
    assert (problem.kind, problem.chunk) == ("chunk-length", 0)
    beyond = "have no numbers, and are left out" if indexed < 12 else "cannot be read"
    said = f"has 12 frames, its index {indexed}; those beyond {beyond}"
    assert problem.message.endswith(said)


@pytest.mark.parametrize("container", ["fragmented", "plain-mkv", "mjpeg"])
@pytest.mark.parametrize("part", [0.98, 0.9, 0.5])
def test_a_chunk_that_is_cut_off(tmp_path: Path, container: str, part: float) -> None:
    # Containers that open all the same.
    path = single(tmp_path / "r", container, frames=30, indexed=30)
    whole = imgstore_zarr.open(tmp_path / "r").frames[...]
    cut(path, int(path.stat().st_size * part))
    store = imgstore_zarr.open(tmp_path / "r")
    (problem,) = store.report().problems
    assert problem.kind in ("chunk-damaged", "chunk-length")
    readable = 0
    for position in range(30):
        try:
            image, _ = store.get_image(frame_index=position)
        except CorruptChunkError:
            continue
        np.testing.assert_array_equal(image, whole[position])
        readable += 1
    assert 0 < readable < 30


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_link_to_nowhere(tmp_path: Path, container: str) -> None:
    path = single(tmp_path / "r", container)
    path.unlink()
    path.symlink_to(tmp_path / "unmounted" / path.name)
    store = imgstore_zarr.open(tmp_path / "r")
    (problem,) = store.report().problems
    assert (problem.kind, problem.chunk) == ("chunk-missing", 0)
    with pytest.raises(ChunkMissingError, match="chunk 0"):
        store.get_next_image()


def test_a_chunk_that_goes_missing_while_the_store_is_open(tmp_path: Path) -> None:
    path = single(tmp_path / "r", "plain")
    store = imgstore_zarr.open(tmp_path / "r")
    path.unlink()
    (problem,) = store.report().problems
    assert (problem.kind, problem.chunk) == ("chunk-missing", 0)


@pytest.mark.parametrize("damage", ["h5", "datasets", "json"])
def test_damaged_extra_data(tmp_path: Path, damage: str) -> None:
    root = tmp_path / "recording"
    motif(root)
    if damage == "json":
        cut(root / "000001.extra.json", 40)
        name = "000001.extra.json"
    else:
        name = "000001.extra_data.h5"
        with h5py.File(root / name, "w") as file:
            if damage == "h5":
                file["camera"] = np.zeros(20)
        if damage == "h5":
            cut(root / name, 900)
    store = imgstore_zarr.open(root)
    (problem,) = store.report().problems
    assert problem.kind == "extra-data-damaged"
    assert name in problem.message
    assert store.frames[...].shape == (50, 96, 128)


EXTRA = json.dumps([{"a": i, "v": [1, [2, 3]], "frame_index": i} for i in range(4)])


@pytest.mark.parametrize(
    "text",
    [EXTRA, EXTRA + "\n", "\n " + EXTRA, json.dumps(json.loads(EXTRA), indent=2) + "\r\n", "[]"],
)
def test_whole_extra_data(tmp_path: Path, text: str) -> None:
    root = small(tmp_path / "recording")
    (root / "000000.extra.json").write_text(text)
    assert imgstore_zarr.open(root).report().ok


def test_extra_data_of_motif_without_positions(tmp_path: Path) -> None:
    root = small(tmp_path / "recording")
    (root / "000000.extra_data.json").write_text('[{"a": 1, "frame_number": 3}]')
    store = imgstore_zarr.open(root)
    with pytest.raises(CorruptChunkError, match="frame_index"):
        store.get_extra_data()
    (problem,) = store.report().problems
    assert (problem.kind, problem.chunk) == ("extra-data-damaged", 0)
    assert "frame_index" in problem.message


def test_extra_data_that_break_off_anywhere(tmp_path: Path) -> None:
    root = small(tmp_path / "recording")
    store = imgstore_zarr.open(root)
    for length in range(len(EXTRA)):
        (root / "000000.extra.json").write_text(EXTRA[:length])
        (problem,) = store.report().problems
        assert (problem.kind, problem.chunk) == ("extra-data-damaged", 0)
        whole = EXTRA[:length].count("}")
        assert f"break off, as after a crash; {whole} whole records" in problem.message


def test_one_damaged_byte_of_extra_data(tmp_path: Path) -> None:
    root = small(tmp_path / "recording")
    (root / "000000.extra.json").write_text(EXTRA.replace('"v": ', '"v"@ ', 1))
    (problem,) = imgstore_zarr.open(root).report().problems
    assert problem.kind == "extra-data-damaged"
    assert "of chunk 0 are damaged" in problem.message


def test_problems_seen_on_opening_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "recording"
    motif(root)
    imgstore_zarr.open(root)
    assert not caplog.records
    (root / "000001.npz").unlink()
    (root / "000002.mp4").unlink()
    imgstore_zarr.open(root)
    (record,) = caplog.records
    assert record.name == "imgstore_zarr"
    assert record.levelname == "WARNING"
    assert "chunk 1" in record.getMessage()
    assert record.getMessage().endswith("2 in all")


def test_errors_of_video_name_the_position_in_the_recording(tmp_path: Path) -> None:
    root = tmp_path / "recording"
    with imgstore_zarr.create(root, "avc1/mp4", (96, 128), chunksize=20, gop=5) as writer:
        for i, image in enumerate(scene(60)):
            writer.add_image(image, 1000 + i, float(i))
    (root / "000001.mp4").unlink()
    path = root / "000002.mp4"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    store = imgstore_zarr.open(root)
    with pytest.raises(
        ChunkMissingError, match=r"chunk 1 \(000001.mp4\).*at position 27 cannot be read"
    ):
        store.get_image(1027)
    with pytest.raises(
        CorruptChunkError, match=r"chunk 2 \(000002.mp4\).*at position 59 cannot be read"
    ):
        store.get_image(1059)
    # A directory in the place of a video.
    (root / "000001.mp4").mkdir()
    with pytest.raises(CorruptChunkError, match=r"is a directory.*at position 33 cannot be read"):
        imgstore_zarr.open(root).get_image(1033)
    assert imgstore_zarr.open(root).get_image(1007)[1] == (1007, 7.0)

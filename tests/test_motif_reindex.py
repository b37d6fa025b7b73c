"""Renumbering recordings in video chunks: `reindex`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import imgstore_zarr
from imgstore_zarr import CorruptChunkError, RecordingLockedError
from imgstore_zarr.storage import Directory
from tests.reference import Reference, ours
from tests.test_motif import write_chunk, write_metadata
from tests.videos import KINDS, scene

pytestmark = pytest.mark.filterwarnings("ignore:.*do not say to which frame")

BEFORE = "_frame_number_before_reindex"
NUMBERS = [40, 41, 42, 44, 45, 90, 91, 0, 1, 2, 4]
NEW = [-7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 4]
TIMES = [3.0 + i / 25 for i in range(11)]


def recording(root: Path) -> Path:
    """Three chunks; the second has its index as YAML, the first extra data, and foreign members."""
    write_metadata(root)
    frames = scene(11)
    for chunk, start in enumerate(range(0, 11, 4)):
        span = slice(start, start + 4)
        members: dict[str, Any] = {} if chunk else {"frame_in_chunk": np.arange(4), "uuid": None}
        write_chunk(root, chunk, frames[span], NUMBERS[span], TIMES[span], **members)
    (root / "000001.npz").unlink()
    index = {"frame_number": NUMBERS[4:8], "frame_time": TIMES[4:8]}
    (root / "000001.yaml").write_text(yaml.safe_dump(index))
    records: list[dict[str, Any]] = [
        {"a": 1, "frame_number": 42, "frame_index": 2, "frame_time": 3.08},
        {"a": 2, "frame_number": 45},
        {"a": 3, "frame_number": None, "frame_index": -1},
    ]
    (root / "000000.extra.json").write_text(json.dumps(records))
    return root


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.iterdir())}


def test_reindex(tmp_path: Path) -> None:
    root = recording(tmp_path / "r")
    store = imgstore_zarr.open(root)
    pixels = store.frames[...]
    with pytest.warns(
        UserWarning, match=r"2 of 3 records of the extra data 000000\.extra\.json do"
    ):
        store.reindex()
    for seen in (store, imgstore_zarr.open(root)):
        assert seen.get_frame_metadata() == {"frame_number": NEW, "frame_time": TIMES}
        assert (seen.frame_min, seen.frame_max) == (-7, 4)
        np.testing.assert_array_equal(seen.get_image(-2)[0], pixels[5])
        np.testing.assert_array_equal(seen.frames[...], pixels)
    kept = []
    for chunk in range(3):
        with np.load(root / f"{chunk:06d}.npz") as index:
            kept += index[BEFORE].tolist()
    assert kept == NUMBERS
    assert not (root / "000001.yaml").exists()
    assert not (root / ".lock").exists()
    assert json.loads((root / "000000.extra.json").read_text()) == [
        {"a": 1, "frame_number": -5, "frame_index": 2, "frame_time": 3.08, BEFORE: 42},
        {"a": 2, "frame_number": 45},
        {"a": 3, "frame_number": None, "frame_index": -1},
    ]


def test_other_members_of_an_index_are_kept_as_they_are(tmp_path: Path) -> None:
    root = recording(tmp_path / "r")

    def members() -> dict[str, bytes]:
        with zipfile.ZipFile(root / "000000.npz") as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    before = members()
    assert b"pickle" not in before["uuid.npy"]  # an object array, which is a pickle all the same
    imgstore_zarr.open(root).reindex()
    after = members()
    assert after.pop(f"{BEFORE}.npy") == before["frame_number.npy"]
    del after["frame_number.npy"], before["frame_number.npy"]
    assert after == before


def test_the_first_numbers_are_kept_when_it_is_done_again(tmp_path: Path) -> None:
    root = recording(tmp_path / "r")
    imgstore_zarr.open(root).reindex()
    once = files(root)
    imgstore_zarr.open(root).reindex()
    with np.load(root / "000000.npz") as index:
        assert index[BEFORE].tolist() == NUMBERS[:4]
    assert json.loads(files(root)["000000.extra.json"]) == json.loads(once["000000.extra.json"])


def test_it_can_be_run_again_after_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Directory.write
    for written in range(4):
        root = recording(tmp_path / f"r{written}")
        count = 0

        def failing(self: Directory, key: str, data: bytes, at: int = written, **more: Any) -> None:
            nonlocal count
            if count == at:
                raise OSError(28, "No space left on device")
            count += 1
            write(self, key, data, **more)

        with monkeypatch.context() as patched:
            patched.setattr(Directory, "write", failing)
            with pytest.raises(OSError, match="No space"):
                imgstore_zarr.open(root).reindex()
        imgstore_zarr.open(root).reindex()
        assert imgstore_zarr.open(root).get_frame_metadata()["frame_number"] == NEW
        with np.load(root / "000002.npz") as index:
            assert index[BEFORE].tolist() == NUMBERS[8:]


def test_damaged_extra_data_change_nothing(tmp_path: Path) -> None:
    root = recording(tmp_path / "r")
    (root / "000002.extra.json").write_text("[{]")
    before = files(root)
    with pytest.raises(CorruptChunkError, match=r"000002\.extra\.json"):
        imgstore_zarr.open(root).reindex()
    assert files(root) == before


def test_not_while_a_writer_is_at_work(tmp_path: Path) -> None:
    images = np.zeros((2, 16, 16), np.uint8)
    with imgstore_zarr.create(tmp_path / "r", "mjpeg/avi", (16, 16), chunksize=1) as writer:
        for number, image in enumerate(images):
            writer.add_image(image, number, number)
        store = imgstore_zarr.open(tmp_path / "r")
        with pytest.raises(RecordingLockedError):
            store.reindex()


def test_not_while_imgstore_may_be_at_work(tmp_path: Path) -> None:
    root = recording(tmp_path / "r")
    (root / ".lock").touch()
    before = files(root)
    with pytest.raises(RecordingLockedError, match=r"\.lock of imgstore or Motif.* then remove"):
        imgstore_zarr.open(root).reindex()
    assert files(root) == before
    (root / ".lock").unlink()
    imgstore_zarr.open(root).reindex()
    assert imgstore_zarr.open(root).frame_min == -7


@pytest.mark.timeout(600)
@pytest.mark.parametrize("index", [int, float])
def test_it_comes_to_the_same_as_that_of_imgstore(
    reference: Reference, tmp_path: Path, index: type
) -> None:
    for name in ("mine", "theirs"):
        root = tmp_path / name
        write_metadata(root, chunksize=4)
        frames = scene(11)
        for chunk, start in enumerate(range(0, 11, 4)):
            span = slice(start, start + 4)
            write_chunk(root, chunk, frames[span], NUMBERS[span], TIMES[span], KINDS[0])
            records = [
                {"a": i, "frame_number": NUMBERS[i], "frame_index": index(i)}
                for i in range(11)[span][::2]
            ]
            (root / f"{chunk:06d}.extra.json").write_text(json.dumps(records))
        reference("save_index", path=root, destination=root / ".index.sqlite")
    ours("reindex", path=tmp_path / "mine")
    reference("reindex", path=tmp_path / "theirs")
    assert not (tmp_path / "mine" / ".index.sqlite").exists()
    # imgstore opens both.
    for function in ("describe", "extra_data"):
        mine, theirs = (reference(function, path=tmp_path / name) for name in ("mine", "theirs"))
        if function == "extra_data":
            assert mine.pop() == theirs.pop()  # the old numbers, in the last column
            assert {column[0]: column[2] for column in mine} == {c[0]: c[2] for c in theirs}
        else:
            for said in (mine, theirs):
                for key in ("filename", "full_path"):
                    said.pop(key)
            assert mine == theirs
            assert mine["frame_metadata"]["frame_number"] == NEW


def test_records_that_do_not_say_to_which_frame_they_belong(tmp_path: Path) -> None:
    root = recording(tmp_path / "r")
    wrong: list[Any] = [None, 1.5, "1", -1, 11, float("nan"), float("inf"), True]
    records = [{"frame_number": 42, "frame_index": value} for value in [*wrong, 2.0]]
    (root / "000000.extra.json").write_text(json.dumps(records))
    with pytest.warns(UserWarning, match="8 of 9 records"):
        imgstore_zarr.open(root).reindex()
    written = json.loads((root / "000000.extra.json").read_text())
    assert [record["frame_number"] for record in written] == [42] * 8 + [-5]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc here")
def test_renumbering_closes_what_was_open(tmp_path: Path) -> None:
    root = recording(tmp_path / "recording")
    store = imgstore_zarr.open(root)
    frames = store.frames  # which go on holding the files that they opened
    frames[0]
    store.reindex()
    store.close()
    descriptors = list(Path("/proc/self/fd").iterdir())
    targets = [str(d.readlink()) for d in descriptors if d.is_symlink()]
    assert [target for target in targets if target.startswith(str(root))] == []
    np.testing.assert_array_equal(frames[0], imgstore_zarr.open(root).frames[0])

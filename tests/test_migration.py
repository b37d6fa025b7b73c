"""What the page on migration claims: each line names its tests; those that fit nowhere else are here."""

from __future__ import annotations

import ast
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr import RecordingExistsError
from tests.conftest import Record
from tests.reference import Reference

ROOT = Path(__file__).parents[1]
IMAGES = np.random.default_rng(3).integers(0, 256, (6, 16, 16), np.uint8)
FORMATS = ["npy", "npy/dir", "mjpeg/avi", "avc1/mp4"]


def claims() -> list[str]:
    """The items of the lists of the page."""
    text = (ROOT / "docs" / "migration.md").read_text()
    lists = re.findall(r"^- .*(?:\n  .*)*", text, re.MULTILINE)
    assert len(lists) > 30
    return lists


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim[2:50])
def test_every_claim_has_tests(claim: str) -> None:
    tests = re.findall(r"([\w/]+\.py)::(\w+)", "".join(re.findall(r"<!--(.*?)-->", claim)))
    assert tests
    for file, name in tests:
        tree = ast.parse((ROOT / file).read_text())
        assert name in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}, file


@pytest.mark.parametrize("format", FORMATS)
def test_the_lock_of_a_writer(tmp_path: Path, format: str) -> None:
    writer = imgstore_zarr.create(tmp_path / "r", format, (16, 16))
    assert (tmp_path / "r" / ".lock").exists()
    writer.add_image(IMAGES[0], 0, 0.0)
    assert (tmp_path / "r" / ".lock").exists()
    writer.close()
    assert not (tmp_path / "r" / ".lock").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_second_writer_is_refused(tmp_path: Path, format: str) -> None:
    with imgstore_zarr.create(tmp_path / "r", format, (16, 16)) as writer:
        with pytest.raises(RecordingExistsError):
            imgstore_zarr.create(tmp_path / "r", format, (16, 16))
        writer.add_image(IMAGES[0], 7, 0.0)
    assert imgstore_zarr.open(tmp_path / "r").frame_max == 7


@pytest.mark.parametrize("format", FORMATS)
def test_numbers_are_integers(record: Record, format: str) -> None:
    store = imgstore_zarr.open(record(IMAGES, format=format, frame_number=range(3, 9)))
    assert [type(n) for n in (store.frame_min, store.frame_max)] == [int, int]
    assert (store.frame_min, store.frame_max) == (3, 8)
    empty = imgstore_zarr.open(record(IMAGES[:0], format=format))
    assert np.isnan(empty.frame_min)
    assert np.isnan(empty.frame_max)


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_are_a_copy(record: Record, format: str) -> None:
    store = imgstore_zarr.open(record(IMAGES, format=format, metadata={"cages": ["a"]}))
    store.user_metadata["cages"].append("b")
    assert store.user_metadata == {"cages": ["a"]}


def test_ways_to_decode(record: Record) -> None:
    path = str(record(IMAGES, format="avc1/mp4"))
    images = [
        imgstore_zarr.new_for_filename(path, **way).frames[...]
        for way in ({}, {"seek": False}, {"gpu_id": 1, "videosize": None})
    ]
    for other in images[1:]:
        np.testing.assert_array_equal(images[0], other)


def test_commands_of_imgstore_are_there() -> None:
    scripts = entry_points(group="console_scripts")
    ours = {s.name for s in scripts if s.dist is not None and s.dist.name == "imgstore-zarr"}
    assert ours == {"imgstore-zarr", "imgstore-save", "imgstore-test", "imgstore-view"}


@pytest.mark.parametrize("format", FORMATS)
def test_extra_data_before_the_first_image(tmp_path: Path, format: str) -> None:
    with imgstore_zarr.create(tmp_path / "r", format, (16, 16)) as writer:
        writer.add_extra_data(lamp=1)
        writer.add_image(IMAGES[0], 7, 0.5)
        writer.add_extra_data(lamp=2)
    table = imgstore_zarr.open(tmp_path / "r").get_extra_data()
    assert table is not None
    assert table["lamp"].tolist() == [1, 2]
    assert table["frame_index"].tolist() == [-1, 0]
    np.testing.assert_array_equal(table["frame_number"], [np.nan, 7])
    np.testing.assert_array_equal(table["frame_time"], [np.nan, 0.5])


def test_extra_data_before_the_first_image_are_those_of_imgstore(
    reference: Reference, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", IMAGES[:1])
    image = {"image": 0, "frame_number": 7, "frame_time": 0.5}
    steps: list[Any] = [("add_extra_data", {"lamp": 1}), ("add_image", image)]
    root, images = tmp_path / "r", tmp_path / "images.npy"
    reference("record", path=root, format="npy", images=images, steps=steps)
    table = imgstore_zarr.open(root).get_extra_data()
    assert table is not None
    (row,) = table.to_dict("records")
    assert row["frame_index"] == -1
    assert np.isnan([row["frame_number"], row["frame_time"]]).all()


@pytest.mark.parametrize("format", FORMATS)
def test_no_extra_data(record: Record, format: str) -> None:
    store = imgstore_zarr.open(record(IMAGES, format=format))
    assert not store.has_extra_data
    assert store.get_extra_data() is None


@pytest.mark.parametrize("format", ["npy/dir", "mjpeg/avi"])
def test_the_frame_index_of_extra_data_counts_as_written(record: Record, format: str) -> None:
    root = record(IMAGES, format=format, chunksize=2, extra={i: {"lamp": i} for i in range(6)})
    (index,) = [*root.glob("000001.npz"), *root.glob("000001/index.npz")]
    index.unlink()
    store = imgstore_zarr.open(root)
    table = store.get_extra_data()
    assert table is not None
    last = table.iloc[-1]
    assert (last["frame_index"], store.frame_count) == (5, 4)
    assert store.get_image(int(last["frame_number"]))[1][0] == 5

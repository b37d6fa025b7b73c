"""Other readers of Zarr v3 see exactly what was recorded: xarray, zarr-python and TensorStore."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import xarray as xr
import zarr

import imgstore_zarr

FRAMES = 10  # of chunks of 4: the last shard is incomplete
SHAPE = (11, 13, 3)
NUMBERS = [100, 101, 105, 106, 106, 107, 3, 4, 108, 200]
TIMES = [1.7e9 + i / 25 for i in range(FRAMES)]
IMAGES = np.random.default_rng(0).integers(0, 2**16, (FRAMES, *SHAPE), np.uint16)
IMAGES[2] = 0  # as the fill value

INNER_CHUNKS = {
    "one frame": None,
    "several frames": (4, 11, 13, 3),
    "tiles": (1, 4, 5, 3),
    "tiles of a channel, several frames": (2, 4, 5, 1),
}
COMPRESSORS = {"raw/zarr": [], "lz4/zarr": ["blosc"], "zstd/zarr": ["blosc"]}


@pytest.fixture(params=["flushed", "closed"])
def state(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=COMPRESSORS)
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=INNER_CHUNKS)
def recording(
    tmp_path: Path, request: pytest.FixtureRequest, format: str, state: str
) -> Iterator[Path]:
    path = tmp_path / "recording"
    inner = INNER_CHUNKS[request.param]
    writer = imgstore_zarr.create(
        path, format, SHAPE, np.uint16, chunksize=4, inner_chunks=inner, metadata={"who": "é"}
    )
    with writer:
        for i in range(FRAMES):
            writer.add_image(IMAGES[i], NUMBERS[i], TIMES[i])
            if i % 3 == 0:
                values = {"count": i, "volt": i / 7, "on": i > 5, "label": f"é{i}", "xy": [i, 1]}
                writer.add_extra_data(**values, sometimes=i) if i else writer.add_extra_data(
                    **values
                )
        writer.flush()
        if state == "closed":
            writer.close()
        yield path


def test_xarray(recording: Path) -> None:
    with xr.open_zarr(recording) as dataset:
        assert set(dataset.coords) == {"frame_number", "frame_time"}
        assert set(dataset.data_vars) == {"image"}
        assert dataset.image.dims == ("frame", "y", "x", "channel")
        assert dataset.image.dtype == np.uint16
        np.testing.assert_array_equal(dataset.image.values, IMAGES)
        assert dataset.frame_number.values.tolist() == NUMBERS
        assert dataset.frame_time.values.tolist() == TIMES
        assert dataset.frame_number.dtype == np.int64
        assert dataset.frame_time.dtype == np.float64
        assert dataset.frame_time.attrs == {"units": "s"}
        assert dataset.user_metadata == {"who": "é"}


def test_xarray_without_dask(recording: Path) -> None:
    with xr.open_zarr(recording, consolidated=True, chunks=None) as dataset:
        np.testing.assert_array_equal(dataset.image[7, 3:5].values, IMAGES[7, 3:5])


def test_zarr_python(recording: Path, state: str) -> None:
    group = zarr.open_group(recording, mode="r")
    members = dict(group.members(max_depth=None))
    arrays = {"image", "frame_number", "frame_time"}
    fields = ["count", "volt", "on", "label", "xy", "sometimes"]
    if state == "closed":
        fields += ["frame_time", "frame_number", "frame_index"]
        assert set(members) == {*arrays, "extra", *(f"extra/{name}" for name in fields)}
    else:
        assert set(members) == arrays
    for name, expected in (("image", IMAGES), ("frame_number", NUMBERS), ("frame_time", TIMES)):
        array = zarr.open_array(recording / name, mode="r")
        np.testing.assert_array_equal(array[...], expected)
        assert array.metadata.to_dict() == members[name].metadata.to_dict()
    image = zarr.open_array(recording / "image", mode="r")
    for i in (9, 0, 4):
        np.testing.assert_array_equal(image[i], IMAGES[i])


def test_tensorstore(recording: Path) -> None:
    expected = {"image": IMAGES, "frame_number": NUMBERS, "frame_time": TIMES}
    for name, values in expected.items():
        store = {"driver": "file", "path": str(recording / name)}
        array = tensorstore.open({"driver": "zarr3", "kvstore": store}, read=True).result()
        np.testing.assert_array_equal(array.read().result(), values)
        if name == "image":
            assert array.domain.labels == ("frame", "y", "x", "channel")
            np.testing.assert_array_equal(array[5, 2:4].read().result(), IMAGES[5, 2:4])
        else:
            assert array.domain.labels == ("frame",)


def test_metadata_say_what_the_design_says(recording: Path, format: str) -> None:
    group = json.loads((recording / "zarr.json").read_text())
    attributes = group["attributes"]
    assert set(attributes) == {"imgstore_zarr", "user_metadata", "coordinates"}
    assert attributes["coordinates"] == "frame_number frame_time"
    assert attributes["user_metadata"] == {"who": "é"}
    own = attributes["imgstore_zarr"]
    assert list(own) == [
        "layout", "uuid", "created_utc", "timezone_local", "format", "encoding", "imgshape",
        "imgdtype", "chunksize", "writer", "checksums",
    ]  # fmt: skip
    assert (own["layout"], own["format"], own["encoding"]) == (1, format, None)
    assert (own["imgshape"], own["imgdtype"], own["chunksize"]) == ([11, 13, 3], "uint16", 4)
    assert own["writer"] == f"imgstore-zarr {imgstore_zarr.__version__}"

    members = group["consolidated_metadata"]["metadata"]
    for name, document in members.items():
        assert json.loads((recording / name / "zarr.json").read_text()) == document
    (sharding,) = members["image"]["codecs"]
    assert sharding["name"] == "sharding_indexed"
    inside, index = (sharding["configuration"][key] for key in ("codecs", "index_codecs"))
    assert [codec["name"] for codec in inside] == ["bytes", *COMPRESSORS[format], "crc32c"]
    assert [codec["name"] for codec in index] == ["bytes", "crc32c"]
    assert sharding["configuration"]["index_location"] == "end"
    for name, document in members.items():
        if document["node_type"] == "array" and name != "image":
            assert [codec["name"] for codec in document["codecs"]] == ["bytes", "zstd", "crc32c"]
        if name in ("frame_number", "frame_time"):
            grid = document["chunk_grid"]["configuration"]
            assert grid == {"chunk_shape": [131072]}
            assert document["dimension_names"] == ["frame"]
        if name.startswith("extra/"):
            assert document["dimension_names"][0] == "record"


def test_files_are_those_of_the_design(recording: Path, state: str) -> None:
    files = {str(file.relative_to(recording)) for file in recording.rglob("*") if file.is_file()}
    expected = {"zarr.json", "metadata.yaml", "image/zarr.json"}
    expected |= {f"image/c/{chunk}/0/0/0" for chunk in range(3)}
    for name in ("frame_number", "frame_time"):
        expected |= {f"{name}/zarr.json", f"{name}/c/0"}
    if state == "closed":
        expected |= {"extra/zarr.json"}
        for name in (
            "count",
            "volt",
            "on",
            "sometimes",
            "frame_time",
            "frame_number",
            "frame_index",
        ):
            expected |= {f"extra/{name}/zarr.json", f"extra/{name}/c/0"}
        for name in ("label", "xy"):
            expected |= {f"extra/{name}/zarr.json", f"extra/{name}/c/0/0"}
        assert files == expected
        assert not (recording / ".inflight").exists()
    else:
        expected.add(".lock")
        assert {file for file in files if not file.startswith(".inflight/")} == expected
        assert (recording / ".inflight" / "2.shard").exists()


def test_extra_data(recording: Path, state: str) -> None:
    records = range(0, FRAMES, 3)
    with imgstore_zarr.open(recording) as store:
        table = store.get_extra_data()
    assert table is not None
    assert table["count"].tolist() == [*records]
    assert table["frame_number"].tolist() == [NUMBERS[i] for i in records]
    if state == "flushed":
        return
    extra = zarr.open_group(recording, mode="r")["extra"]
    assert isinstance(extra, zarr.Group)
    columns: dict[str, Any] = {name: array[...] for name, array in extra.arrays()}
    expected: dict[str, list[Any]] = {
        "count": [*records],
        "volt": [i / 7 for i in records],
        "on": [i > 5 for i in records],
        "frame_index": [*records],
        "frame_number": [NUMBERS[i] for i in records],
        "frame_time": [TIMES[i] for i in records],
        "sometimes": [np.nan, 3, 6, 9],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(columns[name], values)
    assert columns["count"].dtype == np.int64
    assert columns["on"].dtype == bool
    texts: dict[str, list[Any]] = {
        "label": [f"é{i}" for i in records],
        "xy": [[i, 1] for i in records],
    }
    for name, values in texts.items():
        stored = [json.loads(row.tobytes().rstrip(b"\0")) for row in columns[name]]
        assert stored == values


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint64", "float16", "float32", "float64"])
def test_every_kind_of_dtype(tmp_path: Path, dtype: str) -> None:
    random = np.random.default_rng(1)
    data = random.integers(0, 256, 5 * 60 * np.dtype(dtype).itemsize, np.uint8)
    images = data.view(dtype).reshape(5, 6, 10)
    images[1] = 0
    with imgstore_zarr.create(tmp_path / "r", "zstd/zarr", (6, 10), dtype, chunksize=2) as writer:
        for i in range(5):
            writer.add_image(images[i], i, float(i))
    with xr.open_zarr(tmp_path / "r") as dataset:
        assert dataset.image.values.tobytes() == images.tobytes()
    store = {"driver": "file", "path": str(tmp_path / "r" / "image")}
    array = tensorstore.open({"driver": "zarr3", "kvstore": store}, read=True).result()
    assert array.read().result().tobytes() == images.tobytes()


def test_shards_of_zarr_python_are_read(tmp_path: Path) -> None:
    """A shard that another writer made with the same metadata: inner chunks in any order."""
    path = tmp_path / "r"
    with imgstore_zarr.create(
        path, "zstd/zarr", SHAPE, np.uint16, chunksize=4, inner_chunks=(2, 4, 5, 1)
    ) as writer:
        for i in range(FRAMES):
            writer.add_image(np.ones_like(IMAGES[i]), NUMBERS[i], TIMES[i])
    zarr.open_array(path / "image", mode="r+")[...] = IMAGES
    with imgstore_zarr.open(path) as store:
        np.testing.assert_array_equal(store.frames[...], IMAGES)

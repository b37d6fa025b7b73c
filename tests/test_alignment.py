"""align, against what pandas joins."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr.aligned_array import Runs
from imgstore_zarr.alignment import _by_number, _by_time
from imgstore_zarr.index import FrameIndex

SHAPE = (3, 4)


def image(camera: int, position: int) -> NDArray[np.uint8]:
    return np.arange(12, dtype=np.uint8).reshape(SHAPE) + np.uint8(100 * camera + position)


def record(path: Path, camera: int, numbers: list[int], times: list[float] | None = None) -> Path:
    with imgstore_zarr.create(path, "raw/zarr", SHAPE, chunksize=4) as writer:
        for i, number in enumerate(numbers):
            writer.add_image(image(camera, i), number, times[i] if times else number / 10)
    return path


NUMBERS = [[1, 2, 3, 5, 8, 9], [2, 3, 3, 4, 8, 11], [9, 8, 2, 5, 7]]


@pytest.fixture
def stores(tmp_path: Path) -> list[imgstore_zarr.ImgStore]:
    paths = [record(tmp_path / f"cam{i}", i, numbers) for i, numbers in enumerate(NUMBERS)]
    return [imgstore_zarr.open(path) for path in paths]


def joined(how: str) -> pd.DataFrame:
    """The position of each number in each camera, by pandas."""
    columns = []
    for camera, numbers in enumerate(NUMBERS):
        table = pd.DataFrame({"number": numbers, camera: range(len(numbers))})
        columns.append(table.drop_duplicates("number").set_index("number")[camera])
    return pd.concat(columns, axis=1, join=how).sort_index()  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("missing", ["mask", "hold", "blank"])
@pytest.mark.parametrize("how", ["inner", "outer"])
@pytest.mark.parametrize("chunks", [None, 2, "auto"])
def test_by_number(
    stores: list[imgstore_zarr.ImgStore], how: Any, missing: Any, chunks: Any
) -> None:
    table = joined(how)
    aligned = imgstore_zarr.align(stores, how=how, missing=missing, chunks=chunks)
    assert aligned.dims == ("camera", "frame", "y", "x")
    assert aligned.camera.to_numpy().tolist() == ["cam0", "cam1", "cam2"]
    assert aligned.frame_number.to_numpy().tolist() == table.index.tolist()
    masked = how == "outer" and missing == "mask"
    assert aligned.dtype == (np.float32 if masked else np.uint8)
    assert (aligned.chunks is None) == (chunks is None)
    np.testing.assert_array_equal(aligned.present.to_numpy(), table.notna().to_numpy().T)
    np.testing.assert_array_equal(aligned.position.to_numpy(), table.fillna(-1).to_numpy().T)
    shown = table.ffill() if missing == "hold" else table
    images = aligned.to_numpy()
    for camera in range(3):
        for i, position in enumerate(shown[camera]):
            found = images[camera, i]
            if np.isnan(position):
                assert np.isnan(found).all() if masked else not found.any()
            else:
                np.testing.assert_array_equal(found, image(camera, int(position)))
            time = aligned.camera_time.to_numpy()[camera, i]
            there = table[camera].iloc[i]
            if np.isnan(there):
                assert np.isnan(time)
            else:
                assert time == NUMBERS[camera][int(there)] / 10
    if how == "inner":
        assert aligned.present.to_numpy().all()


def test_selection_reads_only_what_is_wanted(
    stores: list[imgstore_zarr.ImgStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    aligned = imgstore_zarr.align(stores, how="outer", missing="blank")
    whole = aligned.to_numpy()
    read: list[tuple[str, list[int]]] = []
    kind = type(stores[0].frames.source)
    original = kind.read

    def counted(self: Any, positions: Any, window: Any = None, out: Any = None) -> Any:
        read.append((self._location.name[-4:], positions.tolist()))
        return original(self, positions, window, out)

    monkeypatch.setattr(kind, "read", counted)
    fresh = imgstore_zarr.align(stores, how="outer", missing="blank")
    assert read == []
    one = fresh.sel(camera="cam1", frame_number=8)
    assert read == []
    np.testing.assert_array_equal(one.to_numpy(), image(1, 4))
    assert read == [("cam1", [4])]
    for key in (
        np.s_[1:, 2:5],
        np.s_[[2, 0], [5, 0, 0]],
        np.s_[0, :, 1:, ::2],
        np.s_[:, -1],
        np.s_[:, [0, 3], 1, [2, 0]],
        np.s_[::-1, ::-2, ::-1],
        np.s_[:, 3:3],
    ):
        expected = xr.DataArray(whole, dims=aligned.dims)[key].to_numpy()
        np.testing.assert_array_equal(fresh[key].to_numpy(), expected)


def test_by_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    times = [np.sort(rng.uniform(0, 20, count)) for count in (60, 50, 70)]
    stores = [
        imgstore_zarr.open(record(tmp_path / f"{i}", 0, [*range(len(t))], t.tolist()))
        for i, t in enumerate(times)
    ]
    for tolerance in (0.05, 0.2, 100.0):
        table = pd.DataFrame({"time": times[0], "0": range(60)})
        for camera in (1, 2):
            other = pd.DataFrame({"time": times[camera], str(camera): range(len(times[camera]))})
            limit: Any = tolerance
            table = pd.merge_asof(table, other, on="time", direction="nearest", tolerance=limit)
        outer = imgstore_zarr.align(stores, "frame_time", "outer", tolerance=tolerance)
        np.testing.assert_array_equal(outer.frame_time, times[0])
        expected = table[["0", "1", "2"]].fillna(-1).to_numpy().T
        np.testing.assert_array_equal(outer.position, expected)
        inner = imgstore_zarr.align(stores, "frame_time", tolerance=tolerance)
        rows = table.dropna()
        np.testing.assert_array_equal(inner.frame_time, rows["time"])
        np.testing.assert_array_equal(inner.position, rows[["0", "1", "2"]].to_numpy().T)
    half = float(np.median(np.diff(times[0]))) / 2
    xr.testing.assert_identical(
        imgstore_zarr.align(stores, "frame_time").position,
        imgstore_zarr.align(stores, "frame_time", tolerance=half).position,
    )


integers = st.lists(st.integers(-5, 12), max_size=12)


@settings(deadline=None)
@given(st.lists(integers, min_size=1, max_size=3), st.sampled_from(["inner", "outer"]))
def test_numbers_by_brute_force(lists: list[list[int]], how: str) -> None:
    indexes = [FrameIndex(numbers, np.zeros(len(numbers))) for numbers in lists]
    axis, positions = _by_number(indexes, how)
    sets = [set(numbers) for numbers in lists]
    wanted = set.intersection(*sets) if how == "inner" else set.union(*sets)
    assert axis.tolist() == sorted(wanted)
    for row, numbers in zip(positions.tolist(), lists, strict=True):
        assert row == [numbers.index(n) if n in numbers else -1 for n in axis.tolist()]


seconds = st.floats(-3, 3) | st.integers(-3, 3).map(float) | st.just(float("nan"))


@settings(deadline=None)
@given(st.lists(seconds, max_size=8), st.lists(seconds, max_size=8), st.floats(0, 2))
def test_times_by_brute_force(first: list[float], other: list[float], tolerance: float) -> None:
    indexes = [FrameIndex(np.arange(len(t)), np.array(t, float)) for t in (first, other)]
    axis, positions = _by_time(indexes, "outer", tolerance)
    np.testing.assert_array_equal(axis, np.array(first, float))
    for time, found in zip(first, positions[1].tolist(), strict=True):
        # Exact distances, since many times are equally far by rounding.
        near = [
            (abs(Fraction(t) - Fraction(time)), t, i)
            for i, t in enumerate(other)
            if abs(t - time) <= tolerance  # NaN is near to nothing
        ]
        assert found == (min(near)[2] if near else -1)


@settings(deadline=None)
@given(st.lists(st.integers(-1, 6), max_size=20))
def test_runs(positions: list[int]) -> None:
    array = np.array(positions, np.int64)
    runs = Runs.of(array)
    assert runs.at(np.arange(len(array))).tolist() == positions
    assert runs.at(np.arange(len(array))[::-3]).tolist() == positions[::-3]


def test_what_is_sent_to_workers_is_small(stores: list[imgstore_zarr.ImgStore]) -> None:
    numbers = np.arange(1_000_000)
    held = Runs.of(np.where(numbers % 100_000 == 0, -1, numbers))
    assert len(held.starts) <= 21
    aligned = imgstore_zarr.align(stores, how="outer", missing="blank", chunks=2)
    assert len(pickle.dumps(aligned.variable)) < 20_000
    with dask.config.set(scheduler="processes", num_workers=2):
        np.testing.assert_array_equal(aligned.sum("frame").to_numpy(), aligned.to_numpy().sum(1))


def test_what_cannot_be_aligned(tmp_path: Path, stores: list[imgstore_zarr.ImgStore]) -> None:
    with imgstore_zarr.create(tmp_path / "other", "raw/zarr", (3, 5)) as writer:
        writer.add_image(np.zeros((3, 5), np.uint8), 0, 0.0)
    other = imgstore_zarr.open(tmp_path / "other")
    with pytest.raises(imgstore_zarr.FrameMismatchError, match=r"other has images of \(3, 5\)"):
        imgstore_zarr.align([*stores, other])
    with pytest.raises(imgstore_zarr.FrameMismatchError, match="at least one"):
        imgstore_zarr.align([])
    for options, said in (
        ({"on": "time"}, "on must be one of"),
        ({"how": "left"}, "how must be one of"),
        ({"missing": "zero"}, "missing must be one of"),
        ({"names": ["a", "b"]}, "as many different names"),
        ({"chunks": 0}, "chunks must be"),
        ({"on": "frame_time", "tolerance": -1.0}, "tolerance must be"),
    ):
        with pytest.raises(ValueError, match=said):
            imgstore_zarr.align(stores, **options)
    same = imgstore_zarr.align([stores[0], stores[0]])
    assert same.sizes["camera"] == 2

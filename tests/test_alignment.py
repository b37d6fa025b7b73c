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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr import alignment
from imgstore_zarr.aligned_array import Runs
from imgstore_zarr.alignment import _blocks, _by_number, _by_time, _held
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.video.decoder import Decoder
from tests.test_dataarray import CountingSource

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


@pytest.mark.parametrize(
    ("how", "missing"),
    [("inner", "mask"), ("outer", "mask"), ("outer", "hold"), ("outer", "blank")],
)
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
        np.s_[:, 0:0:-1],
        np.s_[1, 2:, 3:1:1, ::-1],
        np.s_[::-1, 1:1:-1, 2],
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


# Near each other, far from each other, and at the ends of what there is.
integers = st.one_of(
    st.lists(st.integers(-5, 12), max_size=12),
    st.lists(st.integers(-3, 9).map(lambda n: n * 10**17), max_size=12),
    st.lists(st.sampled_from([-(2**63), 2**63 - 1, 0, 1]), max_size=6),
    st.sets(st.integers(0, 300)).map(sorted),
)


@pytest.fixture
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_AT_ONCE", 3)


@pytest.mark.usefixtures("_small_parts")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


times = st.lists(seconds, max_size=8) | st.sets(st.floats(-3, 3), max_size=12).map(sorted)


@pytest.mark.usefixtures("_small_parts")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times, times, st.floats(0, 2))
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
        ({"chunks": -1}, "chunks must be"),
        ({"chunks": True}, "chunks must be"),
        ({"chunks": np.True_}, "chunks must be"),
        ({"chunks": 2.0}, "chunks must be"),
        ({"chunks": {"frame": False}}, "chunks must be"),
        ({"chunks": {"y": 2}}, "chunks can only name frame"),
        ({"on": "frame_time", "tolerance": -1.0}, "tolerance must be"),
        ({"tolerance": 0.1}, "tolerance needs on='frame_time'"),
        ({"missing": "hold"}, "missing='hold' needs how='outer'"),
        ({"missing": "blank", "on": "frame_time"}, "missing='blank' needs how='outer'"),
    ):
        with pytest.raises(ValueError, match=said):
            imgstore_zarr.align(stores, **options)
    same = imgstore_zarr.align([stores[0], stores[0]])
    assert same.sizes["camera"] == 2


def test_what_is_no_recording(tmp_path: Path, stores: list[imgstore_zarr.ImgStore]) -> None:
    path = stores[0].full_path
    for given_, said in (
        (stores[0], r"even a single one: align\(\[store\]\)"),
        (path, "not paths; open it first: imgstore_zarr.open"),
        ([stores[0], path], "not paths; open it first: imgstore_zarr.open"),
        ([stores[0], Path(path)], "not paths; open it first: imgstore_zarr.open"),
        ([stores[0].to_xarray()], "not DataArray; open it first"),
        ([None], "not NoneType; open it first"),
    ):
        wrong: Any = given_
        with pytest.raises(TypeError, match=said):
            imgstore_zarr.align(wrong)
    assert imgstore_zarr.align(iter(stores)).sizes["camera"] == 3


@pytest.mark.parametrize(
    ("dtype", "masked"),
    [
        ("f2", "f2"),
        ("f4", "f4"),
        ("f8", "f8"),
        ("u1", "f4"),
        ("i2", "f4"),
        ("u2", "f4"),
        ("i4", "f8"),
    ],
)
def test_what_is_missing(tmp_path: Path, dtype: str, masked: str) -> None:
    stores = []
    for camera in range(2):
        path = tmp_path / f"{camera}"
        with imgstore_zarr.create(path, "raw/zarr", SHAPE, dtype) as writer:
            for i in range(3):
                writer.add_image(np.full(SHAPE, i + 7, dtype), i + camera, float(i))
        stores.append(imgstore_zarr.open(path))
    expected = np.array([[7, 8, 9, np.nan], [np.nan, 7, 8, 9]])
    for missing, kind, values in (
        ("mask", masked, expected),
        ("blank", dtype, np.nan_to_num(expected)),
        ("hold", dtype, np.array([[7, 8, 9, 9], [0, 7, 8, 9]])),
    ):
        aligned = imgstore_zarr.align(stores, how="outer", missing=missing)  # type: ignore[arg-type]
        assert aligned.dtype == kind
        np.testing.assert_array_equal(aligned.to_numpy()[:, :, 1, 2], values)
        np.testing.assert_array_equal(aligned.to_numpy()[:, :, 0, 0], values)
    assert imgstore_zarr.align(stores).dtype == dtype


@settings(deadline=None)
@given(st.lists(st.integers(-1, 6), max_size=20))
def test_held(positions: list[int]) -> None:
    expected = pd.Series(positions, dtype=float).replace(-1, np.nan).ffill().fillna(-1)
    assert _held(np.array([positions], np.int64))[0].tolist() == expected.tolist()


def test_look_up_of_times_that_repeat_or_go_back(tmp_path: Path) -> None:
    times = [0.0, 1.0, 1.0, float("nan"), 3.0, 2.0]
    store = imgstore_zarr.open(record(tmp_path / "a", 0, [*range(6)], times))
    aligned = imgstore_zarr.align([store, store], "frame_time", "outer", missing="blank")
    found = aligned.sel(frame_time=1.1, method="nearest")
    np.testing.assert_array_equal(found.to_numpy()[0], image(0, 1))
    np.testing.assert_array_equal(aligned.sel(frame_time=3.0).to_numpy()[0], image(0, 4))
    with pytest.raises(imgstore_zarr.FrameNotFoundError, match="2 frames have the frame_time 1"):
        aligned.sel(frame_time=1.0)
    with pytest.raises(imgstore_zarr.FrameNotFoundError, match="not in order"):
        aligned.sel(frame_time=slice(0, 2))


@pytest.mark.parametrize("times", [[5.0, 4.0, 3.0, 2.0], [3.0, 2.0, float("nan"), 4.0, 5.0]])
def test_times_that_go_back_have_a_tolerance(tmp_path: Path, times: list[float]) -> None:
    """Of half their interval."""
    paths = [
        record(tmp_path / "a", 0, [*range(len(times))], times),
        record(tmp_path / "b", 1, [0, 1, 2], [4.5, 3.4, 1.4]),
    ]
    stores = [imgstore_zarr.open(path) for path in paths]
    aligned = imgstore_zarr.align(stores, "frame_time", "outer")
    belong = {5.0: 0, 4.0: 0, 3.0: 1}
    assert aligned.position.to_numpy()[1].tolist() == [belong.get(time, -1) for time in times]


# Blocks

GOP = 12


def filmed(path: Path, numbers: list[int]) -> imgstore_zarr.ImgStore:
    # Nothing that an encoder takes for a new scene, which would begin a GOP of its own.
    ramp = np.arange(16 * 24).reshape(16, 24) % 200
    pictures = [(ramp + number % 50).astype(np.uint8) for number in numbers]
    with imgstore_zarr.create(path, "h264/mkv", (16, 24), chunksize=40, gop=GOP, fps=10) as writer:
        for picture, number in zip(pictures, numbers, strict=True):
            writer.add_image(picture, number, number / 10)
    return imgstore_zarr.open(path)


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The packets that decoders get."""
    sends: list[int] = []
    send = Decoder._send

    def counting_send(self: Decoder, packet: object, rank: int) -> list[object]:
        sends.append(rank)
        return list(send(self, packet, rank))  # type: ignore[arg-type]

    monkeypatch.setattr(Decoder, "_send", counting_send)
    return sends


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("how", ["inner", "outer"])
@pytest.mark.parametrize(
    "chunks", ["auto", 8, 12, np.int64(30), {"frame": 30}, {"frame": np.int32(12)}, {}]
)
def test_each_gop_is_decoded_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sends: list[int],
    chunks: Any,
    how: Any,
    drops: bool,
) -> None:
    """Of cameras that are alike, as often as to_xarray does it; with drops hardly more often."""
    # So that "auto" makes several blocks.
    monkeypatch.setattr("imgstore_zarr.dataarray.BLOCK_BYTES", 26 * 16 * 24)
    numbers = [n for n in range(121) if not (drops and n in (30, 77))]
    stores = [filmed(tmp_path / "a", numbers), filmed(tmp_path / "b", [*range(120)])]
    if not drops:
        stores[1] = filmed(tmp_path / "c", numbers)
    arrays = [store.to_xarray(chunks=chunks or "auto") for store in stores]
    with dask.config.set(scheduler="sync"):
        for array in arrays:
            array.to_numpy()
        alone = len(sends)
        sends.clear()
        aligned = imgstore_zarr.align(stores, how=how, chunks=chunks)
        assert aligned.chunks is not None
        assert aligned.chunks[0] == (1, 1)
        assert len(aligned.chunks[1]) > 2
        images = aligned.to_numpy()
    if not drops:
        assert arrays[0].chunks is not None
        # Some are joined, none is cut.
        bounds = {*np.cumsum(arrays[0].chunks[0]).tolist()}
        assert {*np.cumsum(aligned.chunks[1]).tolist()} <= bounds
        assert len(sends) <= alone
    else:
        # Frames that one of them lacks shift the other one's: of a GOP for each block and drop.
        blocks = sum(map(len, aligned.chunks[1:2])) * 2
        assert len(sends) <= alone + blocks * (GOP // 2 + 6)
    plain = imgstore_zarr.align(stores, how=how)
    np.testing.assert_array_equal(images, plain.to_numpy())


class Unlike(CountingSource):
    """Frames of one byte, with a unit."""

    def __init__(self, count: int, unit: int) -> None:
        super().__init__(np.zeros((count, 1, 1), np.uint8), unit)


def cut(
    columns: list[list[int]], how: str, wanted: int, units: list[int], chunk: int = 10**6
) -> tuple[tuple[int, ...], list[list[int]]]:
    """The blocks of cameras with these numbers, and the positions."""
    indexes = [
        FrameIndex(np.array(n, np.int64), np.zeros(len(n)), np.arange(0, max(len(n), 1), chunk))
        for n in columns
    ]
    sources: Any = [Unlike(len(n), unit) for n, unit in zip(columns, units, strict=True)]
    _, positions = _by_number(indexes, how)
    return _blocks(sources, indexes, positions, wanted), positions.tolist()


def test_blocks_begin_where_those_of_the_first_camera_begin() -> None:
    odd = [n for n in range(1000) if n % 7]
    for how in ("inner", "outer"):
        blocks, positions = cut([odd, [*range(1000)]], how, 60, [25, 30])
        bounds = np.cumsum(blocks)[:-1].tolist()
        for bound in bounds:
            # In the first camera's first frame from there on, a unit begins.
            assert next(p for p in positions[0][bound:] if p >= 0) % 25 == 0
        assert len(bounds) > 10
        assert min(blocks[:-1]) >= 25


def test_blocks_where_few_frames_are_common() -> None:
    blocks, _ = cut([[*range(10_000)], [*range(0, 10_000, 10)]], "inner", 100, [50, 50])
    # Not ten at a time, as a block of the first one has them.
    assert set(blocks) == {100}
    assert sum(blocks) == 1000


def test_blocks_where_the_first_camera_has_nothing() -> None:
    blocks, positions = cut([[*range(300)], [*range(200, 2000)]], "outer", 100, [50, 40])
    bounds = np.cumsum(blocks)[:-1].tolist()
    assert bounds[:2] == [100, 200]
    assert [positions[1][b] % 40 for b in bounds[2:]] == [0] * len(bounds[2:])
    assert max(blocks) <= 200
    nobody, _ = cut([[], [*range(300)]], "outer", 100, [50, 50])
    assert nobody == (100, 100, 100)
    assert cut([[], [1, 2]], "inner", 100, [50, 50])[0] == (0,)
    assert cut([[1, 2], [3]], "inner", 100, [50, 50])[0] == (0,)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 60), max_size=60), min_size=1, max_size=3),
    st.sampled_from(["inner", "outer"]),
    st.integers(1, 20),
    st.integers(1, 9),
    st.integers(1, 30),
)
def test_blocks_cover_the_axis(
    columns: list[list[int]], how: str, wanted: int, unit: int, chunk: int
) -> None:
    blocks, positions = cut(columns, how, wanted, [unit] * len(columns), chunk)
    assert sum(blocks) == len(positions[0])
    assert min(blocks) > 0 or blocks == (0,)
    assert max(blocks) <= 4 * max(wanted, unit)

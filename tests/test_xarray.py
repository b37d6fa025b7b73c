"""Recordings in the hands of xarray and dask: look-ups, files, guesses, schedulers."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dask.local import get_sync
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr import FrameIndex, FrameNotFoundError, shared_sources
from imgstore_zarr.dataarray import to_dataarray
from imgstore_zarr.native.reader import ZarrFrames
from imgstore_zarr.video import VideoFile
from imgstore_zarr.video.decoder import Decoder
from imgstore_zarr.xarray_engine import ImgStoreBackend
from tests.test_dataarray import CountingSource

COUNT = 40
SHAPE = (16, 24)


def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), np.uint8)


def ramp() -> NDArray[np.uint8]:
    """Images that are so alike that x264 makes no key frames but those it is asked for."""
    x = np.arange(SHAPE[1])
    return np.array([np.tile(3 * x + i, (SHAPE[0], 1)) for i in range(COUNT)], np.uint8)


def recorded(
    path: Path,
    format: str = "zstd/zarr",
    chunksize: int = 16,
    stack: NDArray[np.uint8] | None = None,
    **options: Any,
) -> Path:
    with imgstore_zarr.create(
        path, format, SHAPE, chunksize=chunksize, metadata={"rig": 3}, **options
    ) as writer:
        for i, image in enumerate(images() if stack is None else stack):
            writer.add_image(image, 2 * i, 1.7e9 + i / 10)
            writer.add_extra_data(value=i)
    return path


def labelled(values: list[Any], by: str = "frame_number") -> xr.DataArray:
    """Frames whose only pixel is their position."""
    pixels = np.arange(len(values), dtype=np.int64).reshape(-1, 1, 1)
    numbers = values if by == "frame_number" else range(len(values))
    times = values if by == "frame_time" else [0.0] * len(values)
    index = FrameIndex(np.array(numbers, np.int64), np.array(times, float), [0])
    array = to_dataarray(CountingSource(pixels), index, attributes={}, by=by)  # type: ignore[arg-type]
    return array.isel(y=0, x=0)


# Numbers and times that repeat, or go back


def test_repeated_numbers() -> None:
    array = labelled([0, 2, 4, 3, 3, 9, 10])
    assert int(array.sel(frame_number=9)) == 5
    assert int(array.sel(frame_number=3, method="nearest")) == 3
    assert array.sel(frame_number=[10, 0]).values.tolist() == [6, 0]
    with pytest.raises(
        FrameNotFoundError, match=r"2 frames have the frame_number 3, at positions 3, 4"
    ):
        array.sel(frame_number=[0, 3])
    with pytest.raises(KeyError, match="frame_number from 0 to 10; method='nearest' gives"):
        array.sel(frame_number=5)
    with pytest.raises(FrameNotFoundError):
        array.sel(frame_number=50, method="nearest", tolerance=2)
    with pytest.raises(FrameNotFoundError, match=r"after 4 at position 2 follows 3; .*no slice"):
        array.sel(frame_number=slice(0, 4))
    pointwise = array.sel(frame_number=xr.DataArray([2, 4], dims="trial", coords={"trial": [7, 8]}))
    assert pointwise.dims == ("trial",)
    assert pointwise.trial.values.tolist() == [7, 8]
    again = pickle.loads(pickle.dumps(array.isel(frame=slice(2, None)).load()))
    assert int(again.sel(frame_number=3, method="nearest")) == 3


def test_numbers_that_only_repeat_can_be_sliced() -> None:
    array = labelled([0, 1, 1, 2, 5])
    assert array.sel(frame_number=slice(1, 2)).values.tolist() == [1, 2, 3]


def test_times_that_are_not_known() -> None:
    array = labelled([0.0, np.nan, 2.0, np.nan, 1.0], "frame_time")
    assert int(array.sel(frame_time=1.2, method="nearest")) == 4
    with pytest.raises(FrameNotFoundError):
        array.sel(frame_time=np.nan)
    nothing = labelled([np.nan, np.nan], "frame_time")
    with pytest.raises(FrameNotFoundError, match="from none"):
        nothing.sel(frame_time=1.0)


@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=30),
    st.lists(st.integers(-25, 25), min_size=1, max_size=8),
    st.sampled_from(["nearest", "ffill", "bfill"]),
)
def test_methods_as_pandas_has_them(values: list[int], wanted: list[int], method: Any) -> None:
    """On repeats the first in recording order; pandas only takes what ascends."""
    series = pd.Series(range(len(values)), index=values).groupby(level=0).first().sort_index()
    places = series.index.get_indexer(pd.Index(wanted), method=method)
    array = labelled(values)
    if (places < 0).any():
        with pytest.raises(KeyError):
            array.sel(frame_number=wanted, method=method)
    else:
        expected = series.to_numpy()[places].tolist()
        assert array.sel(frame_number=wanted, method=method).values.tolist() == expected


# Files that xarray writes and guesses


@pytest.mark.parametrize("kind", ["netcdf", "zarr"])
@pytest.mark.parametrize("chunks", [None, "auto"])
def test_what_xarray_writes_keeps_everything(tmp_path: Path, kind: str, chunks: Any) -> None:
    store = imgstore_zarr.open(recorded(tmp_path / "r"))
    array = store.to_xarray(chunks=chunks)
    if kind == "netcdf":
        array.to_netcdf(tmp_path / "copy.nc", engine="h5netcdf")
        copy = xr.open_dataset(tmp_path / "copy.nc", engine="h5netcdf")["image"]
    else:
        array.to_dataset().to_zarr(tmp_path / "copy.zarr", zarr_format=3, consolidated=False)
        copy = xr.open_zarr(tmp_path / "copy.zarr", consolidated=False)["image"]
    xr.testing.assert_identical(copy.load(), array.load())
    assert copy.attrs["uuid"] == store.uuid
    copy.close()


@pytest.mark.parametrize("format", ["zstd/zarr", "avc1/mp4", "png/dir"])
def test_recordings_are_guessed(tmp_path: Path, format: str) -> None:
    with xr.open_dataset(recorded(tmp_path / "r", format)) as dataset:
        assert dataset.sizes == {"frame": COUNT, "y": SHAPE[0], "x": SHAPE[1]}


@pytest.mark.parametrize("suffix", ["", ".zarr"])
def test_zarr_groups_of_others_are_left_alone(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"group{suffix}"
    xr.Dataset({"a": ("x", np.arange(3))}).to_zarr(path, zarr_format=3, consolidated=False)
    guess = ImgStoreBackend().guess_can_open
    assert not guess(path)
    assert not guess(tmp_path / "nothing")
    assert not guess(3)
    if suffix:
        with xr.open_dataset(path, consolidated=False) as dataset:
            assert dataset["a"].values.tolist() == [0, 1, 2]


# Dask


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What this process had open of other tests must not be counted."""
    shared_sources._kept.clear()
    yield
    shared_sources._kept.clear()


@pytest.mark.parametrize("format", ["raw/zarr", "zstd/zarr", "avc1/mp4", "png/dir"])
@pytest.mark.parametrize("scheduler", ["threads", "processes", "sync"])
def test_schedulers(tmp_path: Path, format: str, scheduler: str) -> None:
    store = imgstore_zarr.open(recorded(tmp_path / "r", format))
    expected = store.frames[...].mean(axis=(1, 2))
    array = store.to_xarray(chunks=16).mean(("y", "x"))
    with dask.config.set(scheduler=scheduler, num_workers=2):
        np.testing.assert_allclose(array.values, expected)


def test_distributed(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    store = imgstore_zarr.open(recorded(tmp_path / "r", "avc1/mp4"))
    expected = store.frames[...].mean(axis=(1, 2))
    array = store.to_xarray(chunks=16).mean(("y", "x"))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        np.testing.assert_allclose(client.compute(array).result().values, expected)
        opened = client.run(lambda: len(shared_sources._kept))
    assert set(opened.values()) <= {0, 1}
    assert sum(opened.values()) >= 1


def test_tasks_carry_no_index(tmp_path: Path) -> None:
    """A week of a thousand chunks and more is a few hundred bytes."""
    from imgstore_compat.video.frames import VideoFrames

    from imgstore_zarr.storage import Directory

    starts = np.arange(1512) * 10_000
    source = VideoFrames(
        Directory(tmp_path), ".mp4", (1024, 1024), np.arange(1512), starts, 15_120_000
    )
    array = shared_sources.SharedSource(source)
    assert len(pickle.dumps(array)) < 1000
    again = pickle.loads(pickle.dumps(array)).source
    assert again.shape == source.shape
    np.testing.assert_array_equal(again._starts, starts)


@pytest.mark.usefixtures("forgotten")
def test_a_process_opens_a_recording_once(tmp_path: Path) -> None:
    array = imgstore_zarr.open(recorded(tmp_path / "r")).to_xarray()
    pickled = pickle.dumps(array)
    copies = [pickle.loads(pickled) for _ in range(3)]
    np.testing.assert_array_equal(copies[0].values, images())
    (shared,) = shared_sources._kept.values()
    assert len(shared.source._shards) == 3  # type: ignore[attr-defined]
    np.testing.assert_array_equal(copies[1].values, images())
    assert list(shared_sources._kept.values()) == [shared]


@pytest.mark.usefixtures("forgotten")
def test_a_recording_that_was_made_anew_is_another_one(tmp_path: Path) -> None:
    import shutil

    first = pickle.loads(pickle.dumps(imgstore_zarr.open(recorded(tmp_path / "r")).to_xarray()))
    assert first[3, 2, 1] == images()[3, 2, 1]
    shutil.rmtree(tmp_path / "r")
    with imgstore_zarr.create(tmp_path / "r", "zstd/zarr", SHAPE, chunksize=16) as writer:
        for image in images():
            writer.add_image(255 - image, 0, 0.0)
    second = pickle.loads(pickle.dumps(imgstore_zarr.open(tmp_path / "r").to_xarray()))
    np.testing.assert_array_equal(second.values, 255 - images())


@pytest.mark.usefixtures("forgotten")
def test_few_recordings_stay_open(tmp_path: Path) -> None:
    pickled = pickle.dumps(imgstore_zarr.open(recorded(tmp_path / "r")).to_xarray())
    first = pickle.loads(pickled)
    for _ in range(shared_sources.KEPT + 3):
        other = imgstore_zarr.open(tmp_path / "r").to_xarray()
        assert pickle.loads(pickle.dumps(other))[0, 0, 0] == images()[0, 0, 0]
    assert len(shared_sources._kept) == shared_sources.KEPT
    np.testing.assert_array_equal(first.values, images())


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def opened_in_turn(
    path: Path, monkeypatch: pytest.MonkeyPatch, count: int, rounds: int = 3
) -> tuple[list[str], int]:
    """Read as many recordings in turn; how often each was opened, and the most files open at a time."""
    opened: list[str] = []
    files = 0
    if (path / "zarr.json").exists():
        open_shard = ZarrFrames._open_shard

        def counting_open_shard(self: ZarrFrames, chunk: int, position: int) -> Any:
            opened.append(f"{id(self)} {chunk}")
            return open_shard(self, chunk, position)

        monkeypatch.setattr(ZarrFrames, "_open_shard", counting_open_shard)
    else:
        open_video = Decoder.__init__

        def counting_open_video(self: Decoder, *arguments: Any) -> None:
            # Again with a packet table: another lane of a file that is open.
            opened.extend(["video"] if arguments[2] is None else [])
            open_video(self, *arguments)

        monkeypatch.setattr(Decoder, "__init__", counting_open_video)
    store = imgstore_zarr.open(path)
    expected = store.frames[3]
    sent = [pickle.dumps(store.to_xarray()) for _ in range(count)]
    store.close()
    opened.clear()
    before = open_files()
    for _ in range(rounds):
        for pickled in sent:
            np.testing.assert_array_equal(pickle.loads(pickled)[3].values, expected)
            files = max(files, open_files() - before)
    return opened, files


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("format", ["zstd/zarr", "avc1/mp4"])
def test_many_recordings_in_turn_are_opened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    opened, files = opened_in_turn(recorded(tmp_path / "r", format), monkeypatch, 20)
    assert len(opened) == 20
    assert files <= 20 * (1 if format == "zstd/zarr" else 2)
    assert len(shared_sources._kept) == 20


@pytest.mark.usefixtures("forgotten")
def test_no_more_stays_open_than_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_sources, "KEPT_BYTES", 7 * 2**20)
    opened, files = opened_in_turn(recorded(tmp_path / "r", "avc1/mp4"), monkeypatch, 10, 1)
    assert len(opened) == 10
    # Two MiB and a bit for each that rests.
    assert len(shared_sources._kept) == 4
    assert files <= 2 * 5


def opened_with_few_files(path: Path) -> tuple[int, int, int]:
    """How often recordings were opened in turn, how many files at most, how many stayed open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(shared_sources, "FILES_SHARE", (open_files() + 6) / limit)
        opened, files = opened_in_turn(path, monkeypatch, 20)
    return len(opened), files, len(shared_sources._kept)


def test_no_more_stays_open_than_files_allow(tmp_path: Path) -> None:
    # In a process of its own, where nobody else opens or closes files meanwhile.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        opened, files, kept = process.submit(
            opened_with_few_files, recorded(tmp_path / "r")
        ).result(60)
    assert 1 < kept < 9
    assert files < 9
    assert opened == 3 * 20


@pytest.mark.usefixtures("forgotten")
def test_who_reads_again_after_it_was_closed_is_kept_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_sources, "KEPT", 2)
    array = imgstore_zarr.open(recorded(tmp_path / "r")).to_xarray
    sent = [pickle.dumps(array()) for _ in range(3)]
    copies = [pickle.loads(pickled) for pickled in sent]
    assert len(shared_sources._kept) == 2
    for copy in copies:
        assert copy[3, 2, 1] == images()[3, 2, 1]
    assert len(shared_sources._kept) == 2
    closed = copies[0][3, 2, 1]
    _, before = shared_sources._kept.values()
    np.testing.assert_array_equal(closed.values, images()[3, 2, 1])
    behind, first = shared_sources._kept.values()
    assert behind is before
    # What was closed is still the one source of its name.
    np.testing.assert_array_equal(copies[1].values, images())
    np.testing.assert_array_equal(copies[2].values, images())
    assert first not in shared_sources._kept.values()
    again = pickle.loads(sent[0])
    assert list(shared_sources._kept.values())[-1] is first
    np.testing.assert_array_equal(again.values, images())


@pytest.mark.parametrize("chunks", ["auto", 17, {"frame": 30, "y": -1}])
def test_each_gop_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: Any
) -> None:
    """By all blocks together: they begin where GOPs begin."""
    path = recorded(tmp_path / "r", "h264/mkv", 36, ramp(), gop=12, fps=10)
    sends: list[int] = []
    send = Decoder._send

    def counting_send(self: Decoder, packet: object, rank: int) -> list[object]:
        sends.append(rank)
        return list(send(self, packet, rank))  # type: ignore[arg-type]

    array = imgstore_zarr.open(path).to_xarray(chunks=chunks)
    blocks = len(array.chunks[0]) if array.chunks else 0
    monkeypatch.setattr(Decoder, "_send", counting_send)
    with dask.config.set(scheduler="sync"):
        assert array.values.shape == (COUNT, *SHAPE)
    # A block may need the first packets of the next GOP to get its last frames out.
    assert COUNT <= len(sends) <= COUNT + 6 * blocks


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["lp_mirror_mouse.mp4", "sleap_flies_small.mp4"])
def test_blocks_of_irregular_gops(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of real videos, whose key frames come when the picture changes."""
    sends: list[int] = []
    send = Decoder._send

    def counting_send(self: Decoder, packet: object, rank: int) -> list[object]:
        sends.append(rank)
        return list(send(self, packet, rank))  # type: ignore[arg-type]

    with contextlib.closing(VideoFile(shared_data / name, color=False)) as video:
        index = FrameIndex(np.arange(len(video)), np.arange(len(video)) / 25, [0])
        array = to_dataarray(video, index, attributes={}, chunks=60)
        assert array.chunks is not None
        bounds = np.cumsum(array.chunks[0])[:-1]
        assert {*bounds.tolist()} <= {*video.boundaries().tolist()}
        assert len(bounds) >= 3
        monkeypatch.setattr(Decoder, "_send", counting_send)
        with dask.config.set(scheduler="sync"):
            array.max(("y", "x")).compute()
        assert len(sends) <= len(video) + 20 * len(array.chunks[0])


class Computes:
    """A scheduler that counts how often something is computed, as xarray's own tests have it."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, keys: Any, **options: Any) -> Any:
        self.count += 1
        return get_sync(graph, keys, **options)


@pytest.mark.parametrize("format", ["zstd/zarr", "avc1/mp4", "png/dir"])
def test_nothing_is_computed_before_it_is_asked_for(tmp_path: Path, format: str) -> None:
    path = recorded(tmp_path / "r", format)
    computes = Computes()
    with imgstore_zarr.open(path) as store, dask.config.set(scheduler=computes):
        array = store.to_xarray(chunks=16, index="frame_time", datetime=True)
        repr(array)
        array._repr_html_()  # type: ignore[no-untyped-call]
        part = array.sel(frame_time=slice(1.7e9 + 1, 1.7e9 + 2)).isel(y=slice(2, 9))
        mean = part.astype("f4").diff("frame").mean(("y", "x"))
        xr.open_dataset(path, engine="imgstore", chunks={})["image"].max("frame")
        xr.open_datatree(path, engine="imgstore", chunks={})["image"].max("frame")
        aligned = imgstore_zarr.align([store, store], chunks=16, names=["a", "b"])
        aligned.sel(camera="a").mean("frame")
        assert computes.count == 0
        assert mean.compute().sizes == {"frame": 10}
        assert computes.count == 1


def test_the_engine_tells_which_blocks_are_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgstore_zarr.dataarray.BLOCK_BYTES", 20 * SHAPE[0] * SHAPE[1])
    path = recorded(tmp_path / "r", "h264/mkv", 36, ramp(), gop=12, fps=10)
    blocks = imgstore_zarr.open(path).to_xarray(chunks="auto").chunks
    assert blocks is not None
    assert len(blocks[0]) >= 3
    openers: list[Any] = [xr.open_dataset, xr.open_datatree]
    for opener in openers:
        opened = opener(path, engine="imgstore", chunks={})
        assert opened["image"].chunks == blocks
        sends: list[int] = []
        send = Decoder._send

        def counting_send(
            self: Decoder, packet: object, rank: int, sends: list[int] = sends, send: Any = send
        ) -> list[object]:
            sends.append(rank)
            return list(send(self, packet, rank))

        with monkeypatch.context() as patch, dask.config.set(scheduler="sync"):
            patch.setattr(Decoder, "_send", counting_send)
            assert opened["image"].values.shape == (COUNT, *SHAPE)
        assert len(sends) <= COUNT + 6 * 4


@pytest.mark.parametrize("chunksize", [20, 40])
def test_default_blocks_can_be_written_as_zarr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunksize: int
) -> None:
    """Zarr takes blocks of one length only, and a shorter last one."""
    monkeypatch.setattr("imgstore_zarr.dataarray.BLOCK_BYTES", 13 * SHAPE[0] * SHAPE[1])
    path = recorded(tmp_path / "r", "raw/zarr", chunksize)
    array = imgstore_zarr.open(path).to_xarray(chunks="auto")
    assert array.chunks is not None
    assert len(array.chunks[0]) == 4
    array.to_dataset().to_zarr(tmp_path / "copy.zarr", zarr_format=3, consolidated=False)
    copy = xr.open_zarr(tmp_path / "copy.zarr", consolidated=False)["image"]
    np.testing.assert_array_equal(copy.values, images())

"""Recordings in an icechunk repository: a snapshot per flush, and any of them can be read later."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import imgstore_zarr
from imgstore_zarr import RecordingExistsError, RecordingLockedError, UnsupportedFormatError
from imgstore_zarr.storage import IcechunkBranch

icechunk = pytest.importorskip("icechunk")

SHAPE = (16, 24)
IMAGES = np.random.default_rng(2).integers(0, 256, (40, *SHAPE), np.uint8)


@pytest.fixture
def repository(tmp_path: Path) -> Any:
    return icechunk.Repository.create(icechunk.in_memory_storage())


def add(writer: Any, start: int, stop: int) -> None:
    for i in range(start, stop):
        writer.add_image(IMAGES[i], i, i / 25)
        writer.add_extra_data(lamp=i % 2)


def history(repository: Any) -> list[Any]:
    """The snapshots, the first one first."""
    return [*repository.ancestry(branch="main")][::-1]


def frames_at(repository: Any, snapshot: str) -> Any:
    return zarr.open_array(
        repository.readonly_session(snapshot_id=snapshot).store, path="image", mode="r"
    )[:]


@pytest.mark.parametrize("format", ["raw/zarr", "zstd/zarr"])
def test_a_snapshot_per_flush(repository: Any, format: str) -> None:
    counts = {}
    with imgstore_zarr.create(repository, format, SHAPE, chunksize=16) as writer:
        for stop in (5, 12, 30):
            add(writer, {5: 0, 12: 5, 30: 12}[stop], stop)
            writer.flush()
            counts[history(repository)[-1].id] = stop
    assert len(counts) == 3
    for snapshot, count in counts.items():
        np.testing.assert_array_equal(frames_at(repository, snapshot), IMAGES[:count])
        there = repository.readonly_session(snapshot_id=snapshot).store
        with imgstore_zarr.open(there) as store:
            assert store.frame_count == count
            np.testing.assert_array_equal(store.frames[:], IMAGES[:count])
    with imgstore_zarr.open(repository) as store:
        np.testing.assert_array_equal(store.frames[:], IMAGES[:30])
        table = store.get_extra_data()
        assert table is not None
        assert table["lamp"].tolist() == [i % 2 for i in range(30)]
    data = xr.open_zarr(repository.readonly_session("main").store)["image"]
    np.testing.assert_array_equal(data, IMAGES[:30])
    # Each says how many frames it has.
    assert (
        "5 frames" in {entry.id: entry.message for entry in history(repository)}[next(iter(counts))]
    )


def test_several_recordings_of_one_repository(repository: Any) -> None:
    one, two = (IcechunkBranch(repository, group=name) for name in ("rig/one", "rig/two"))
    with (
        imgstore_zarr.create(one, "raw/zarr", SHAPE, chunksize=8) as first,
        imgstore_zarr.create(two, "raw/zarr", SHAPE, chunksize=8) as second,
    ):
        # Both commit to one branch, in turn.
        for i in range(20):
            first.add_image(IMAGES[i], i, i / 25)
            second.add_image(IMAGES[39 - i], i, i / 25)
            if i % 5 == 0:
                first.flush()
                second.flush()
    np.testing.assert_array_equal(imgstore_zarr.open(one).frames[:], IMAGES[:20])
    np.testing.assert_array_equal(imgstore_zarr.open(two).frames[:], IMAGES[:19:-1])
    with pytest.raises(RecordingExistsError, match="rig/one"):
        imgstore_zarr.create(one, "raw/zarr", SHAPE)


def test_two_writers_of_one_recording(repository: Any) -> None:
    place = IcechunkBranch(repository, group="one")
    with imgstore_zarr.create(place, "raw/zarr", SHAPE, chunksize=8) as writer:
        add(writer, 0, 3)
        writer.flush()
        # Somebody else changes the same group.
        session = repository.writable_session("main")
        zarr.open_group(session.store, path="one", mode="r+").attrs["mine"] = 1
        session.commit("somebody else")
        add(writer, 3, 5)
        with pytest.raises(RecordingLockedError, match="icechunk"):
            writer.flush()


def test_going_on_and_branches(repository: Any) -> None:
    with imgstore_zarr.create(repository, "zstd/zarr", SHAPE, chunksize=8) as writer:
        add(writer, 0, 11)
    repository.create_branch("tried", history(repository)[-1].id)
    branch = IcechunkBranch(repository, "tried")
    with imgstore_zarr.create(branch, "zstd/zarr", SHAPE, chunksize=8, mode="a") as writer:
        add(writer, 11, 21)
    np.testing.assert_array_equal(imgstore_zarr.open(branch).frames[:], IMAGES[:21])
    assert imgstore_zarr.open(repository).frame_count == 11
    assert imgstore_zarr.verify(branch).problems == ()


def test_workers_and_copies(tmp_path: Path) -> None:
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path)))
    with imgstore_zarr.create(repository, "zstd/zarr", SHAPE, chunksize=8) as writer:
        add(writer, 0, 20)
    store = pickle.loads(pickle.dumps(imgstore_zarr.open(repository)))
    np.testing.assert_array_equal(store.frames[:], IMAGES[:20])
    report = imgstore_zarr.convert(repository, tmp_path / "copy", "raw/zarr", verify=True)
    assert report.frame_count == 20


def test_the_store_of_a_session_that_writes(repository: Any) -> None:
    with pytest.raises(UnsupportedFormatError, match="IcechunkBranch"):
        imgstore_zarr.open(repository.writable_session("main").store)

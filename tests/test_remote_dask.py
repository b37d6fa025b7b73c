"""Two worker processes of dask read a recording in a bucket."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import imgstore_zarr
from tests import servers

pytest.importorskip("distributed")

SHAPE = (32, 48)
COUNT, CHUNKSIZE = 240, 20
IMAGES = np.random.default_rng(3).integers(0, 256, (COUNT, *SHAPE), np.uint8)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0"
        ) as workers,
        Client(workers) as client,
    ):
        yield client


@pytest.mark.filterwarnings("ignore:Sending large graph")
@pytest.mark.parametrize("format", ["zstd/zarr", "avc1/mp4"])
def test_a_reduction(cluster: Any, format: str, tmp_path: Any) -> None:
    place = servers.s3()
    with imgstore_zarr.create(tmp_path / "r", format, SHAPE, chunksize=CHUNKSIZE) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, i, i / 25)
    place.fill(tmp_path / "r")
    with imgstore_zarr.open(tmp_path / "r") as local:
        expected = local.frames[:]
    proxy = servers.proxy_of(place.server)
    proxy.forget()
    there = place.at(proxy.url)
    store = imgstore_zarr.open(there.url, storage_options=there.options)
    data = store.to_xarray(chunks={"frame": CHUNKSIZE})
    opening = len(proxy.requests())
    proxy.forget()

    def process_of(block: Any) -> Any:
        return np.full((len(block), 1, 1), os.getpid())

    # Each block says which process has read it.
    pids = data.data.map_blocks(process_of, dtype=np.int64)
    total = data.astype("int64").sum(("y", "x"))
    sums, workers = cluster.compute([total.data, pids], sync=True)
    np.testing.assert_array_equal(sums, expected.sum(axis=(1, 2), dtype=np.int64))
    assert len(np.unique(workers)) == 2
    media = proxy.requests("GET", r"image/c|\.mp4")
    assert len(proxy.requests()) - len(media) <= 2 * opening
    if format == "zstd/zarr":
        # Per shard its index, and one range, for each of the two that compute with it.
        assert len(media) <= 2 * 2 * COUNT // CHUNKSIZE
    proxy.forget()


def test_the_graph_carries_the_place_and_no_more() -> None:
    place = servers.s3()
    with imgstore_zarr.create(
        place.url, "raw/zarr", SHAPE, chunksize=CHUNKSIZE, storage_options=place.options
    ) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, i, i / 25)
    store = imgstore_zarr.open(place.url, storage_options=place.options)
    array = store.to_xarray(chunks={"frame": CHUNKSIZE}).data
    assert len(pickle.dumps(dict(array.dask))) < 20_000
    assert servers.SECRET not in repr(dict(array.dask))
    assert servers.SECRET not in array.name

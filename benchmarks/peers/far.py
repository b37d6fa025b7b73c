"""imgstore_zarr and others, reading one bucket through a slow line."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np
import obstore
import obstore.store
import xarray as xr
from zarr.storage import FsspecStore, ObjectStore

import imgstore_zarr
from imgstore_zarr.storage.requests import CONCURRENT


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("obstore", "zarr", "xarray", "fsspec", "s3fs")}


def record(url: str, options: str, side: int, count: int, chunksize: int) -> float:
    """Write images that nobody can compress, and no two alike."""
    start = perf_counter()
    with imgstore_zarr.create(
        url,
        "raw/zarr",
        (side, side),
        chunksize=chunksize,
        storage_options=json.loads(options),
    ) as writer:
        for i in range(count):
            writer.add_image(_image(i, side), i, i / 25)
    return (perf_counter() - start) / count


def record_video(path: str, side: int, count: int) -> float:
    """Write Motif video to a directory, in chunks of 100 frames; a pattern that moves, without cuts."""
    still = _image(0, side)
    start = perf_counter()
    with imgstore_zarr.create(path, "avc1/mp4", (side, side), chunksize=100, gop=25) as writer:
        for i in range(count):
            writer.add_image(np.roll(still, i, axis=1), i, i / 25)
    return (perf_counter() - start) / count


def _image(i: int, side: int) -> Any:
    return np.random.default_rng(i).integers(0, 256, (side, side), np.uint8)


@cache
def _store(url: str, options: str) -> Any:
    return imgstore_zarr.open(url, storage_options=json.loads(options))


@cache
def _bucket(url: str, options: str) -> Any:
    settings = json.loads(options) | {"client_options": {"allow_http": True}}
    return obstore.store.from_url(url, **settings)


def _by_obstore(url: str, options: str) -> Any:
    return ObjectStore(_bucket(url, options), read_only=True)


def _by_fsspec(url: str, options: str) -> Any:
    known = json.loads(options)
    return FsspecStore.from_url(
        url,
        storage_options={
            "key": known["access_key_id"],
            "secret": known["secret_access_key"],
            "client_kwargs": {"endpoint_url": known["endpoint"], "region_name": known["region"]},
        },
        read_only=True,
    )


_ways = {"obstore": _by_obstore, "fsspec": _by_fsspec}


@cache
def _array(url: str, options: str, way: str) -> Any:
    return xr.open_zarr(_ways[way](url, options))["image"]


def open(url: str, options: str) -> float:
    start = perf_counter()
    imgstore_zarr.open(url, storage_options=json.loads(options))
    return perf_counter() - start


def open_peer(url: str, options: str, way: str) -> float:
    start = perf_counter()
    found = xr.open_zarr(_ways[way](url, options))
    assert len(found["frame_number"].values) == len(found["frame_time"].values)
    return perf_counter() - start


def gather(url: str, options: str, positions: list[int]) -> float:
    frames = _store(url, options).frames
    start = perf_counter()
    frames[positions]
    return perf_counter() - start


def gather_peer(url: str, options: str, way: str, positions: list[int]) -> float:
    array = _array(url, options, way)
    start = perf_counter()
    array[positions].values  # noqa: B018 - reads
    return perf_counter() - start


def gather_bare(url: str, options: str, positions: list[int], size: int, chunksize: int) -> float:
    """As many ranged GETs by obstore, of the same bytes, by as many threads."""
    bucket = _bucket(url, options)

    def get(position: int) -> int:
        chunk, place = divmod(position, chunksize)
        key = f"image/c/{chunk}/0/0"
        return len(obstore.get_range(bucket, key, start=place * size, end=(place + 1) * size))

    with ThreadPoolExecutor(CONCURRENT) as pool:
        start = perf_counter()
        total = sum(pool.map(get, positions))
        seconds = perf_counter() - start
    assert total == size * len(positions)
    return seconds


def walk(url: str, options: str, count: int) -> float:
    """Read from the first frame on, one after the other; a recording that was just opened."""
    store = imgstore_zarr.open(url, storage_options=json.loads(options))
    start = perf_counter()
    for position in range(count):
        store.frames[position]
    return (perf_counter() - start) / count


def walk_peer(url: str, options: str, way: str, count: int, together: int) -> float:
    array = xr.open_zarr(_ways[way](url, options))["image"]
    start = perf_counter()
    for position in range(0, count, together):
        array[position : position + together].values  # noqa: B018 - reads
    return (perf_counter() - start) / count

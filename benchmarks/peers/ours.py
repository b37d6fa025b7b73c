"""imgstore_zarr."""

from __future__ import annotations

import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np

import imgstore_zarr
from benchmarks.scene import FRAME_RATE, frame_at, load_scene, paced


def versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("imgstore-zarr", "numcodecs", "crc32c", "numpy", "av")
    return {name: version(name) for name in names}


def prepare(scene: str) -> None:
    load_scene(scene)


def append(
    scene: str,
    path: str,
    format: str,
    count: int,
    chunksize: int,
    keep: bool,
    color: bool = False,
    options: dict[str, Any] | None = None,
    crop: int | None = None,
) -> float:
    frames = load_scene(scene)
    if crop:
        frames = np.ascontiguousarray(frames[:, :crop, :crop])
    if color:
        # Three channels that are not alike, so that chroma is worth something.
        frames = np.stack([frames, np.roll(frames, 9, 1), frames[:, ::-1]], axis=-1)
    shutil.rmtree(path, ignore_errors=True)
    start = perf_counter()
    with imgstore_zarr.create(
        path, format, frames.shape[1:], chunksize=chunksize, **(options or {})
    ) as writer:
        for i in range(count):
            writer.add_image(frame_at(frames, i), i, i / FRAME_RATE)
    seconds = perf_counter() - start
    if not keep:
        shutil.rmtree(path)
    return seconds / count


def latency(scene: str, path: str, format: str, count: int, rate: float, percent: float) -> float:
    frames = load_scene(scene)
    shutil.rmtree(path, ignore_errors=True)
    with imgstore_zarr.create(path, format, frames.shape[1:]) as writer:
        taken = paced(writer.add_image, frames, count, rate)
    shutil.rmtree(path)
    return float(np.percentile(taken, percent))


@cache
def _open(path: str) -> imgstore_zarr.ImgStore:
    return imgstore_zarr.open(path)


def digest(path: str, positions: list[int]) -> int:
    value = 0
    for position in positions:
        image, _ = _open(path).get_image(frame_index=position)
        value = zlib.crc32(image.tobytes(), value)
    return value


def random(path: str, positions: list[int]) -> float:
    store = _open(path)
    start = perf_counter()
    for position in positions:
        store.get_image(frame_index=position)
    return (perf_counter() - start) / len(positions)


def batch(path: str, positions: list[int]) -> float:
    frames = _open(path).frames
    start = perf_counter()
    frames[positions]
    return (perf_counter() - start) / len(positions)


def in_threads(path: str, positions: list[int], threads: int) -> float:
    store = _open(path)

    def read(share: list[int]) -> None:
        for position in share:
            store.get_image(frame_index=position)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, [[] for _ in range(threads)]))  # until the threads are there
        start = perf_counter()
        list(pool.map(read, [positions[i::threads] for i in range(threads)]))
        return (perf_counter() - start) / len(positions)


def runs(path: str, starts: list[int], length: int) -> float:
    frames = _open(path).frames
    start = perf_counter()
    for first in starts:
        frames[first : first + length]
    return (perf_counter() - start) / (len(starts) * length)


def sequential(path: str, count: int) -> float:
    start = perf_counter()
    with imgstore_zarr.open(path) as store:
        for _ in range(count):
            store.get_next_image()
    return (perf_counter() - start) / count


def open(path: str) -> float:
    start = perf_counter()
    store = imgstore_zarr.open(path)
    seconds = perf_counter() - start
    store.close()
    return seconds


def find_number(path: str, values: list[int]) -> float:
    index = _open(path).index
    start = perf_counter()
    for value in values:
        index.position_of_number(value)
    return (perf_counter() - start) / len(values)


def find_time(path: str, values: list[float]) -> float:
    index = _open(path).index
    start = perf_counter()
    for value in values:
        index.position_nearest_time(value)
    return (perf_counter() - start) / len(values)


def convert(path: str, count: int, format: str) -> float:
    """Convert a recording; seconds for one frame."""
    target = f"{path}-converted"
    shutil.rmtree(target, ignore_errors=True)
    start = perf_counter()
    imgstore_zarr.convert(path, target, format)
    seconds = perf_counter() - start
    shutil.rmtree(target)
    return seconds / count


def compress(path: str, count: int, format: str) -> float:
    """Write the frames of a recording that are in memory; seconds for one frame."""
    with imgstore_zarr.open(path) as store:
        frames, target = store.frames[:count], f"{path}-compressed"
    shutil.rmtree(target, ignore_errors=True)
    start = perf_counter()
    with imgstore_zarr.create(target, format, frames.shape[1:]) as writer:
        for i, image in enumerate(frames):
            writer.add_image(image, i, i / FRAME_RATE)
    seconds = perf_counter() - start
    shutil.rmtree(target)
    return seconds / count

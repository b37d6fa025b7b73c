"""imgstore 0.4.0; runs in an interpreter of its own, so only NumPy and imgstore may be imported."""

from __future__ import annotations

import shutil
import zlib
from functools import cache
from time import perf_counter
from typing import Any

import imgstore  # type: ignore[import-not-found]
import numpy as np

from benchmarks.scene import FRAME_RATE, frame_at, load_scene, paced


def versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("imgstore", "opencv-python-headless", "numpy")
    return {name: version(name) for name in names}


def prepare(scene: str) -> None:
    load_scene(scene)


def append(scene: str, path: str, format: str, count: int, chunksize: int, keep: bool) -> float:
    frames = load_scene(scene)
    shutil.rmtree(path, ignore_errors=True)
    start = perf_counter()
    writer = imgstore.new_for_format(
        format, path, imgshape=frames.shape[1:], imgdtype=frames.dtype, chunksize=chunksize
    )
    for i in range(count):
        writer.add_image(frame_at(frames, i), i, i / FRAME_RATE)
    writer.close()
    seconds = perf_counter() - start
    if not keep:
        shutil.rmtree(path)
    return seconds / count


def latency(scene: str, path: str, format: str, count: int, rate: float, percent: float) -> float:
    frames = load_scene(scene)
    shutil.rmtree(path, ignore_errors=True)
    writer = imgstore.new_for_format(
        format, path, imgshape=frames.shape[1:], imgdtype=frames.dtype, chunksize=200
    )
    taken = paced(writer.add_image, frames, count, rate)
    writer.close()
    shutil.rmtree(path)
    return float(np.percentile(taken, percent))


@cache
def _open(path: str) -> Any:
    return imgstore.new_for_filename(path)


def digest(path: str, positions: list[int]) -> int:
    value = 0
    for position in positions:
        value = zlib.crc32(_open(path).get_image(None, frame_index=position)[0], value)
    return value


def random(path: str, positions: list[int]) -> float:
    store = _open(path)
    start = perf_counter()
    for position in positions:
        store.get_image(None, frame_index=position)
    return (perf_counter() - start) / len(positions)


def sequential(path: str, count: int) -> float:
    start = perf_counter()
    store = imgstore.new_for_filename(path)
    for _ in range(count):
        store.get_next_image()
    store.close()
    return (perf_counter() - start) / count


def open(path: str) -> float:
    start = perf_counter()
    store = imgstore.new_for_filename(path)
    seconds = perf_counter() - start
    store.close()
    return seconds


def open_and_keep(path: str) -> float:
    start = perf_counter()
    _open(path)
    return perf_counter() - start


def find_number(path: str, values: list[int]) -> float:
    index = _open(path)._index
    start = perf_counter()
    for value in values:
        index.find_chunk("frame_number", value)
    return (perf_counter() - start) / len(values)


def find_time(path: str, values: list[float]) -> float:
    index = _open(path)._index
    start = perf_counter()
    for value in values:
        index.find_chunk_nearest("frame_time", value)
    return (perf_counter() - start) / len(values)


def minute(path: str, position: int, count: int) -> float:
    """Mean image of frames that follow each other."""
    store = _open(path)
    start = perf_counter()
    total = np.zeros(store.image_shape, np.float64)
    image, _ = store.get_image(frame_number=None, frame_index=position)
    total += image
    for _ in range(count - 1):
        image, _ = store.get_next_image()
        total += image
    _ = total / count
    return perf_counter() - start

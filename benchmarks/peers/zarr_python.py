"""zarr-python: the same shards, the same codecs; it reads the very files that imgstore_zarr wrote."""

from __future__ import annotations

import shutil
import zlib
from functools import cache
from time import perf_counter
from typing import Any

import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from benchmarks.scene import load_scene


def versions() -> dict[str, str]:
    return {"zarr": zarr.__version__}


def prepare(scene: str) -> None:
    load_scene(scene)


def append(scene: str, path: str, format: str, count: int, chunksize: int, keep: bool) -> float:
    """Write whole shards, which the caller is taken to have gathered: frame by frame is far slower."""
    frames = load_scene(scene)
    assert count % chunksize == 0
    assert chunksize <= len(frames)
    shutil.rmtree(path, ignore_errors=True)
    blosc = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=1)
    start = perf_counter()
    array = zarr.create_array(
        path,
        shape=(count, *frames.shape[1:]),
        shards=(chunksize, *frames.shape[1:]),
        chunks=(1, *frames.shape[1:]),
        dtype=frames.dtype,
        compressors=[blosc, Crc32cCodec()] if format == "zstd/zarr" else [Crc32cCodec()],
    )
    for first in range(0, count, chunksize):
        array[first : first + chunksize] = frames[:chunksize]
    seconds = perf_counter() - start
    if not keep:
        shutil.rmtree(path)
    return seconds / count


@cache
def _open(path: str) -> Any:
    return zarr.open_array(f"{path}/image", mode="r")


def digest(path: str, positions: list[int]) -> int:
    value = 0
    for position in positions:
        value = zlib.crc32(_open(path)[position], value)
    return value


def random(path: str, positions: list[int]) -> float:
    array = _open(path)
    start = perf_counter()
    for position in positions:
        array[position]
    return (perf_counter() - start) / len(positions)


def runs(path: str, starts: list[int], length: int) -> float:
    array = _open(path)
    start = perf_counter()
    for first in starts:
        array[first : first + length]
    return (perf_counter() - start) / (len(starts) * length)


def sequential(path: str, count: int) -> float:
    """Read whole shards: its fastest way."""
    start = perf_counter()
    array = zarr.open_array(f"{path}/image", mode="r")
    step = array.shards[0] if array.shards else 1
    for first in range(0, count, step):
        array[first : first + step]
    return (perf_counter() - start) / count


def open(path: str) -> float:
    """Open the group and read both coordinates, which is what opening a recording comes to."""
    start = perf_counter()
    group = zarr.open_group(path, mode="r")
    group["frame_number"][:]  # type: ignore[index]
    group["frame_time"][:]  # type: ignore[index]
    return perf_counter() - start

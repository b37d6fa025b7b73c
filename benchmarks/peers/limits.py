"""What the work costs without a store: np.load of one file a frame, Blosc alone."""

from __future__ import annotations

import zlib
from pathlib import Path
from time import perf_counter

import numcodecs.blosc
import numpy as np

from benchmarks.scene import frame_at, load_scene


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"numcodecs": version("numcodecs")}


def compress(scene: str, count: int) -> float:
    """Compress as zstd/zarr does, on one thread, and throw the result away."""
    frames = load_scene(scene)
    numcodecs.blosc.set_nthreads(1)
    start = perf_counter()
    for i in range(count):
        numcodecs.blosc.compress(frame_at(frames, i), b"zstd", 1, shuffle=2, typesize=1)
    return (perf_counter() - start) / count


def _files(path: str) -> list[str]:
    return sorted(map(str, Path(path).glob("*/*.npy")))


def digest(path: str, positions: list[int]) -> int:
    files = _files(path)
    value = 0
    for position in positions:
        value = zlib.crc32(np.load(files[position]), value)
    return value


def random(path: str, positions: list[int]) -> float:
    files = _files(path)
    start = perf_counter()
    for position in positions:
        np.load(files[position])
    return (perf_counter() - start) / len(positions)

"""Measure what tiled inner chunks gain and cost: ``python -m benchmarks.tiles --help``."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

import imgstore_zarr
from benchmarks import machine
from benchmarks.measure import Peer, Row, Work, duration, mebibytes, run
from benchmarks.scene import SHAPE, frame_at, make_scene
from imgstore_zarr import ImgStore

CHUNKSIZE = 64
WINDOW = 32
_RANDOM = 3
_RUN = 256

Reading = Callable[[ImgStore], object]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiles", description=__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("benchmarks/.work"))
    parser.add_argument("--format", default="zstd/zarr")
    parser.add_argument("--frames", type=int, default=512, help=f"at least {_RUN}")
    parser.add_argument("--tile", type=int, nargs=3, default=[CHUNKSIZE, 128, 128])
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()

    workdir = options.workdir.resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    facts = machine.facts(workdir)
    scene = make_scene()
    with tempfile.TemporaryDirectory(dir=workdir) as data:
        tiles, whole = Path(data) / "tiles", Path(data) / "whole"
        writing = [
            partial(write, path, options.format, scene, options.frames, inner)
            for path, inner in ((tiles, tuple(options.tile)), (whole, (1, *SHAPE)))
        ]
        work = Work("write all", duration, writing[0], [Peer("", writing[1])])
        rows = run(work, options.repetitions)
        sizes = [partial(size, path) for path in (tiles, whole)]
        rows += run(Work("size on disk", mebibytes, sizes[0], [Peer("", sizes[1])], once=True), 1)
        with imgstore_zarr.open(tiles) as ours, imgstore_zarr.open(whole) as theirs:
            must_agree(ours, theirs)
            for work in works(ours, theirs):
                rows += run(work, options.repetitions)
    inner = " x ".join(str(n) for n in options.tile)
    print(f"{options.format}, {options.frames} frames of {SHAPE[0]} x {SHAPE[1]}, inner chunks of")
    print(f"{inner} and of one frame; {options.repetitions} rounds\n")
    print(table(rows))
    print("\nMeasured on: " + ", ".join(f"{name}: {value}" for name, value in facts.items()))


def write(
    path: Path, format: str, scene: NDArray[np.uint8], count: int, inner: tuple[int, ...]
) -> float:
    """Write a recording; return the seconds that it took."""
    shutil.rmtree(path, ignore_errors=True)
    begin = perf_counter()
    with imgstore_zarr.create(
        path, format, SHAPE, chunksize=CHUNKSIZE, inner_chunks=inner
    ) as writer:
        for i in range(count):
            writer.add_image(frame_at(scene, i), i, i / 25)
    return perf_counter() - begin


def size(path: Path) -> float:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def must_agree(ours: ImgStore, theirs: ImgStore) -> None:
    """Refuse to measure recordings that do not hold the same pixels."""
    for i in (0, len(ours) // 2, len(ours) - 1):
        if not np.array_equal(ours.frames[i], theirs.frames[i]):
            raise RuntimeError(f"the recordings differ at position {i}")


def works(ours: ImgStore, theirs: ImgStore) -> Iterator[Work]:
    """Read the same of both recordings."""
    for name, reading in _READINGS.items():
        for of, show, measure, once in (
            ("", duration, seconds, False),
            (", bytes read", mebibytes, bytes_read, True),
        ):
            peer = Peer("", partial(measure, reading, theirs))
            yield Work(name + of, show, partial(measure, reading, ours), [peer], once=once)


def seconds(reading: Reading, store: ImgStore) -> float:
    begin = perf_counter()
    reading(store)
    return perf_counter() - begin


def bytes_read(reading: Reading, store: ImgStore) -> float:
    """Return what the process got from ``read`` and its like, from disk or from memory (Linux)."""
    before = _read_so_far()
    reading(store)
    return _read_so_far() - before


def _read_so_far() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def _window(store: ImgStore) -> NDArray[Any]:
    # Within one tile of 128 x 128.
    return store.frames[:, 400 : 400 + WINDOW, 560 : 560 + WINDOW]


def _pixel(store: ImgStore) -> NDArray[Any]:
    return store.frames[:, 420, 580]


def _random_frames(store: ImgStore) -> list[NDArray[Any]]:
    positions = np.random.default_rng(0).integers(0, len(store), _RANDOM)
    return [store.frames[int(i)] for i in positions]


def _all_frames(store: ImgStore) -> None:
    for start in range(0, _RUN, CHUNKSIZE):
        store.frames[start : start + CHUNKSIZE]


_READINGS: dict[str, Reading] = {
    f"a window of {WINDOW} x {WINDOW} of every frame": _window,
    "one pixel of every frame": _pixel,
    f"{_RANDOM} random frames": _random_frames,
    f"{_RUN} whole frames, {CHUNKSIZE} at a time": _all_frames,
}


def table(rows: list[Row]) -> str:
    lines = [
        "| work | tiles | one frame | ratio | of single rounds |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = (row.work, row.ours, row.theirs, row.ratio, row.spread)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

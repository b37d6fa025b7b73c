"""The works of the Zarr layout, in groups that can be run alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.environment import Bench
from benchmarks.measure import Peer, Work, duration, mebibytes, rate
from benchmarks.synthetic import Week, write_imgstore, write_zarr

SHARD = 64
"""Frames of a shard: 64 MiB, as the package chooses for frames of 1 MiB."""

_IMGSTORE_CHUNK = 200
_APPENDED = 512
_RAW = 192
_COMPRESSED = 128
_PNG = 8
_RUN = 64

Group = Callable[[Bench], Iterator[Work]]


def writing(bench: Bench) -> Iterator[Work]:
    """Append frames one by one, from the first to the closed recording."""
    yield Work(
        "raw/zarr, append",
        rate,
        bench.append("ours", "raw/zarr", _APPENDED, chunksize=SHARD),
        [
            Peer(
                "imgstore npy",
                bench.append("imgstore", "npy", _APPENDED, chunksize=_IMGSTORE_CHUNK),
                budget=1,
            ),
            Peer(
                "zarr-python, whole shards",
                bench.append("zarr_python", "raw/zarr", _APPENDED, chunksize=SHARD),
                budget=3,
            ),
            Peer(
                "TensorStore, whole shards",
                bench.append("tensorstore_zarr", "raw/zarr", _APPENDED, chunksize=SHARD),
            ),
        ],
    )
    scene = str(bench.scene)
    yield Work(
        "zstd/zarr, append",
        rate,
        bench.append("ours", "zstd/zarr", _COMPRESSED, chunksize=SHARD),
        [
            Peer(
                "Blosc alone, one thread",
                bench.timed("limits", "compress", scene=scene, count=_COMPRESSED),
                budget=1.6,
            ),
            Peer("imgstore png", bench.append("imgstore", "png", _PNG, chunksize=_IMGSTORE_CHUNK)),
            Peer(
                "zarr-python, whole shards",
                bench.append("zarr_python", "zstd/zarr", _COMPRESSED, chunksize=SHARD),
            ),
            Peer(
                "TensorStore, whole shards",
                bench.append("tensorstore_zarr", "zstd/zarr", _COMPRESSED, chunksize=SHARD),
            ),
        ],
    )
    for format, peer_format, pace in (("raw/zarr", "npy", 500), ("zstd/zarr", "npy", 250)):
        for percent, name in ((50, "median"), (99, "99th percentile"), (100, "longest")):

            def late(
                peer: str, format: str, pace: int = pace, percent: int = percent
            ) -> Callable[[], float]:
                return bench.timed(
                    peer,
                    "latency",
                    scene=scene,
                    path=bench.path("latency"),
                    format=format,
                    count=pace,
                    rate=pace,
                    percent=percent,
                )

            yield Work(
                f"{format}, add_image at {pace} frames/s, {name}",
                duration,
                late("ours", format),
                [Peer(f"imgstore {peer_format}", late("imgstore", peer_format))],
            )


def reading(bench: Bench) -> Iterator[Work]:
    """Read what was written; zarr-python and TensorStore read the files of ours."""
    zarr, compressed, npy = (bench.path(name) for name in ("raw", "zstd", "npy"))
    bench.append("ours", "raw/zarr", _RAW, chunksize=SHARD, keep="raw")()
    bench.append("ours", "zstd/zarr", _COMPRESSED, chunksize=SHARD, keep="zstd")()
    bench.append("imgstore", "npy", _RAW, chunksize=_IMGSTORE_CHUNK, keep="npy")()
    random = np.random.default_rng(1)
    positions = random.integers(0, _RAW, 100).tolist()
    many = random.integers(0, _RAW, 600).tolist()
    few = random.integers(0, _COMPRESSED, 40).tolist()
    where = {
        "ours": zarr,
        "zarr_python": zarr,
        "tensorstore_zarr": zarr,
        "imgstore": npy,
        "limits": npy,
    }
    bench.must_agree(where, positions[:10])
    bench.must_agree(dict.fromkeys(("ours", "zarr_python", "tensorstore_zarr"), compressed), few)

    def one(peer: str, path: str, at: list[int]) -> Callable[[], float]:
        return bench.timed(peer, "random", path=path, positions=at)

    yield Work(
        "raw/zarr, one random frame",
        duration,
        one("ours", zarr, positions),
        [
            Peer("np.load of a .npy file", one("limits", npy, positions), budget=1),
            Peer("imgstore npy", one("imgstore", npy, positions)),
            Peer("zarr-python", one("zarr_python", zarr, positions), budget=10),
            Peer("TensorStore", one("tensorstore_zarr", zarr, positions)),
        ],
    )
    yield Work(
        "zstd/zarr, one random frame",
        duration,
        one("ours", compressed, few),
        [
            Peer("zarr-python", one("zarr_python", compressed, few)),
            Peer("TensorStore", one("tensorstore_zarr", compressed, few)),
        ],
    )
    for threads in (2, 4):
        yield Work(
            f"raw/zarr, random frames in {threads} threads",
            rate,
            bench.timed("ours", "in_threads", path=zarr, positions=many, threads=threads),
            [Peer("ours, one thread", one("ours", zarr, many))],
        )
    starts = random.integers(0, _RAW - _RUN, 4).tolist()

    def runs(peer: str) -> Callable[[], float]:
        return bench.timed(peer, "runs", path=zarr, starts=starts, length=_RUN)

    yield Work(
        f"raw/zarr, runs of {_RUN} frames",
        rate,
        runs("ours"),
        [
            Peer("zarr-python", runs("zarr_python"), budget=3),
            Peer("TensorStore", runs("tensorstore_zarr")),
        ],
    )

    def sequential(peer: str, path: str) -> Callable[[], float]:
        return bench.timed(peer, "sequential", path=path, count=_RAW)

    yield Work(
        "raw/zarr, sequential",
        rate,
        sequential("ours", zarr),
        [
            Peer("imgstore npy", sequential("imgstore", npy)),
            Peer("zarr-python, whole shards", sequential("zarr_python", zarr)),
            Peer("TensorStore, whole shards", sequential("tensorstore_zarr", zarr)),
        ],
    )


def opening(bench: Bench) -> Iterator[Work]:
    """Open recordings whose index is all there is, and look frames up in it."""
    day, week = Week(chunks=50), Week(chunks=1512)
    paths = {}
    for name, recording in (("day", day), ("week", week)):
        for kind, write in (("zarr", write_zarr), ("imgstore", write_imgstore)):
            path = bench.path(f"{name}-{kind}")
            write(Path(path), recording)
            paths[name, kind] = path
    yield Work(
        f"open {day.name}",
        duration,
        bench.timed("ours", "open", path=paths["day", "zarr"]),
        [
            Peer("imgstore npy", bench.timed("imgstore", "open", path=paths["day", "imgstore"])),
            Peer(
                "zarr-python, coordinates read",
                bench.timed("zarr_python", "open", path=paths["day", "zarr"]),
            ),
        ],
    )
    zarr, imgstore = paths["week", "zarr"], paths["week", "imgstore"]
    # So slow that its memory is measured on the way.
    seconds, grown = bench.workers["imgstore"].call_and_peak("open_and_keep", path=imgstore)
    yield Work(
        f"open {week.name}",
        duration,
        bench.timed("ours", "open", path=zarr),
        [
            Peer("imgstore npy", lambda: seconds, once=True),
            Peer("zarr-python, coordinates read", bench.timed("zarr_python", "open", path=zarr)),
        ],
        limit=0.5,
    )
    random = np.random.default_rng(2)
    places = random.integers(0, week.frame_count, 1000)
    numbers = week.frame_number[places].tolist()
    times = (week.frame_time[places] + 0.013).tolist()
    for what, do, values, once in (
        ("frame_number", "find_number", numbers, False),
        ("nearest frame_time", "find_time", times, True),
    ):
        yield Work(
            f"look up a {what} in {week.frame_count / 1e6:.2f} M",
            duration,
            bench.timed("ours", do, path=zarr, values=values),
            [
                Peer(
                    "imgstore",
                    bench.timed("imgstore", do, path=imgstore, values=values[:1]),
                    budget=1000,
                    once=once,
                )
            ],
        )
    yield Work(
        f"memory to open {week.name}",
        mebibytes,
        partial(bench.peak, "ours", "open", path=zarr),
        once=True,
        peers=[Peer("imgstore npy", lambda: grown)],
    )


def memory(bench: Bench) -> Iterator[Work]:
    """Peak memory of a writer above that at its start, in a fresh process for each figure."""
    for format, count, chunksize in (
        ("raw/zarr", 256, 64),
        ("raw/zarr", 1024, 1024),
        ("zstd/zarr", 256, 256),
    ):

        def grown(peer: str, format: str, count: int = count, chunksize: int = chunksize) -> float:
            return bench.peak(
                peer,
                "append",
                scene=str(bench.scene),
                path=bench.path("memory"),
                format=format,
                count=count,
                chunksize=chunksize,
                keep=False,
            )

        peers = []
        if format == "raw/zarr":
            peers.append(Peer("imgstore npy", partial(grown, "imgstore", "npy")))
        if chunksize <= SHARD:
            peers.append(Peer("zarr-python, whole shards", partial(grown, "zarr_python", format)))
        yield Work(
            f"{format}, memory of a writer, {count} frames in chunks of {chunksize}",
            mebibytes,
            partial(grown, "ours", format),
            peers,
            limit=64 * 2**20,
            once=True,
        )
    count, crop = 100_000, 128
    yield Work(
        f"raw/zarr, memory of a writer, {count:,} frames of {crop} x {crop}",
        mebibytes,
        partial(
            bench.peak,
            "ours",
            "append",
            scene=str(bench.scene),
            path=bench.path("memory"),
            format="raw/zarr",
            count=count,
            chunksize=1000,
            keep=False,
            crop=crop,
        ),
        limit=64 * 2**20,
        once=True,
    )

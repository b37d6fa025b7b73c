"""The works of Motif video: H.264 files that imgstore_zarr and the others read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.environment import Bench
from benchmarks.measure import Peer, Timed, Work, duration, rate

_FORMAT = "avc1/mp4"
_FRAMES = 500
_SHORT, _LONG = 25, 250
_BATCH = 1000

# The default of x264, which smooths the noise away, and that of imgstore_zarr, which keeps much of it.
_SMOOTH, _FINE = 23, 18


def video(bench: Bench) -> Iterator[Work]:
    """Read H.264 in mp4: one frame after the other, at random, many at once, in threads."""
    yield from _gray(bench, _SMOOTH)
    yield from _gray(bench, _FINE)
    yield from _colour(bench)
    yield from _long_gop(bench)


def _written(bench: Bench, name: str, **options: object) -> str:
    path = bench.path(name)
    color = bool(options.pop("color", False))
    bench.timed(
        "ours",
        "append",
        scene=str(bench.scene),
        path=path,
        format=_FORMAT,
        count=_FRAMES,
        chunksize=_FRAMES,
        keep=True,
        color=color,
        options=options,
    )()
    return path


def _gray(bench: Bench, crf: int) -> Iterator[Work]:
    path = _written(bench, f"gray-{crf}", gop=_SHORT, crf=crf)
    what = f"{_FORMAT}, gray, CRF {crf}"
    random = np.random.default_rng(5)
    positions = random.integers(0, _FRAMES, 20).tolist()
    bench.must_agree({"ours": path, "imgstore": path}, positions)

    def one(peer: str, **more: object) -> Timed:
        return bench.timed(peer, "random", path=path, positions=positions, **more)

    def all_of(peer: str, **more: object) -> Timed:
        return bench.timed(peer, "sequential", path=path, count=_FRAMES, **more)

    yield Work(
        f"{what}, sequential",
        rate,
        all_of("ours"),
        [
            Peer("imgstore", all_of("imgstore"), budget=1.7),
            Peer("PyAV, without conversion", all_of("pyav"), budget=0.85),
            Peer("OpenCV", all_of("opencv", gray=True)),
            Peer("decord, RGB", all_of("decord_reader")),
        ],
    )
    yield Work(
        f"{what}, one random frame, GOP {_SHORT}",
        duration,
        one("ours"),
        [
            Peer("imgstore", one("imgstore"), budget=2.5),
            Peer("OpenCV", one("opencv")),
            Peer("decord, RGB", one("decord_reader")),
        ],
    )
    if crf != _SMOOTH:
        return
    many = random.integers(0, _FRAMES, _BATCH).tolist()
    yield Work(
        f"{what}, a batch of {_BATCH:,}",
        rate,
        bench.timed("ours", "batch", path=path, positions=many),
        [
            Peer("decord, RGB", bench.timed("decord_reader", "batch", path=path, positions=many)),
            Peer(
                "imgstore, sorted",
                bench.timed("imgstore", "random", path=path, positions=sorted(many)),
                once=True,
            ),
        ],
    )
    back_and_forth = [250 + step * (-1) ** step for step in range(12)] * 4
    yield Work(
        f"{what}, back and forth within a second",
        duration,
        bench.timed("ours", "random", path=path, positions=back_and_forth),
        [
            Peer(name, bench.timed(peer, "random", path=path, positions=back_and_forth), once=True)
            for name, peer in (
                ("imgstore", "imgstore"),
                ("OpenCV", "opencv"),
                ("decord, RGB", "decord_reader"),
            )
        ],
    )
    spread = random.integers(0, _FRAMES, 48).tolist()
    for threads in (2, 4):
        yield Work(
            f"{what}, random frames in {threads} threads",
            rate,
            bench.timed("ours", "in_threads", path=path, positions=spread, threads=threads),
            [
                Peer(
                    "ours, one thread",
                    bench.timed("ours", "in_threads", path=path, positions=spread, threads=1),
                ),
                Peer(
                    "imgstore, one thread",
                    bench.timed("imgstore", "random", path=path, positions=spread),
                ),
            ],
        )


def _colour(bench: Bench) -> Iterator[Work]:
    path = _written(bench, "colour", gop=_SHORT, crf=_SMOOTH, color=True)
    bench.must_agree({"ours": path, "imgstore": path}, [0, 77, 13])

    def all_of(peer: str, **more: object) -> Timed:
        return bench.timed(peer, "sequential", path=path, count=_FRAMES, **more)

    yield Work(
        f"{_FORMAT}, colour, CRF {_SMOOTH}, sequential",
        rate,
        all_of("ours"),
        [
            Peer("imgstore", all_of("imgstore")),
            Peer("OpenCV", all_of("opencv", gray=False)),
            Peer("decord, RGB", all_of("decord_reader")),
            Peer("PyAV, without conversion", all_of("pyav")),
        ],
    )


def _long_gop(bench: Bench) -> Iterator[Work]:
    """GOPs of 250 frames with B-frames, which imgstore_zarr does not write itself."""
    path = bench.path("long-gop")
    bench.timed(
        "pyav", "encode", scene=str(bench.scene), path=path, count=_FRAMES, gop=_LONG, b_frames=2
    )()
    positions = np.random.default_rng(6).integers(0, _FRAMES, 6).tolist()

    def one(peer: str) -> Timed:
        return bench.timed(peer, "random", path=path, positions=positions)

    yield Work(
        f"{_FORMAT}, gray, CRF {_SMOOTH}, one random frame, GOP {_LONG}, B-frames",
        duration,
        one("ours"),
        [
            Peer("OpenCV", one("opencv"), budget=1),
            Peer("decord, RGB", one("decord_reader"), budget=1),
            Peer("imgstore", one("imgstore")),
        ],
    )

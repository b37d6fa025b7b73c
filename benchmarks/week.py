"""The works of a week of Motif video: opening it, xarray and dask, and converting."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.environment import Bench
from benchmarks.measure import Peer, Work, duration, mebibytes, rate
from benchmarks.scene import FRAME_RATE
from benchmarks.synthetic import Week, link_video_week

_CHUNK = 10_000
_CROP = 256
_BLOCKS = 24
_BLOCK_FRAMES = 1000
_CONVERTED = 500


def week(bench: Bench) -> Iterator[Work]:
    """1,512 chunks of 10,000 frames; the videos are links to one of 256 x 256."""
    path, recording = bench.path("motif-week"), Week(chunks=1512)
    bench.timed(
        "ours",
        "append",
        scene=str(bench.scene),
        path=path,
        format="avc1/mp4",
        count=_CHUNK,
        chunksize=_CHUNK,
        keep=True,
        crop=_CROP,
        options={"gop": 25, "preset": "ultrafast", "crf": 30},
    )()
    link_video_week(Path(path), recording)
    yield from _opening(bench, path, recording)
    yield from _on_dask(bench, path, recording)
    yield from _converting(bench)


def _opening(bench: Bench, path: str, recording: Week) -> Iterator[Work]:
    name = f"{recording.name} of Motif video"
    # So slow that its memory is measured on the way.
    seconds, grown = bench.workers["imgstore"].call_and_peak("open_and_keep", path=path)
    yield Work(
        f"open {name}",
        duration,
        bench.timed("ours", "open", path=path),
        [Peer("imgstore", lambda: seconds, budget=12, once=True)],
    )
    yield Work(
        f"memory to open {name}",
        mebibytes,
        partial(bench.peak, "ours", "open", path=path),
        once=True,
        peers=[Peer("imgstore", lambda: grown, budget=2)],
    )


def _on_dask(bench: Bench, path: str, recording: Week) -> Iterator[Work]:
    yield Work(
        'the same, to_xarray(chunks="auto")',
        duration,
        bench.timed("cluster", "graph", path=path),
        limit=2,
    )
    position = recording.frame_count // 2
    middle = float(recording.frame_time[position])
    minute = {"path": path, "position": position, "count": int(60 * FRAME_RATE)}
    yield Work(
        "the same, mean image of a minute by time",
        duration,
        bench.timed("cluster", "minute", path=path, start=middle),
        [Peer("imgstore, frame by frame", bench.timed("imgstore", "minute", **minute))],
    )
    sample = {"path": path, "blocks": _BLOCKS, "frames": _BLOCK_FRAMES}
    yield Work(
        f"the same, mean of {_BLOCKS} blocks of {_BLOCK_FRAMES}, two worker processes",
        rate,
        bench.timed("cluster", "reduce", workers=2, **sample),
        [Peer("one", bench.timed("cluster", "reduce", workers=1, **sample), budget=1.7)],
    )
    yield Work(
        "the same, growth of a worker's memory",
        mebibytes,
        bench.timed("cluster", "worker_memory", **sample),
        limit=512 * 2**20,
        once=True,
    )
    bench.timed("cluster", "end")()


def _converting(bench: Bench) -> Iterator[Work]:
    path = bench.path("converted-from")
    bench.append("ours", "avc1/mp4", _CONVERTED, chunksize=_CONVERTED, keep="converted-from")()
    images = {"path": path, "count": _CONVERTED}
    for format in ("zstd/zarr", "lz4/zarr", "raw/zarr"):
        yield Work(
            f"convert avc1/mp4 to {format}",
            rate,
            bench.timed("ours", "convert", format=format, **images),
            [
                Peer("decoding alone", bench.timed("ours", "sequential", **images)),
                Peer("compressing alone", bench.timed("ours", "compress", format=format, **images)),
            ],
        )

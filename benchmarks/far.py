"""The works of a recording in a bucket: an S3 server on this machine, behind a slow line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import Bench
from benchmarks.measure import Peer, Timed, Work, duration, rate
from tests import servers

_LATENCY = 0.05
_SIDE = 256
_COUNT, _CHUNKSIZE = 2000, 100
_MINUTE = 1500
_SIZE = _SIDE * _SIDE + 4


def requests(count: float) -> str:
    return f"{count:.0f}"


def far(bench: Bench) -> Iterator[Work]:
    """Each answer comes 50 ms later than it would."""
    place = servers.s3()
    proxy = servers.proxy_of(place.server)
    worker = bench.workers["far"]
    where = {"url": f"{place.url}/recording", "options": json.dumps(dict(place.options))}
    worker.call("record", **where, side=_SIDE, count=_COUNT, chunksize=_CHUNKSIZE)
    video = place.below("video")
    worker.call("record_video", path=bench.path("far-video"), side=_SIDE, count=500)
    video.fill(Path(bench.path("far-video")))
    where["options"] = json.dumps(dict(place.at(proxy.url).options))
    timed = partial(bench.timed, "far", **where)
    yield from _counted(proxy, timed)
    there = {"url": video.url, "options": where["options"]}
    yield from _counted_of_video(proxy, partial(bench.timed, "far", **there))
    proxy.forget()
    proxy.delay(_LATENCY)
    yield from _slow(timed)
    proxy.forget()


def _slow(timed: Any) -> Iterator[Work]:
    positions = np.random.default_rng(5).permutation(np.arange(0, _COUNT, 2))[:100].tolist()
    yield Work(
        "open from a bucket, 50 ms away",
        duration,
        timed("open"),
        [Peer("xarray.open_zarr, obstore", timed("open_peer", way="obstore"))],
    )
    yield Work(
        "100 random frames from a bucket, 50 ms away",
        duration,
        timed("gather", positions=positions),
        [
            Peer(
                "100 ranged GETs by obstore",
                timed("gather_bare", positions=positions, size=_SIZE, chunksize=_CHUNKSIZE),
                budget=1 / 1.2,
            ),
            Peer(
                "xarray.open_zarr, obstore",
                timed("gather_peer", way="obstore", positions=positions),
            ),
        ],
    )
    walked = partial(timed, "walk_peer", way="obstore")
    yield Work(
        "frame by frame from a bucket, 50 ms away",
        rate,
        timed("walk", count=_COUNT),
        [
            Peer("xarray.open_zarr, frame by frame", walked(count=40, together=1), once=True),
            Peer("xarray.open_zarr, 100 frames a time", walked(count=300, together=100)),
        ],
    )


def _counting(proxy: servers.Proxy, call: Timed) -> Timed:
    def counted() -> float:
        proxy.forget()
        call()
        return float(len(proxy.requests()))

    return counted


def _counted_of_video(proxy: servers.Proxy, timed: Any) -> Iterator[Work]:
    """Motif: 5 chunks of mp4, GOPs of 25 frames. No peer reads it from a bucket."""
    for name, call in {
        "requests to open 5 chunks of Motif video": timed("open"),
        "requests for one frame of mp4, cold": timed("gather", positions=[60]),
        "requests for another one of its GOP": timed("gather", positions=[70]),
    }.items():
        if "cold" in name:
            timed("gather", positions=[])()  # opens the recording, which is counted above
        yield Work(name, requests, _counting(proxy, call), once=True)


def _counted(proxy: servers.Proxy, timed: Any) -> Iterator[Work]:
    """How many requests everybody makes, for the same."""

    def pair(name: str, ours: Timed, theirs: str, **arguments: Any) -> Work:
        fsspec = timed(theirs, way="fsspec", **arguments)
        return Work(
            name,
            requests,
            _counting(proxy, ours),
            [Peer("zarr-python, fsspec", _counting(proxy, fsspec), once=True)],
            once=True,
        )

    yield pair("requests to open", timed("open"), "open_peer")
    # What is asked first opens the recording as well: not counted.
    timed("gather", positions=[])()
    timed("gather_peer", way="fsspec", positions=[])()
    for name, positions in {
        "requests for one frame, cold": [3],
        "requests for one frame, warm": [7],
        "requests for 64 neighbours, warm": [*range(20, 84)],
        "requests for 100 random frames, of 10 shards cold": [*range(1, 1000, 10)],
        "requests for a minute, 1,500 frames in order": [*range(150, 150 + _MINUTE)],
    }.items():
        yield pair(name, timed("gather", positions=positions), "gather_peer", positions=positions)

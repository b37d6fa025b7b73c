"""The works of a recording in a bucket: an S3 server on this machine, behind a slow line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.environment import Bench
from benchmarks.measure import Peer, Timed, Work, duration, rate
from tests import servers

_LATENCY = 0.05
_SIDE = 256
_COUNT, _CHUNKSIZE = 1000, 100
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
    where["options"] = json.dumps(dict(place.at(proxy.url).options))
    timed = partial(bench.timed, "far", **where)
    yield from _counted(proxy, timed)
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
            Peer("xarray.open_zarr, 100 frames a time", walked(count=_COUNT, together=100)),
        ],
    )


def _counted(proxy: servers.Proxy, timed: Any) -> Iterator[Work]:
    """How many requests everybody makes, for the same."""

    def count(call: Timed) -> Timed:
        def counted() -> float:
            proxy.forget()
            call()
            return float(len(proxy.requests()))

        return counted

    def pair(name: str, ours: Timed, theirs: str, **arguments: Any) -> Work:
        fsspec = timed(theirs, way="fsspec", **arguments)
        return Work(
            name,
            requests,
            count(ours),
            [Peer("zarr-python, fsspec", count(fsspec), once=True)],
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
        "requests for 100 random frames, 10 shards": [*range(1, _COUNT, 10)],
        "requests for 250 frames in order": [*range(150, 400)],
    }.items():
        yield pair(name, timed("gather", positions=positions), "gather_peer", positions=positions)

"""The works of Motif video: files written by imgstore_zarr, which imgstore reads too."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.environment import Bench
from benchmarks.measure import Peer, Work, duration, rate

_FORMAT = "avc1/mp4"
_FRAMES = 250
_SHORT, _LONG = 25, 250

# The default of x264, which smooths the noise away, and that of imgstore_zarr, which keeps much of it.
_SMOOTH, _FINE = 23, 18


def video(bench: Bench) -> Iterator[Work]:
    """Read gray H.264 in mp4, with GOPs of 25 and of 250 frames, as imgstore reads it."""
    random = np.random.default_rng(5)
    for gop, crf, count in ((_SHORT, _SMOOTH, 20), (_SHORT, _FINE, 10), (_LONG, _SMOOTH, 6)):
        path = bench.path(f"video-{gop}-{crf}")
        what = f"{_FORMAT}, CRF {crf}"
        bench.timed(
            "ours",
            "append",
            scene=str(bench.scene),
            path=path,
            format=_FORMAT,
            count=_FRAMES,
            chunksize=_FRAMES,
            keep=True,
            options={"gop": gop, "crf": crf},
        )()
        positions = random.integers(0, _FRAMES, count).tolist()
        bench.must_agree({"ours": path, "imgstore": path}, positions)
        if gop == _SHORT:
            yield Work(
                f"{what}, sequential",
                rate,
                bench.timed("ours", "sequential", path=path, count=_FRAMES),
                [
                    Peer(
                        "imgstore",
                        bench.timed("imgstore", "sequential", path=path, count=_FRAMES),
                        budget=1.7,
                    ),
                    Peer(
                        "PyAV, without conversion",
                        bench.timed("pyav", "sequential", path=path, count=_FRAMES),
                        budget=0.85,
                    ),
                ],
            )
        yield Work(
            f"{what}, one random frame, GOP {gop}",
            duration,
            bench.timed("ours", "random", path=path, positions=positions),
            [
                Peer(
                    "imgstore",
                    bench.timed("imgstore", "random", path=path, positions=positions),
                    budget=2.5 if gop == _SHORT else 1,
                )
            ],
        )

"""PyAV: decodes the packets of one file, converts nothing."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import av


def versions() -> dict[str, str]:
    return {"av": av.__version__}


def sequential(path: str, count: int) -> float:
    start = perf_counter()
    decoded = 0
    for file in sorted(Path(path).glob("*.mp4")):
        with av.open(file) as container:
            container.streams.video[0].thread_type = "AUTO"
            for _ in container.decode(video=0):
                decoded += 1
    assert decoded == count
    return (perf_counter() - start) / count

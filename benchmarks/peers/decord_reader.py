"""decord, which gives RGB; runs in the interpreter of imgstore."""

from __future__ import annotations

from functools import cache
from time import perf_counter
from typing import Any

import decord  # type: ignore[import-not-found]

from benchmarks.peers.opencv import _video


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"decord": version("decord")}


@cache
def _open(path: str) -> Any:
    return decord.VideoReader(_video(path))


def sequential(path: str, count: int) -> float:
    start = perf_counter()
    reader = decord.VideoReader(_video(path))
    for _ in range(count):
        reader.next().asnumpy()
    return (perf_counter() - start) / count


def random(path: str, positions: list[int]) -> float:
    reader = _open(path)
    start = perf_counter()
    for position in positions:
        reader[position].asnumpy()
    return (perf_counter() - start) / len(positions)


def batch(path: str, positions: list[int]) -> float:
    reader = _open(path)
    start = perf_counter()
    reader.get_batch(positions).asnumpy()
    return (perf_counter() - start) / len(positions)

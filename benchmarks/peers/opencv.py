"""OpenCV's VideoCapture; runs in the interpreter of imgstore."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2


def versions() -> dict[str, str]:
    return {"opencv-python-headless": cv2.__version__}


def _video(path: str) -> str:
    return str(next(file for file in sorted(Path(path).iterdir()) if file.suffix == ".mp4"))


@cache
def _open(path: str) -> Any:
    return cv2.VideoCapture(_video(path))


def sequential(path: str, count: int, gray: bool) -> float:
    start = perf_counter()
    capture = cv2.VideoCapture(_video(path))
    for _ in range(count):
        there, image = capture.read()
        assert there
        if gray:
            cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    capture.release()
    return (perf_counter() - start) / count


def random(path: str, positions: list[int]) -> float:
    capture = _open(path)
    start = perf_counter()
    for position in positions:
        capture.set(cv2.CAP_PROP_POS_FRAMES, position)
        there, image = capture.read()
        assert there
        cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return (perf_counter() - start) / len(positions)

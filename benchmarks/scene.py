"""A scene as a camera sees one: textured ground, moving animals, sensor noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPE = (1024, 1024)
FRAMES = 64
FRAME_RATE = 25.0
_SEED = 20240229
_ANIMALS = 12
_READ_NOISE = 1.2
_SHOT_NOISE = 0.02


def make_scene(count: int = FRAMES, shape: tuple[int, int] = SHAPE) -> NDArray[np.uint8]:
    """Return (frame, y, x) uint8, the same at every call."""
    import cv2

    random = np.random.default_rng(_SEED)
    light = _ground(random, shape)
    paths = random.uniform(0.2, 0.8, (_ANIMALS, 2)), random.uniform(0, 2 * np.pi, (_ANIMALS, 3))
    frames = np.empty((count, *shape), np.uint8)
    for i in range(count):
        seen = light.copy()
        for centre, phase in zip(*paths, strict=True):
            turn = 2 * np.pi * i / 250 + phase
            at = (centre + 0.15 * np.array([np.cos(turn[0]), np.sin(2 * turn[1])])) * shape
            size = (shape[1] // 40, shape[1] // 100)
            angle = np.degrees(turn[2])
            cv2.ellipse(seen, (int(at[1]), int(at[0])), size, angle, 0, 360, 40.0, -1, cv2.LINE_AA)
        spread = np.sqrt(_READ_NOISE**2 + _SHOT_NOISE * seen)
        noise = random.standard_normal(shape, np.float32)
        frames[i] = np.clip(np.rint(seen + spread * noise), 0, 255)
    return frames


def _ground(random: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    import cv2

    ground = np.full(shape, 140, np.float32)
    for cells, contrast in ((4, 20), (16, 10), (64, 6), (256, 4)):
        coarse = random.standard_normal((cells, cells), np.float32)
        ground += contrast * cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    y, x = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    vignette: Any = 1 - 0.25 * (x**2 + y**2)
    lit: NDArray[np.float32] = (ground * vignette).astype(np.float32)
    return lit


@cache
def load_scene(path: str) -> NDArray[np.uint8]:
    """Return the scene that the run has saved, in memory."""
    scene: NDArray[np.uint8] = np.load(Path(path))
    return scene


def frame_at(scene: NDArray[np.uint8], position: int) -> NDArray[np.uint8]:
    """Return a frame of a longer recording: the scene forth and back, without a jump."""
    last = len(scene) - 1
    frame: NDArray[np.uint8] = scene[last - abs(position % (2 * last) - last)]
    return frame


def paced(
    add_image: Callable[[NDArray[np.uint8], int, float], object],
    frames: NDArray[np.uint8],
    count: int,
    rate: float,
) -> list[float]:
    """Give frames at a camera's pace; return how long each was in coming back, in seconds."""
    taken = []
    begin = perf_counter()
    for i in range(count):
        image = frame_at(frames, i)
        while perf_counter() < begin + i / rate:
            sleep(max(0.0, begin + i / rate - perf_counter()) / 2)
        before = perf_counter()
        add_image(image, i, i / rate)
        taken.append(perf_counter() - before)
    return taken

"""A synthetic behaviour recording: geckos on sand below a heat lamp, frame by frame.

The warmer it is, the faster and the more often they run, so that the motion in the frames follows
the temperature in the extra data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

RATE = 25.0
"""Frames in a second."""

FIRST_NUMBER = 1000
"""The camera was already running when the recording began."""

DROPPED = 37
"""Frames that the camera loses in the second half."""

_Floats = NDArray[np.floating[Any]]
_Points = NDArray[np.float64]
_Pixels = TypeVar("_Pixels", bound=NDArray[Any])

# Lengths are pixels in an image that is 480 pixels high.
_HEIGHT = 480
_SEGMENT = 6.5
_WIDTHS = np.interp(
    np.arange(24),
    [0, 1, 2.5, 4.5, 6, 9, 12.5, 14, 23],
    [1.5, 5.0, 7.5, 5.5, 8.0, 10.0, 6.0, 4.2, 0.6],
)
_LEGS = ((6, 1, 0.0), (6, -1, np.pi), (12, 1, np.pi), (12, -1, 0.0))
"""Spine point, side and phase in the gait."""

_BEND = 0.032
"""The sharpest turn, in radians per pixel."""

_MARGIN = 80.0
"""Distance from the walls at which a gecko begins to turn."""

_SHADOW = (7.0, 9.0)
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Moment:
    """One frame, and what was measured with it."""

    image: NDArray[np.uint8]
    frame_number: int
    frame_time: float
    temperature: float


def moments(
    frames: int, shape: tuple[int, int], *, start: float = 0.0, animals: int = 5, seed: int = 7
) -> Iterator[Moment]:
    """Produce a recording, the same for the same arguments.

    Parameters
    ----------
    frames
        How many frames; `DROPPED` more are lost about two thirds in.
    shape
        (y, x) of the images.
    start
        Time of the first frame, in seconds.
    animals
        How many geckos.
    seed
        Of everything that is random.

    Yields
    ------
    Moment
        In the order of recording.
    """
    rng = np.random.default_rng(seed)
    camera = _Camera(shape, rng)
    geckos = [_Gecko(i, animals, camera.field, rng) for i in range(animals)]
    lost = round(frames * 0.66)
    for step in range(frames + DROPPED):
        temperature = 26 + 3.0 * np.sin(2 * np.pi * 1.25 * step / (frames + DROPPED) - 1.3)
        for gecko in geckos:
            gecko.walk(float(temperature), geckos)
        if lost <= step < lost + DROPPED:
            continue
        yield Moment(
            image=camera.photograph(geckos),
            frame_number=FIRST_NUMBER + step,
            frame_time=start + step / RATE + float(rng.normal(0, 3e-4)),
            temperature=float(temperature + rng.normal(0, 0.02)),
        )


class _Gecko:
    """Runs in bouts, turns in curves, keeps away from the walls and from the others."""

    def __init__(
        self, i: int, count: int, field: tuple[float, float], rng: np.random.Generator
    ) -> None:
        self._rng = rng
        self._field = np.array(field)
        self._heading = 2 * np.pi * i / count + float(rng.uniform(0, 1))
        self._turning = 0.0
        self._speed = 0.0
        self._running = bool(rng.random() < 0.5)
        self.phase = float(rng.uniform(0, 2 * np.pi))
        self.tone = float(rng.uniform(42, 78))
        angle = 2 * np.pi * i / count
        head = self._field * (0.5 + 0.28 * np.array([np.cos(angle), np.sin(angle)]))
        behind = np.arange(len(_WIDTHS))[:, None] * _SEGMENT
        self.spine: _Points = head - behind * [np.cos(self._heading), np.sin(self._heading)]

    def walk(self, temperature: float, others: list[_Gecko]) -> None:
        """Move on by one frame."""
        rng, vigour = self._rng, float(np.exp((temperature - 26) / 3.2))
        self._running = rng.random() < (0.97 if self._running else 0.035 * vigour)
        wanted = 4.2 * vigour if self._running else 0.0
        self._speed += 0.25 * (wanted - self._speed)
        self._turning += -0.1 * self._turning + rng.normal(0, 0.004)
        turn = np.clip(self._turning + 0.035 * self._away(others), -_BEND, _BEND)
        self._heading += float(turn) * self._speed
        self.phase += self._speed * 0.13
        self.spine[0] += self._speed * np.array([np.cos(self._heading), np.sin(self._heading)])
        self.spine[0] = np.clip(self.spine[0], 12, self._field - 12)
        for i in range(1, len(self.spine)):
            x, y = self.spine[i] - self.spine[i - 1]
            shorten = _SEGMENT / max(math.hypot(x, y), 1e-6)
            self.spine[i] = self.spine[i - 1] + (x * shorten, y * shorten)

    def _away(self, others: list[_Gecko]) -> float:
        """Return where to turn to keep clear of the walls and the others: -1 .. 1."""
        ahead = self.spine[0] + 25 * np.array([np.cos(self._heading), np.sin(self._heading)])
        wall = np.clip(_MARGIN - ahead, 0, None) - np.clip(ahead - self._field + _MARGIN, 0, None)
        push = wall / _MARGIN * 3
        for other in others:
            if other is not self:
                between = ahead - other.spine[[0, 6, 12]]
                distance = np.hypot(*between.T)[:, None]
                push += np.sum(between / distance * np.clip(1 - distance / 80, 0, None), axis=0)
        bearing = np.arctan2(push[1], push[0]) - self._heading
        return float(np.clip(np.hypot(*push) * 2, 0, 1) * np.sin(bearing))

    def outline(self) -> tuple[_Points, list[_Points], _Points]:
        """Return the body's outline, the legs and the line of the back."""
        points = np.arange(len(self.spine))
        tangent = np.gradient(self.spine, axis=0)
        tangent /= np.maximum(np.hypot(*tangent.T), 1e-6)[:, None]
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
        swing = np.sin(self.phase - points * 0.42) * np.clip(points - 2, 0, 14) * 0.30
        back = self.spine + normal * swing[:, None]
        side = normal * _WIDTHS[:, None]
        body = np.concatenate([back + side, (back - side)[::-1]])
        legs = []
        for at, hand, phase in _LEGS:
            reach = 7.0 * np.sin(self.phase + phase)
            hip = back[at] + hand * normal[at] * _WIDTHS[at] * 0.5
            knee = hip + hand * normal[at] * 11 + tangent[at] * (reach * -0.4)
            foot = knee + hand * normal[at] * 5 + tangent[at] * (reach - 3 * np.sign(at - 9))
            legs.append(np.stack([hip, knee, foot]))
        return body, legs, back[2:15]


class _Camera:
    """Looks down on the sand: light, lens and sensor."""

    def __init__(self, shape: tuple[int, int], rng: np.random.Generator) -> None:
        self._rng = rng
        self._shape = shape
        self._scale = shape[0] / _HEIGHT
        self.field = (shape[1] / self._scale, float(_HEIGHT))
        self._ground = self._sand()
        y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
        vignette = 1.06 - 0.30 * ((x + 0.12) ** 2 + (y + 0.15) ** 2)
        self._vignette: _Floats = vignette.astype(np.float32)
        # Every frame takes its noise from another corner: drawing it anew would take most of the time.
        photons = rng.standard_normal((shape[0] * 3 // 2, shape[1] * 3 // 2), np.float32)
        self._photons = photons * np.float32(0.1)

    def _noise(self, sigma: float, spread: float) -> _Floats:
        """Return smooth noise of a standard deviation."""
        noise = self._rng.standard_normal(self._shape, np.float32)
        smooth = _blur(noise, sigma * self._scale)
        return smooth * np.float32(spread / smooth.std())

    def _sand(self) -> _Floats:
        relief = _relief(self._noise(1.0, 1.0) + self._noise(4, 1.2) + self._noise(18, 3.0))
        sand = 160 + self._noise(45, 7) + self._noise(9, 3.5) + self._noise(0.8, 3) + 9 * relief
        pebbles = np.zeros(self._shape, np.uint8)
        turns = np.linspace(0, 2 * np.pi, 14)
        for _ in range(70):
            centre = self._rng.uniform(0, 1, 2) * self.field
            radii = self._rng.uniform(1.2, 4.5, 2)
            rim = centre + radii * np.stack([np.cos(turns), np.sin(turns)], axis=1)
            cv2.fillPoly(pebbles, [self._pixels(rim)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        stone = pebbles.astype(np.float32) / 255
        sand *= 1 - 0.35 * self._shadow(pebbles, 0.25)
        return sand + stone * (128 + 45 * _relief(_blur(stone, 1.6 * self._scale) * 3) - sand)

    def _pixels(self, points: _Points) -> NDArray[np.int32]:
        """Return points as OpenCV draws them, in fractions of a pixel."""
        fractions: _Points = points * (self._scale * 2**_SUBPIXEL_BITS)
        return fractions.round().astype(np.int32)

    def _shadow(self, mask: NDArray[np.uint8], height: float) -> _Floats:
        """Return the soft shadow of what is some way above the ground."""
        dx, dy = (length * height * self._scale for length in _SHADOW)
        shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        moved = cv2.warpAffine(mask, shift, mask.shape[::-1], flags=cv2.INTER_NEAREST)
        return _blur(moved, 5.5 * height * self._scale).astype(np.float32) / 255

    def photograph(self, geckos: list[_Gecko]) -> NDArray[np.uint8]:
        """Return one frame."""
        mask = np.zeros(self._shape, np.uint8)
        tone = np.zeros(self._shape, np.uint8)
        for gecko in geckos:
            body, legs, back = gecko.outline()
            limbs = [self._pixels(leg) for leg in legs]
            thick = max(round(5 * self._scale), 1)
            for image, value in ((mask, 255.0), (tone, gecko.tone)):
                cv2.polylines(image, limbs, False, value, thick, cv2.LINE_AA, _SUBPIXEL_BITS)
                cv2.fillPoly(image, [self._pixels(body)], value, cv2.LINE_AA, _SUBPIXEL_BITS)
            stripe = max(round(2.5 * self._scale), 1)
            spots = [self._pixels(back[i : i + 2]) for i in range(1, len(back) - 1, 2)]
            cv2.polylines(tone, spots, False, gecko.tone * 1.9, stripe, cv2.LINE_AA, _SUBPIXEL_BITS)
        alpha = mask.astype(np.float32) / 255
        ground = self._ground * (1 - 0.5 * self._shadow(mask, 1.0))
        relief = _relief(_blur(mask, 4.0 * self._scale), 0.035 * self._scale)
        light = ground * (1 - alpha) + tone + (34 * relief) * alpha
        return self._sense(light * self._vignette)

    def _sense(self, light: _Floats) -> NDArray[np.uint8]:
        """Add photon noise, and count."""
        y, x = (int(self._rng.integers(n // 2)) for n in self._shape)
        noise = self._photons[y : y + self._shape[0], x : x + self._shape[1]]
        light += noise * np.sqrt(light)
        return np.clip(light, 0, 255).astype(np.uint8)


def _blur(image: _Pixels, sigma: float) -> _Pixels:
    size = 2 * round(2.45 * sigma) + 1
    return cast("_Pixels", cv2.stackBlur(image, (size, size)))


def _relief(height: NDArray[Any], scale: float = 1.0) -> _Floats:
    """Return how much more a surface is lit where it faces the light: -1 .. 1."""
    dx = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.075 * scale)
    dy = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.1 * scale)
    return (dx + dy).clip(-1, 1)

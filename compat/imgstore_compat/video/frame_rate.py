"""The rate at which a recording is made: as its metadata say, or as its frame times show."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

_FRAMES = 8
_SECONDS = 0.5

_SLOWEST, _FASTEST = 1e-5, 1e6
_SLOWEST_SHOWN = 1.0

# Recordings keep the rate that they began with, unless it changes by more than cameras waver.
_TOLERANCE = 0.1


def recorded_rate(metadata: Mapping[str, Any]) -> float | None:
    """Return the camera's frames per second, where Motif's keys of user metadata say it."""
    keys = ["hwframerate", "motifptpframerate"]
    if metadata.get("acquisitionframerateenable") is True:
        keys.append("acquisitionframerate")
    return next((rate for key in keys if (rate := _rate(metadata.get(key)))), None)


def _rate(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and _SLOWEST <= value < _FASTEST else None


class FrameRate:
    """Frames per second, measured by the times of the frames that came last.

    Attributes
    ----------
    value
        None as long as it was not measured.
    """

    def __init__(self) -> None:
        self.value: float | None = None
        self._times: deque[float] = deque(maxlen=_FRAMES)

    def add(self, frame_time: float) -> None:
        """Take the time of the next frame."""
        self._times.append(frame_time)

    @property
    def known(self) -> bool:
        """Whether there were frames enough to measure, or so slow ones that there is no time to."""
        return len(self._times) == _FRAMES or bool(self._steps().sum() >= _SECONDS)

    def measure(self) -> None:
        """Set the value, as far as the times show one."""
        steps = self._steps()
        rate = _rate(float(1 / np.median(steps))) if len(steps) else None
        if rate and not (self.value and abs(rate / self.value - 1) < _TOLERANCE):
            self.value = rate

    @property
    def shown(self) -> float | None:
        """The rate that a player should show; None where it was not measured, or is too low for that.

        Frame times may be milliseconds. Then a usual camera seems to take a frame in half a minute; and
        of one that does, nobody wants to see it.
        """
        return self.value if self.value and self.value >= _SLOWEST_SHOWN else None

    def _steps(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        steps = np.diff(self._times)
        return steps[steps > 0]

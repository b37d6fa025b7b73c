"""What a request asks for, read from its address: checked, and never trusted."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import cast

from imgstore_zarr.frames import Window
from imgstore_zarr.viewer.pictures import COLOR_MAPS, FileType, Framing, Look

MOST_PIXELS = 4_096
"""Height and width that a picture may be asked for."""

_INTEGER = re.compile(r"-?\d{1,19}")
_FLOAT = re.compile(r"-?\d{1,20}(\.\d{1,20})?([eE][+-]?\d{1,3})?")
_FILE_TYPES = ("jpeg", "webp", "png")
_LOOK = frozenset({"black", "white", "gamma", "map"})
_FRAMING = frozenset({"height", "width", "window", "type"})


class BadRequestError(Exception):
    """A request that cannot be answered.

    Attributes
    ----------
    status
        Of the answer.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Parameters:
    """The parameters of one request.

    Parameters
    ----------
    given
        By name, as text.
    known
        The names that this request has.

    Raises
    ------
    BadRequestError
        Another one is given.
    """

    def __init__(self, given: Mapping[str, str], known: Collection[str]) -> None:
        if unknown := set(given) - set(known):
            raise BadRequestError(f"{len(unknown)} parameters are not known")
        self._given = given

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """Return an integer from `low` to `high`."""
        text = self._given.get(name)
        if text is None:
            if default is None:
                raise BadRequestError(f"{name} is missing")
            return default
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
            raise BadRequestError(f"{name} must be an integer from {low} to {high}")
        return int(text)

    def number(self, name: str, default: float | None = None) -> float | None:
        """Return a finite number."""
        text = self._given.get(name)
        if text is None:
            return default
        if not _FLOAT.fullmatch(text) or not math.isfinite(float(text)):
            raise BadRequestError(f"{name} must be a finite number")
        return float(text)

    def needed(self, name: str) -> float:
        """Return a finite number that must be given."""
        value = self.number(name)
        if value is None:
            raise BadRequestError(f"{name} is missing")
        return value

    def text(self, name: str) -> str:
        """Return a short text."""
        text = self._given.get(name, "")
        if not 0 < len(text) <= 40:
            raise BadRequestError(f"{name} must have 1 to 40 characters")
        return text

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """Return one of some words."""
        text = self._given.get(name, default)
        if text not in choices:
            raise BadRequestError(f"{name} must be one of {', '.join(choices)}")
        return text

    def look(self) -> Look:
        """Return how pixels are shown."""
        gamma = self.number("gamma", 1.0)
        assert gamma is not None
        if not 0.05 <= gamma <= 20:
            raise BadRequestError("gamma must be from 0.05 to 20")
        return Look(
            self.number("black"),
            self.number("white"),
            gamma,
            self.choice("map", COLOR_MAPS, "gray"),
        )

    def framing(self, image_shape: tuple[int, ...]) -> Framing:
        """Return which part of an image is shown, and how large."""
        return Framing(
            self.integer("height", 1, MOST_PIXELS, 1024),
            self.integer("width", 1, MOST_PIXELS, 1024),
            self._window(image_shape),
            cast("FileType", self.choice("type", _FILE_TYPES, "jpeg")),
        )

    def _window(self, image_shape: tuple[int, ...]) -> Window | None:
        text = self._given.get("window")
        if text is None:
            return None
        ends = text.split(",")
        if len(ends) != 4 or not all(end.isdecimal() and len(end) < 10 for end in ends):
            raise BadRequestError("window must be y0,y1,x0,x1")
        window = Window(*map(int, ends))
        height, width = image_shape[:2]
        if not (window.y0 < window.y1 <= height and window.x0 < window.x1 <= width):
            raise BadRequestError(f"window must lie within {height} x {width} pixels")
        return window


PICTURE = frozenset({"position", "number", "time", "ahead"}) | _LOOK | _FRAMING
"""The parameters of a picture."""

MOVIE = frozenset({"start", "stop", "rate"}) | _LOOK
"""The parameters of a movie."""

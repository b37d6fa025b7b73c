"""What a source of frames is."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray


class Captured(NamedTuple):
    """One frame of a source.

    Attributes
    ----------
    image
        (y, x) or (y, x, channel); colour is BGR.
    frame_number
        The source's own count, from 0.
    frame_time
        In seconds.
    """

    image: NDArray[Any]
    frame_number: int
    frame_time: float


CapturedFrames = Generator[Captured, None, None]
"""Frames as a source gives them; ``close`` ends it."""


class Source(Protocol):
    """Where frames come from; another thread may read it than the one that opened it."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def count(self) -> int | None:
        """How many frames there are; None where they go on until somebody ends it."""
        ...

    def frames(self) -> CapturedFrames:
        """Iterate over all frames, once; what is open is closed when that ends."""
        ...

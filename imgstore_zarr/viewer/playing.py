"""Playing: how the page begins."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Playing:
    """How the page begins.

    Attributes
    ----------
    fps
        Frames per second to play at; None is the rate of the recording.
    playing
        Whether it begins to play by itself.
    status_bar
        Whether frame number and time are shown.
    """

    fps: float | None = None
    playing: bool = False
    status_bar: bool = True

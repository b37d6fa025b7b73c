"""Lookup: the position of what a user asks for, or an error that helps."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from imgstore_zarr.errors import FrameNotFoundError
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.layouts import Parts


@dataclass(frozen=True)
class Lookup:
    """Looks for frames of a recording; see `ImgStore.get_image` and `ImgStore.get_nearest_image`."""

    parts: Parts

    @property
    def _index(self) -> FrameIndex:
        return self.parts.index

    @property
    def _name(self) -> str:
        return self.parts.info.name

    def position(self, frame_index: Any) -> int:
        """Return a position as an integer, if there is such a one."""
        try:
            whole = isinstance(frame_index, float) and frame_index.is_integer()
            position = int(frame_index) if whole else operator.index(frame_index)
        except TypeError as error:
            raise FrameNotFoundError(
                f"{self._name}: {frame_index!r} is no position; give an integer"
            ) from error
        if not 0 <= position < len(self._index):
            raise self._not_found(
                f"there is no position {position}",
                f"the recording has positions 0 .. {len(self._index) - 1}",
            )
        return position

    def number(self, frame_number: Any, exact_only: bool) -> int:
        """Return the position of a frame number, or of the nearest one."""
        index = self._index
        find = index.position_of_number if exact_only else index.position_nearest_number
        try:
            position = find(frame_number)
        except TypeError as error:
            raise FrameNotFoundError(
                f"{self._name}: {frame_number!r} is no frame number; give an integer"
            ) from error
        if position is None:
            numbers = index.frame_number
            span = f"{numbers.min()} to {numbers.max()}" if len(index) else "none"
            raise self._not_found(
                f"no frame has the number {frame_number}",
                f"the {len(index)} frames have numbers from {span}; exact_only=False gives the nearest",
            )
        return position

    def nearest_time(self, frame_time: Any) -> int:
        """Return the position of the frame whose time is nearest."""
        try:
            position = self._index.position_nearest_time(frame_time)
        except (TypeError, ValueError) as error:
            raise FrameNotFoundError(
                f"{self._name}: {frame_time!r} is no time; give seconds"
            ) from error
        if position is None:
            raise self._not_found(
                f"none of the {len(self._index)} frames is near {frame_time}",
                "give seconds; frames of which the time is not known are near none",
            )
        return position

    def _not_found(self, what: str, hint: str) -> FrameNotFoundError:
        if why := self.parts.left_out():
            hint = f"it may be in a chunk that is left out: {why}"
        elif not len(self._index):
            hint = "the recording has no frames"
        return FrameNotFoundError(f"{self._name}: {what}; {hint}")

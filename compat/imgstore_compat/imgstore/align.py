"""``imgstore.align``: the images of several recordings, by their frame numbers."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr import FrameMismatchError, FrameNotFoundError, ImgStore, UnsupportedFormatError

__all__ = ["StoreAligner"]

Image = NDArray[Any]


class StoreAligner:
    """Go through recordings side by side.

    Parameters
    ----------
    *stores
        Recordings with images of one shape.

    Raises
    ------
    FrameMismatchError
        Their images have different shapes, or no recording was given.
    """

    MISSING_POLICY_DROP = "drop"
    MISSING_POLICY_HOLD = "zoh"
    MISSING_POLICY_BLACK = "black"

    _POLICIES = (MISSING_POLICY_DROP, MISSING_POLICY_HOLD, MISSING_POLICY_BLACK)

    def __init__(self, *stores: ImgStore) -> None:
        if len({store.image_shape for store in stores}) != 1:
            shapes = "".join(f"; {store.filename}: {store.image_shape}" for store in stores)
            raise FrameMismatchError(f"align recordings with images of one shape{shapes}")
        self._stores = stores
        self._numbers: NDArray[np.int64] = np.empty(0, np.int64)
        self._policy = ""

    def extract_common_frames(self, policy: str) -> NDArray[np.int64]:
        """Choose the frames that `iter_imgs` goes through.

        Parameters
        ----------
        policy
            Where a recording lacks a frame: `MISSING_POLICY_DROP` leaves the frame out of all,
            `MISSING_POLICY_HOLD` repeats the image before (black before the first), and
            `MISSING_POLICY_BLACK` gives a black image.

        Returns
        -------
        ndarray
            int64, the frame numbers, ascending, each once.

        Raises
        ------
        UnsupportedFormatError
            Another policy.
        """
        if policy not in self._POLICIES:
            raise UnsupportedFormatError(
                f"unknown policy {policy!r} for missing frames; known are {self._POLICIES}"
            )
        drop = policy == self.MISSING_POLICY_DROP
        numbers = [np.unique(store.index.frame_number) for store in self._stores]
        self._numbers = functools.reduce(np.intersect1d if drop else np.union1d, numbers)
        self._policy = policy
        return self._numbers.copy()

    def iter_imgs(self, return_times: bool = False) -> Iterator[tuple[Any, ...]]:
        """Iterate over the chosen frames.

        Parameters
        ----------
        return_times
            Give the frame times, too.

        Returns
        -------
        iterator
            Of (frame_number, images) or (frame_number, images, times), with one image and one time
            (in seconds, NaN where the frame is missing) per recording.

        Raises
        ------
        FrameNotFoundError
            There are no frames to go through; `extract_common_frames` chooses them.
        """
        if not len(self._numbers):
            names = ", ".join(store.filename for store in self._stores)
            raise FrameNotFoundError(
                f"no frames of {names} are chosen: call extract_common_frames first"
                if not self._policy
                else f"{names} have no frames that the policy {self._policy!r} keeps"
            )
        return self._iterate(self._numbers, self._policy, return_times)

    def _iterate(
        self, numbers: NDArray[np.int64], policy: str, return_times: bool
    ) -> Iterator[tuple[Any, ...]]:
        # What is repeated is kept apart from what is handed out, which the caller may change.
        before = [np.zeros(store.image_shape, store.dtype) for store in self._stores]
        for number in numbers.tolist():
            images: list[Image] = []
            times: list[float] = []
            for i, store in enumerate(self._stores):
                position = store.index.position_of_number(number)
                if position is None:
                    images.append(before[i].copy())
                    times.append(np.nan)
                    continue
                image, (_, time) = store.get_image(frame_index=position)
                if policy == self.MISSING_POLICY_HOLD:
                    before[i] = image.copy()
                images.append(image)
                times.append(time)
            yield (number, images, times) if return_times else (number, images)

"""A camera as a source, by OpenCV."""

from __future__ import annotations

import time

from imgstore_zarr.capture.source import Captured, CapturedFrames
from imgstore_zarr.errors import ImgStoreError, RecordingNotFoundError
from imgstore_zarr.pixels import ensure_gray


class Camera:
    """The frames of a camera, with the time at which each was there.

    Parameters
    ----------
    number
        OpenCV's number of it; 0 is the first.
    gray
        Make images gray, as OpenCV gives those of many gray cameras in colour.

    Raises
    ------
    RecordingNotFoundError
        OpenCV finds no such camera.
    """

    count = None

    def __init__(self, number: int, *, gray: bool) -> None:
        import cv2
        from cv2.utils import logging as log

        self.name = f"camera {number}"
        self._gray = gray
        # What OpenCV looked for in vain is no news for people.
        before = log.setLogLevel(log.LOG_LEVEL_SILENT)
        try:
            self._device = cv2.VideoCapture(number)
        finally:
            log.setLogLevel(before)
        if not self._device.isOpened():
            self._device.release()
            raise RecordingNotFoundError(
                f"OpenCV finds no camera {number}; is it connected, and may this user read it "
                "(/dev/video*, privacy settings)? To record from a file or from images, name them by "
                "--source"
            )

    def frames(self) -> CapturedFrames:
        """Iterate over frames as they come, until the camera gives no more.

        Raises
        ------
        ImgStoreError
            It gives no more.
        """
        number = 0
        try:
            while self._device.grab():
                now = time.time()
                there, image = self._device.retrieve()
                if not there:
                    break
                yield Captured(ensure_gray(image) if self._gray else image, number, now)
                number += 1
            raise ImgStoreError(f"{self.name} gives no more frames; is it still connected?")
        finally:
            self._device.release()

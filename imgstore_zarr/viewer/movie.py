"""Movie: a range of frames as an mp4 file, made while the page asks how far it is."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import CorruptChunkError, ImgStoreError
from imgstore_zarr.video.encoder import EncoderOptions, VideoEncoder
from imgstore_zarr.viewer.pictures import Look, displayable, in_look
from imgstore_zarr.viewer.viewed import Viewed

MOST_FRAMES = 50_000
"""Frames in one movie."""


@dataclass(frozen=True)
class MovieSpec:
    """What a movie shows.

    Attributes
    ----------
    start, stop
        Positions, as a half-open range.
    rate
        Frames per second.
    look
        How pixels are shown.
    """

    start: int
    stop: int
    rate: float
    look: Look


class Movie:
    """Encodes in a thread of its own; the file is gone when the movie is closed.

    Parameters
    ----------
    viewed
        The recording.
    spec
        What of it.
    """

    def __init__(self, viewed: Viewed, spec: MovieSpec) -> None:
        self.name = f"{viewed.name}-{spec.start}-{spec.stop - 1}.mp4"
        self._viewed, self._spec = viewed, spec
        self._directory = tempfile.TemporaryDirectory(prefix="imgstore-view-")
        self.path = Path(self._directory.name) / "movie.mp4"
        self._stopped = threading.Event()
        self.done = 0
        self.trouble: str | None = None
        self.finished = False
        self._thread = threading.Thread(target=self._run, name="view-movie", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether frames are still to come."""
        return not self.finished and self.trouble is None

    def state(self) -> dict[str, Any]:
        """Return how far it is."""
        return {
            "name": self.name,
            "done": self.done,
            "total": self._spec.stop - self._spec.start,
            "finished": self.finished,
            "trouble": self.trouble,
        }

    def _run(self) -> None:
        from av.error import FFmpegError

        try:
            self._encode()
        except (ImgStoreError, FFmpegError, OSError) as error:
            self.trouble = self._viewed.without_path(str(error)).replace(str(self.path), self.name)
        else:
            self.finished = not self._stopped.is_set()

    def _encode(self) -> None:
        encoder: VideoEncoder | None = None
        frames = self._viewed.store.frames
        with contextlib.ExitStack() as stack:
            for position in range(self._spec.start, self._spec.stop):
                if self._stopped.is_set():
                    return
                image = _even(in_look(displayable(frames[position]), self._spec.look))
                if encoder is None:
                    options = EncoderOptions(fps=self._spec.rate)
                    encoder = VideoEncoder(self.path, "libx264", image.shape, options)
                    stack.callback(encoder.close)
                encoder.write(image)
                self.done += 1

    def close(self) -> None:
        """Stop, and remove the file."""
        self._stopped.set()
        self._thread.join()
        self._directory.cleanup()


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image without its last row and column, where it has an odd number of them."""
    height, width = (n & -2 for n in image.shape[:2])
    if not height or not width:
        raise CorruptChunkError("a movie needs images of at least 2 x 2 pixels")
    return image[:height, :width]

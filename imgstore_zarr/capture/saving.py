"""save: what a source gives becomes a recording."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from imgstore_zarr.capture.buffer import Buffer
from imgstore_zarr.capture.source import CapturedFrames, Source
from imgstore_zarr.errors import ImgStoreError, RecordingNotFoundError
from imgstore_zarr.formats import create
from imgstore_zarr.report import counted


@dataclass(frozen=True)
class State:
    """How saving goes.

    Attributes
    ----------
    frames
        Written so far.
    total
        How many there will be; None where that is not known.
    fill
        Which part of the buffer is taken, 0 to 1.
    dropped
        Frames of a camera that found no room in it.
    """

    frames: int
    total: int | None
    fill: float
    dropped: int


@dataclass(frozen=True)
class Saved:
    """What was saved.

    Attributes
    ----------
    source, destination, format
        From where, to where, and in which form.
    frame_count
        Of the recording.
    dropped
        Frames of a camera that were not recorded, since writing was too slow. Their numbers are missing.
    duration
        From the first to the last frame, in seconds.
    seconds
        How long saving took.
    frames_per_second
        What was written in them.
    interrupted
        Whether it was stopped before the end that it has.
    """

    source: str
    destination: str
    format: str
    frame_count: int
    dropped: int
    duration: float
    seconds: float
    frames_per_second: float
    interrupted: bool


def save(
    source: Source,
    destination: object,
    format: str,
    *,
    frames: int | None = None,
    duration: float | None = None,
    chunksize: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[State], None] | None = None,
    stop: threading.Event | None = None,
) -> Saved:
    """Record what a source gives; whatever ends it, the recording is whole.

    A thread reads the source while this one writes. A camera does not wait: what finds no room in the
    buffer between them is dropped, and its frame number is missing. Other sources wait.

    Parameters
    ----------
    source
        From `open_source`.
    destination, format, chunksize, metadata, storage_options
        See `imgstore_zarr.create`.
    frames
        At most so many; a frame that is dropped counts.
    duration
        Only frames that are less than so many seconds after the first, by their frame times.
    progress
        Is called after each frame.
    stop
        Once it is set, the source is read no more, and what was read is written.

    Returns
    -------
    Saved
        What was saved.

    Raises
    ------
    RecordingNotFoundError
        The source gives no frame; nothing is written.
    RecordingExistsError, UnsupportedFormatError, RecordingAccessError
        See `imgstore_zarr.create`.
    ImgStoreError
        What the source, or the writer, raises later on. The recording keeps the frames before.
    """
    began = time.monotonic()
    stop = stop or threading.Event()
    count = source.count
    ends = not all(limit is None for limit in (count, frames, duration))
    total = min((n for n in (count, frames) if n is not None), default=None)
    wanted = _limited(source.frames(), frames, duration)
    with contextlib.closing(Buffer(wanted, drops=count is None, stop=stop)) as buffer:
        captured = iter(buffer)
        first = next(captured, None)
        if first is None:
            raise buffer.error or RecordingNotFoundError(
                f"{source.name} gave no frames; nothing was written"
            )
        # Meanwhile the camera is read already.
        with create(
            destination,
            format,
            first.image.shape,
            first.image.dtype.newbyteorder("="),
            chunksize=chunksize,
            metadata=metadata,
            storage_options=storage_options,
        ) as writer:
            for image, number, moment in itertools.chain([first], captured):
                writer.add_image(image, number, moment)
                if progress is not None:
                    progress(State(len(writer), total, buffer.fill, buffer.dropped))
        interrupted = stop.is_set()
    if isinstance(buffer.error, ImgStoreError):
        raise type(buffer.error)(
            f"{buffer.error}; {writer.filename} holds the {counted(len(writer), 'frame')} before that"
        ) from buffer.error
    if buffer.error is not None:
        raise buffer.error
    seconds = time.monotonic() - began
    return Saved(
        source=source.name,
        destination=writer.filename,
        format=writer.format,
        frame_count=len(writer),
        dropped=buffer.dropped,
        duration=writer.duration,
        seconds=seconds,
        frames_per_second=len(writer) / seconds,
        interrupted=interrupted and ends,
    )


def _limited(given: CapturedFrames, most: int | None, duration: float | None) -> CapturedFrames:
    """Frames up to a limit."""
    end = None
    with contextlib.closing(given):
        for frame in itertools.islice(given, most):
            if end is None and duration is not None:
                end = frame.frame_time + duration
            if end is not None and frame.frame_time >= end:
                return
            yield frame

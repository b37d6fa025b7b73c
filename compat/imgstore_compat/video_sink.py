"""VideoSink: writes a recording in video chunks, as imgstore 0.4.0 reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from imgstore_compat.chunk_index import SUFFIXES, dump_chunk_index
from imgstore_compat.metadata import FILE, LOCK_FILE, dump_metadata
from imgstore_zarr.errors import UnsupportedFormatError
from imgstore_zarr.extra import dump_record
from imgstore_zarr.recording import RecordingInfo, RecordingSpec
from imgstore_zarr.storage import Directory, access_error
from imgstore_zarr.video import EncoderOptions, VideoEncoder

DEFAULT_CHUNKSIZE = 10_000

CODECS: Mapping[str, str] = {"avc1/mp4": "libx264", "h264/mkv": "libx264", "mjpeg/avi": "mjpeg"}


class VideoSink:
    """The writer of the video layout.

    Parameters
    ----------
    location
        Where the recording is made.
    spec
        What it will be.
    options
        How frames are encoded.
    """

    def __init__(self, location: Directory, spec: RecordingSpec, options: EncoderOptions) -> None:
        if spec.imgdtype != np.uint8 or (len(spec.imgshape) == 3 and spec.imgshape[2] != 3):
            raise UnsupportedFormatError(
                f"{spec.format} holds uint8 images, gray (y, x) or BGR (y, x, 3), not "
                f"{spec.imgdtype} {spec.imgshape}; Zarr formats hold any"
            )
        height, width = (n & -2 for n in spec.imgshape[:2])
        if not height or not width:
            raise UnsupportedFormatError(f"{spec.format} cannot hold images of {spec.imgshape}")
        self._location = location
        self._options = options
        self._cut = (slice(height), slice(width))
        self._extension = "." + spec.format.split("/")[1]
        stored = (height, width, *spec.imgshape[2:])
        self._info = spec.info(
            name=location.name,
            layout="video",
            stored_shape=stored,
            imgshape=stored,
            encoding=spec.encoding,
            chunksize=spec.chunksize or DEFAULT_CHUNKSIZE,
            lossless=False,
        )
        self._begin()
        text = dump_metadata(
            spec,
            store_class="VideoImgStore",
            stored_shape=stored,
            chunksize=self._info.chunksize,
            extension=self._extension,
        )
        try:
            location.write(FILE, text)
            location.write(LOCK_FILE, b"")
        except OSError as error:
            raise access_error(location, "writing", error) from error

    def _begin(self) -> None:
        self._chunk = 0
        self._encoder: VideoEncoder | None = None
        self._numbers: list[int] = []
        self._times: list[float] = []
        self._extra: IO[str] | None = None

    @property
    def info(self) -> RecordingInfo:
        """The recording that is being written."""
        return self._info

    @property
    def _stem(self) -> str:
        return f"{self._chunk:06d}"

    def append(self, image: NDArray[Any], frame_number: int, frame_time: float) -> None:
        """Encode one image; odd sizes lose their last row or column, as in imgstore."""
        if self._encoder is None:
            self._encoder = VideoEncoder(
                self._location.root / (self._stem + self._extension),
                CODECS[self._info.format],
                self._info.stored_shape,
                self._options,
            )
        self._encoder.write(image[self._cut])
        self._numbers.append(frame_number)
        self._times.append(frame_time)
        if len(self._numbers) == self._info.chunksize:
            self._finish_chunk()

    def add_extra(self, record: dict[str, Any]) -> None:
        """Append a record to the JSON list beside the chunk."""
        text = dump_record(record)
        if self._extra is None:
            path = self._location.root / f"{self._stem}.extra.json"
            self._extra = path.open("w", encoding="utf-8")
            self._extra.write("[" + text)
        else:
            self._extra.write(", " + text)

    def _finish_chunk(self) -> None:
        """Finish the video before its index says that the frames are there."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None
            index = dump_chunk_index(self._numbers, self._times)
            self._location.write(f"{self._stem}.npz", index)
        if self._extra is not None:
            self._extra.write("]")
            self._extra.close()
            self._extra = None
        if self._numbers:
            self._chunk += 1
            self._numbers, self._times = [], []

    def flush(self) -> None:
        """Finish the open chunk early: a video file is whole only once it is closed."""
        self._finish_chunk()

    def empty(self) -> None:
        """Remove every chunk; the recording stays and can be written to."""
        self._finish_chunk()
        ends = (self._extension, ".extra.json", *SUFFIXES)
        for name in self._location.names():
            stem, dot, end = name.partition(".")
            if stem.isdigit() and dot + end in ends:
                self._location.delete(name)
        self._begin()

    def close(self) -> None:
        """Finish the last chunk and let go of the recording."""
        self._finish_chunk()
        self._location.delete(LOCK_FILE)


def encoder_options(spec: RecordingSpec) -> EncoderOptions:
    """Return the options that a spec gives for the encoder.

    Raises
    ------
    UnsupportedFormatError
        An option that there is not, or a value that cannot be.
    """
    for name in ("inner_chunks", "durable"):
        if getattr(spec, name):
            raise UnsupportedFormatError(f"{name} is for Zarr formats, not {spec.format}")
    mjpeg = CODECS[spec.format] == "mjpeg"
    known = ["fps"] if mjpeg else list(EncoderOptions.__dataclass_fields__)
    for name in spec.options:
        if name not in known:
            raise UnsupportedFormatError(
                f"{spec.format} has no option {name!r}; known are {', '.join(known)}"
            )
    return EncoderOptions(**spec.options)

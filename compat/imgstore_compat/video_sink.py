"""VideoSink: writes a recording in video chunks, as imgstore 0.4.0 reads them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from imgstore_compat.chunk_index import SUFFIXES, dump_chunk_index
from imgstore_compat.metadata import FILE, LOCK_FILE, dump_metadata
from imgstore_zarr.errors import (
    ChunkMissingError,
    CorruptChunkError,
    ImgStoreError,
    UnsupportedFormatError,
)
from imgstore_zarr.extra import dump_record
from imgstore_zarr.recording import RecordingInfo, RecordingSpec
from imgstore_zarr.storage import Directory, access_error
from imgstore_zarr.video import EncoderOptions, VideoEncoder, VideoFile

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
        self._extra: IO[bytes] | None = None
        self._extra_stem = ""
        self._trouble = ""

    @property
    def info(self) -> RecordingInfo:
        """The recording that is being written."""
        return self._info

    @property
    def chunk_count(self) -> int:
        """Chunks that are complete."""
        return self._chunk

    def _stem(self, chunk: int) -> str:
        return f"{chunk:06d}"

    @property
    def _video(self) -> str:
        return self._stem(self._chunk) + self._extension

    def append(self, image: NDArray[Any], frame_number: int, frame_time: float) -> None:
        """Encode one image; odd sizes lose their last row or column, as in imgstore."""
        if self._trouble:
            raise CorruptChunkError(self._refusal())
        # A full chunk is finished only now, so that extra data of its last frame still lie beside it.
        if self._times and (self._encoder is None or len(self._times) == self._info.chunksize):
            self._finish_chunk()
        with self._in_doubt(f"at frame {frame_number}"):
            if self._encoder is None:
                self._encoder = VideoEncoder(
                    self._location.root / self._video,
                    CODECS[self._info.format],
                    self._info.stored_shape,
                    self._options,
                )
            self._encoder.write(image[self._cut])
            self._numbers.append(frame_number)
            self._times.append(frame_time)

    @contextlib.contextmanager
    def _in_doubt(self, where: str) -> Iterator[None]:
        """Whatever interrupts this, nobody knows what is in the video: no more frames are taken."""
        from av.error import FFmpegError

        self._trouble = f"chunk {self._chunk} could not be written {where}"
        try:
            yield
        except (FFmpegError, OSError) as error:
            raise CorruptChunkError(f"{self._refusal()} ({error})") from error
        self._trouble = ""

    def _refusal(self) -> str:
        return (
            f"{self._location.name}: {self._trouble}; no more frames are taken, close() keeps those "
            "before"
        )

    def add_extra(self, record: dict[str, Any]) -> None:
        """Append a record to the JSON list beside the chunk of the last frame."""
        text = dump_record(record).encode()
        stem = self._stem(self._chunk if self._times else max(0, self._chunk - 1))
        if stem != self._extra_stem:
            self._close_extra()
            self._extra = self._extra_path(stem).open("wb")
            self._extra_stem = stem
            self._extra.write(b"[" + text)
            return
        if self._extra is None:
            self._extra = self._extra_path(stem).open("r+b")
            self._extra.seek(-len(b"]"), os.SEEK_END)
        self._extra.write(b", " + text)

    def _extra_path(self, stem: str) -> Path:
        return self._location.root / f"{stem}.extra.json"

    def _close_extra(self) -> None:
        if self._extra is not None:
            file, self._extra = self._extra, None
            with file:
                file.write(b"]")

    def _finish_chunk(self) -> None:
        try:
            self._finish_video()
        finally:
            self._close_extra()

    def _finish_video(self) -> None:
        """Finish the video before its index says that the frames are there."""
        count = len(self._times)
        if self._trouble:
            kept = self._rescue()
        else:
            if self._encoder is not None:
                with self._in_doubt("at its end"):
                    self._close_encoder()
            kept = count
        if kept:
            index = dump_chunk_index(self._numbers[:kept], self._times[:kept])
            self._location.write(f"{self._stem(self._chunk)}.npz", index)
            self._chunk += 1
        self._numbers, self._times = [], []
        if kept < count:
            raise CorruptChunkError(
                f"{self._location.name}: {self._trouble}; of the {count} frames before, the first "
                f"{kept} are in the video, the others are lost"
            )

    def _close_encoder(self) -> None:
        if self._encoder is not None:
            encoder, self._encoder = self._encoder, None
            encoder.close()

    def _rescue(self) -> int:
        """Finish a video that failed; return how many of the frames that were taken are in it."""
        from av.error import FFmpegError

        with contextlib.suppress(FFmpegError, OSError):
            self._close_encoder()
        if not self._times:
            self._location.delete(self._video)
            return 0
        file = VideoFile(self._location.root / self._video)
        try:
            return min(len(self._times), len(file))
        except (ChunkMissingError, CorruptChunkError, UnsupportedFormatError):
            return 0
        finally:
            file.close()

    def flush(self) -> None:
        """Finish the open chunk early: a video file is whole only once it is closed."""
        self._finish_chunk()

    def empty(self) -> None:
        """Remove every chunk; the recording stays and can be written to."""
        with contextlib.suppress(ImgStoreError, OSError):
            self._finish_chunk()
        ends = (self._extension, ".extra.json", *SUFFIXES)
        for name in self._location.names():
            stem, dot, end = name.partition(".")
            if stem.isdecimal() and dot + end in ends:
                self._location.delete(name)
        self._begin()

    def close(self) -> None:
        """Finish the last chunk and let go of the recording."""
        try:
            self._finish_chunk()
        finally:
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

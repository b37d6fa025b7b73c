"""VideoSink: writes a recording in video chunks, as imgstore 0.4.0 reads them."""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_compat.chunk_index import dump_chunk_index
from imgstore_compat.chunk_journal import SUFFIX as JOURNAL
from imgstore_compat.chunk_journal import ChunkJournal
from imgstore_compat.extra_writer import SUFFIX as EXTRA
from imgstore_compat.extra_writer import ExtraWriter
from imgstore_compat.metadata import dump_metadata
from imgstore_compat.open_recording import OpenRecording, check_options
from imgstore_compat.video.frame_rate import FrameRate, recorded_rate
from imgstore_compat.video.insertion import check_insertable
from imgstore_compat.video.recovery import finish_video, unfinished_copy
from imgstore_zarr.errors import (
    CorruptChunkError,
    ImgStoreError,
    UnsupportedFormatError,
)
from imgstore_zarr.index import Float64s, Int64s
from imgstore_zarr.recording import RecordingInfo, RecordingSpec
from imgstore_zarr.storage import Directory
from imgstore_zarr.video import EncoderOptions, VideoEncoder, whole_frames

DEFAULT_CHUNKSIZE = 10_000

INDEX = ".npz"

CODECS: Mapping[str, str] = {"avc1/mp4": "libx264", "h264/mkv": "libx264", "mjpeg/avi": "mjpeg"}

# Two frames of a faster video would have the same time: Matroska counts milliseconds, and FFmpeg
# takes no more for AVI.
_FASTEST = {"avc1/mp4": 1e6, "h264/mkv": 1000.0, "mjpeg/avi": 1000.0}

# FFmpeg takes 32 bits.
_LARGEST_OPTION = 2**31 - 1


class VideoSink:
    """The writer of the video layout.

    Every frame gets a record in the journal of its chunk, and its video is written piece by piece: a
    killed process leaves all frames but those of about the last second, or the last one. The first
    few frames are held back until they have shown at which rate they come.

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
        asked_for = options.fps if spec.options.get("fps") is not None else None
        self._known_fps = asked_for or recorded_rate(spec.metadata)
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
        text = dump_metadata(
            spec,
            store_class="VideoImgStore",
            stored_shape=stored,
            chunksize=self._info.chunksize,
            extension=self._extension,
        )
        self._begin()
        self._recording = OpenRecording(location, text)

    def _begin(self) -> None:
        self._chunk = 0
        self._rate = FrameRate()
        self._encoder: VideoEncoder | None = None
        self._waiting: list[NDArray[np.uint8]] = []
        self._numbers: list[int] = []
        self._times: list[float] = []
        self._journal: ChunkJournal | None = None
        self._extra = ExtraWriter(self._location.root)
        self._trouble = ""

    def _forget_chunk(self) -> None:
        """Be rid of the journal of a chunk that has its index, or is given up."""
        self._numbers, self._times = [], []
        if self._journal is not None:
            self._journal.discard()
            self._journal = None

    @property
    def info(self) -> RecordingInfo:
        """The recording that is being written."""
        return self._info

    @property
    def chunk_count(self) -> int:
        """Chunks that are complete."""
        return self._chunk

    @property
    def _stem(self) -> str:
        return f"{self._chunk:06d}"

    @property
    def _video(self) -> Path:
        return self._location.root / (self._stem + self._extension)

    def append(self, image: NDArray[Any], frame_number: int, frame_time: float) -> None:
        """Encode one image; odd sizes lose their last row or column, as in imgstore."""
        if self._trouble:
            raise CorruptChunkError(self._refusal())
        # A full chunk is finished only now, so that extra data of its last frame still lie beside it.
        if self._is_full():
            self._finish_chunk()
        with self._in_doubt(f"at frame {frame_number}"):
            # Before its pixels: the video alone says how many frames of the journal are there.
            self._open_journal().append(frame_number, frame_time)
            self._rate.add(frame_time)
            if self._encoder is None and not self._rate.known:
                self._waiting.append(image[self._cut].copy())
            else:
                self._encode_waiting()
                self._encode(image[self._cut])
            self._numbers.append(frame_number)
            self._times.append(frame_time)

    def _open_journal(self) -> ChunkJournal:
        if self._journal is None:
            self._journal = ChunkJournal(self._location.root / (self._stem + JOURNAL))
        return self._journal

    def _is_full(self) -> bool:
        # A chunk whose index could not be written has no encoder any more.
        closed = self._encoder is None and not self._waiting
        return len(self._times) == self._info.chunksize or (closed and bool(self._times))

    def _encode_waiting(self) -> None:
        for image in self._waiting:
            self._encode(image)
        self._waiting = []

    def _encode(self, image: NDArray[np.uint8]) -> None:
        if self._encoder is None:
            self._rate.measure()
            fps = self._known_fps or self._rate.shown or self._options.fps
            self._encoder = VideoEncoder(
                self._video,
                CODECS[self._info.format],
                self._info.stored_shape,
                dataclasses.replace(self._options, fps=min(fps, _FASTEST[self._info.format])),
                held_back=int((self._rate.value or fps) / 2),
            )
        self._encoder.write(image)

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
        chunk = self._chunk if self._times else max(0, self._chunk - 1)
        self._extra.append(f"{chunk:06d}", record)

    def _finish_chunk(self) -> None:
        try:
            self._finish_video()
        finally:
            self._extra.close()

    def _finish_video(self) -> None:
        """Finish the video before its index says that the frames are there."""
        count = len(self._times)
        if self._trouble:
            kept = self._rescue()
        else:
            with self._in_doubt("at its end"):
                self._encode_waiting()
                self._close_encoder()
            kept = count
        if kept:
            index = dump_chunk_index(self._numbers[:kept], self._times[:kept])
            self._location.write(self._stem + INDEX, index)
            self._chunk += 1
        self._forget_chunk()
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

        if self._encoder is None and not self._times:
            return 0
        with contextlib.suppress(FFmpegError, OSError, CorruptChunkError):
            if self._encoder is None:
                self._encode_waiting()
            self._close_encoder()
        self._waiting = []
        try:
            return finish_video(self._video, len(self._times))
        except (FFmpegError, OSError):
            return min(len(self._times), whole_frames(self._video))

    def insert_chunk(
        self, path: Path, frame_numbers: Int64s, frame_times: Float64s, *, move: bool
    ) -> None:
        """Make a finished video the next chunk; see `InsertsChunks`. What is refused changes nothing."""
        if self._trouble:
            raise CorruptChunkError(self._refusal())
        path = path.resolve()
        complete = self._chunk + bool(self._times)
        check_insertable(path, self._info, self._location, complete, len(frame_numbers))
        self._finish_chunk()
        rename = move and path.stat().st_dev == self._location.root.stat().st_dev
        temporary = unfinished_copy(self._video)
        try:
            # As for other chunks: with a journal before there are frames, until there is an index.
            self._numbers, self._times = frame_numbers.tolist(), frame_times.tolist()
            journal = self._open_journal()
            for pair in zip(self._numbers, self._times, strict=True):
                journal.append(*pair)
            if rename:
                path.rename(self._video)
            else:
                shutil.copyfile(path, temporary)
                temporary.replace(self._video)
        except BaseException:
            temporary.unlink(missing_ok=True)
            if rename and not path.exists():
                self._video.rename(path)
            self._forget_chunk()
            raise
        self._finish_chunk()
        if move and not rename:
            path.unlink()

    def flush(self) -> None:
        """Finish the open chunk early: only so the encoder gives the frames that it holds back."""
        self._finish_chunk()

    def empty(self) -> None:
        """Remove every chunk that was written; the recording stays and can be written to."""
        with contextlib.suppress(ImgStoreError, OSError):
            self._finish_chunk()
        self._forget_chunk()
        for chunk in range(self._chunk + 1):
            for end in (self._extension, EXTRA, INDEX):
                self._location.delete(f"{chunk:06d}{end}")
        self._begin()

    def close(self) -> None:
        """Finish the last chunk and let go of the recording."""
        try:
            self._finish_chunk()
        finally:
            if self._journal is not None:
                self._journal.close()
            self._recording.close()


def encoder_options(spec: RecordingSpec) -> EncoderOptions:
    """Return the options that a spec gives for the encoder.

    Raises
    ------
    UnsupportedFormatError
        An option that there is not, or a value that cannot be.
    """
    mjpeg = CODECS[spec.format] == "mjpeg"
    check_options(spec, ["fps"] if mjpeg else list(EncoderOptions.__dataclass_fields__))
    given = {name: value for name, value in spec.options.items() if value is not None}
    options = EncoderOptions(**{name: _option(name, value) for name, value in given.items()})
    if options.fps > _FASTEST[spec.format]:
        raise UnsupportedFormatError(
            f"fps must be at most {_FASTEST[spec.format]:g} for {spec.format}, not {options.fps!r}; "
            "frame times do not depend on it"
        )
    return options


def _option(name: str, value: Any) -> Any:
    """An option of the encoder as its own type, from any type of number."""
    if name == "preset":
        if isinstance(value, str):
            return value
        raise UnsupportedFormatError(f"preset must be a name, not {value!r}")
    kind: Any = numbers.Integral if name == "gop" else numbers.Real
    # What a bool would mean nobody knows.
    if isinstance(value, bool) or not isinstance(value, kind):
        what = "an integer" if name == "gop" else "a number"
        raise UnsupportedFormatError(f"{name} must be {what}, not {value!r}")
    if not abs(value) <= _LARGEST_OPTION:
        raise UnsupportedFormatError(f"{name} cannot be {value!r}")
    return int(value) if name == "gop" else float(value)

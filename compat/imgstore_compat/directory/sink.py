"""DirectorySink: writes a recording in directories of images, as imgstore 0.4.0 reads them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_compat.chunk_index import dump_chunk_index
from imgstore_compat.chunk_journal import SUFFIX as JOURNAL
from imgstore_compat.chunk_journal import ChunkJournal
from imgstore_compat.directory.frames import image_key
from imgstore_compat.directory.image_files import check_image, encode_image, is_lossless
from imgstore_compat.extra_writer import ExtraWriter
from imgstore_compat.metadata import DIRECTORY_CLASS, dump_metadata
from imgstore_compat.open_recording import OpenRecording, check_options, refuse_existing
from imgstore_zarr.errors import RecordingExistsError
from imgstore_zarr.layouts import CONVERSION
from imgstore_zarr.pixels import decode
from imgstore_zarr.recording import RecordingInfo, RecordingSpec
from imgstore_zarr.storage import Directory, access_error

DEFAULT_CHUNKSIZE = 200


class DirectorySink:
    """The writer of the directory layout.

    Every image is a file, and on storage once `append` returns. A chunk has a journal until it is
    full, and then its index.

    Parameters
    ----------
    location
        Where the recording is made.
    spec
        What it will be.
    """

    def __init__(self, location: Directory, spec: RecordingSpec) -> None:
        spec = _stored(spec)
        self._location = location
        self._kind = spec.format
        self._info = spec.info(
            name=location.name,
            layout="directory",
            stored_shape=spec.imgshape,
            encoding=spec.encoding,
            chunksize=spec.chunksize or DEFAULT_CHUNKSIZE,
            lossless=is_lossless(spec.format, spec.imgshape),
        )
        metadata = dump_metadata(
            spec,
            store_class=DIRECTORY_CLASS,
            stored_shape=spec.imgshape,
            chunksize=self._info.chunksize,
        )
        refuse_existing(location)
        refuse_folders(location)
        self._recording = OpenRecording(location, metadata)
        self._begin()

    def _begin(self) -> None:
        self._chunk = 0
        self._journal: ChunkJournal | None = None
        self._numbers: list[int] = []
        self._times: list[float] = []
        self._extra = ExtraWriter(self._location.root)

    @property
    def info(self) -> RecordingInfo:
        """The recording that is being written."""
        return self._info

    @property
    def chunk_count(self) -> int:
        """Chunks that are complete."""
        return self._chunk

    def _stem(self, chunk: int) -> str:
        return f"{chunk:06d}/index"

    def append(self, image: NDArray[Any], frame_number: int, frame_time: float) -> None:
        """Write one image; what interrupts this leaves the recording as it was."""
        data = encode_image(self._kind, image)
        # A full chunk is finished only now, so that extra data of its last frame still lie beside it.
        if len(self._numbers) == self._info.chunksize:
            self._finish_chunk()
        journal = self._journal or self._begin_chunk()
        count = len(self._numbers)
        file = self._location.root / image_key(self._chunk, count, self._kind)
        try:
            self._write(file, data)
            journal.append(frame_number, frame_time)
            self._numbers.append(frame_number)
            self._times.append(frame_time)
        except BaseException:
            del self._numbers[count:], self._times[count:]
            journal.keep(count)
            file.unlink(missing_ok=True)
            raise

    def _write(self, file: Path, data: Sequence[bytes | memoryview]) -> None:
        with file.open("wb") as opened:
            opened.writelines(data)

    def _begin_chunk(self) -> ChunkJournal:
        path = self._location.root / (self._stem(self._chunk) + JOURNAL)
        path.parent.mkdir(exist_ok=True)
        self._journal = ChunkJournal(path)
        return self._journal

    def add_extra(self, record: dict[str, Any]) -> None:
        """Append a record to the JSON list beside the index of the last frame's chunk."""
        if self._numbers or not self._chunk:
            if self._journal is None:
                self._begin_chunk()
            self._extra.append(self._stem(self._chunk), record)
        else:
            self._extra.append(self._stem(self._chunk - 1), record)

    def _finish_chunk(self) -> None:
        self._extra.close()
        if self._journal is not None:
            index = dump_chunk_index(self._numbers, self._times)
            self._location.write(f"{self._stem(self._chunk)}.npz", index)
            self._journal.discard()
            # In one go, whatever interrupts this.
            self._journal, self._chunk, self._numbers, self._times = None, self._chunk + 1, [], []

    def flush(self) -> None:
        """Finish the list of extra data: the images are visible already, and survive this process."""
        self._extra.close()

    def empty(self) -> None:
        """Remove every chunk that was written; the recording stays and can be written to."""
        with contextlib.suppress(OSError):
            self._extra.close()
        if self._journal is not None:
            self._journal.discard()
        for chunk in range(self._chunk + 1):
            self._location.delete(f"{chunk:06d}")
        self._begin()

    def close(self) -> None:
        """Finish the last chunk and let go of the recording."""
        try:
            self._finish_chunk()
        finally:
            if self._journal is not None:
                self._journal.close()
            self._recording.close()


def _stored(spec: RecordingSpec) -> RecordingSpec:
    """What is stored of a spec: under the format's bare name, and decoded if it says ``+color``.

    Raises
    ------
    UnsupportedFormatError
        Something that directories of images do not take.
    """
    check_options(spec, ())
    kind, color, _ = spec.format.removesuffix("/dir").partition("+")
    stored = replace(spec, format=kind)
    if color and spec.encoding:
        shape = decode(np.zeros(spec.imgshape, spec.imgdtype), spec.encoding).shape
        stored = replace(stored, imgshape=shape, encoding=None)
    check_image(kind, stored.imgshape, spec.imgdtype)
    return stored


def refuse_folders(location: Directory) -> None:
    """Raise RecordingExistsError where there are directories, which imgstore would take for chunks."""
    try:
        found = sorted(path.name for path in location.root.iterdir() if path.is_dir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise access_error(location, "looking for a recording", error) from error
    folders = [name for name in found if name != CONVERSION]
    if folders:
        raise RecordingExistsError(
            f"{location.name} holds the directories {', '.join(folders)}, and imgstore takes every "
            "directory in such a recording for a chunk; choose another place"
        )

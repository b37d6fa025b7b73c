"""Renumbering: other frame numbers for a recording in chunks, the old ones kept beside them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imgstore_compat.chunk_index import read_chunk_index, renumbered_index
from imgstore_compat.chunk_journal import SUFFIX as JOURNAL
from imgstore_compat.chunks import Stems
from imgstore_compat.extra_files import read_records
from imgstore_compat.metadata import LOCK_FILE
from imgstore_compat.open_recording import lock_recording, refuse_other_writers
from imgstore_zarr.errors import CorruptChunkError, RecordingLockedError
from imgstore_zarr.index import FrameIndex, Int64s
from imgstore_zarr.sqlite_index import INDEX_FILE
from imgstore_zarr.storage import Directory

BEFORE = "_frame_number_before_reindex"
"""Under this name imgstore keeps the numbers from before, in indexes and in extra data."""


def renumber_chunks(
    location: Directory,
    stems: Stems,
    index: FrameIndex,
    frame_number: Int64s,
    left_over: Sequence[str] = (),
) -> None:
    """Replace the frame numbers in the indexes of all chunks and in their extra data in JSON.

    Each file is replaced as a whole. Interrupted, this can be run again: it comes to the same.
    Extra data in HDF5 keep the numbers of the camera. A saved index would have the old ones, and is
    removed, as is what is given as `left_over`.

    Raises
    ------
    RecordingLockedError
        A writer is at work, or was interrupted, or one of imgstore or Motif may be.
    CorruptChunkError
        An index or extra data are damaged; then nothing is changed.
    """
    if any(location.exists(stem + JOURNAL) for stem in stems.values()):
        raise RecordingLockedError(
            f"{location.name}: a writer is at work, or was interrupted; close it, or call "
            "imgstore_zarr.repair(...), and then renumber"
        )
    refuse_other_writers(location)
    was_locked = location.exists(LOCK_FILE)
    lock = lock_recording(location)
    try:
        # All is read before anything is written.
        files: dict[str, bytes] = {}
        for chunk in index.chunks():
            stem = stems[chunk.number]
            numbers = frame_number[chunk.start : chunk.stop]
            columns = read_chunk_index(location, stem)
            if columns is None or len(columns[0]) != len(chunk):
                raise CorruptChunkError(
                    f"{location.name}: chunk {chunk.number} has no index of {len(chunk)} frames on "
                    "storage; open the recording anew"
                )
            files[f"{stem}.npz"] = renumbered_index(location, stem, numbers, BEFORE)
            for suffix in (".extra.json", ".extra_data.json"):
                if location.exists(stem + suffix):
                    records = read_records(location, stem + suffix)
                    unknown = _renumber_records(records, frame_number)
                    if unknown:
                        warnings.warn(
                            f"{location.name}: {unknown} of {len(records)} records of the extra data "
                            f"{stem}{suffix} do not say to which frame they belong (frame_index), "
                            "and keep their frame_number",
                            stacklevel=4,
                        )
                    files[stem + suffix] = json.dumps(records).encode()
        for key in (INDEX_FILE, *left_over):
            location.delete(key)
        for key, data in files.items():
            location.write(key, data)
            Path(location.root / key).with_suffix(".yaml").unlink(missing_ok=True)
    finally:
        if not was_locked:
            location.delete(LOCK_FILE)
        lock.release()


def _renumber_records(records: list[dict[str, Any]], frame_number: Int64s) -> int:
    """Give records the new number of their frame; return how many do not say which frame that is."""
    unknown = 0
    for record in records:
        position = _whole(record.get("frame_index"))
        if 0 <= position < len(frame_number):
            record.setdefault(BEFORE, record.get("frame_number"))
            record["frame_number"] = int(frame_number[position])
        else:
            unknown += 1
    return unknown


def _whole(value: object) -> int:
    """A position; -1 for what is none. pandas makes floats of the integers in a column with gaps."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return -1
    return int(value) if value == value // 1 and abs(value) < 2**63 else -1

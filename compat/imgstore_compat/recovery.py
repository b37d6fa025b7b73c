"""Repair: finish what an interrupted writer left of a recording in chunks."""

from __future__ import annotations

import json
from collections.abc import Callable

from imgstore_compat.chunk_index import dump_chunk_index, read_chunk_index
from imgstore_compat.chunk_journal import SUFFIX as JOURNAL
from imgstore_compat.chunks import Stems, read_journal
from imgstore_compat.extra_writer import SUFFIX as EXTRA
from imgstore_compat.json_records import parse_records
from imgstore_compat.metadata import LOCK_FILE
from imgstore_compat.open_recording import lock_recording, refuse_other_writers
from imgstore_zarr.layouts import Problem
from imgstore_zarr.storage import Directory

# What reading a damaged list of records raises.
_DAMAGE = (ValueError, TypeError, RecursionError, IsADirectoryError)


def repair_chunks(
    location: Directory, stems: Stems, finish: Callable[[int], int]
) -> tuple[Problem, ...]:
    """Give every chunk that has a journal its index, and take the lock away.

    Parameters
    ----------
    location
        The recording.
    stems
        Its chunks.
    finish
        Brings the frames of a chunk into their final form, and says how many they are.

    Returns
    -------
    tuple of Problem
        Frames that have a record in a journal, but are not on storage.

    Raises
    ------
    RecordingLockedError
        A writer is at work, or one of imgstore or Motif may be.
    """
    journals = {n: stem for n, stem in stems.items() if location.exists(stem + JOURNAL)}
    if not journals:
        refuse_other_writers(location)
        unfinished = (_is_unfinished(location, stem + EXTRA) for stem in stems.values())
        if not location.exists(LOCK_FILE) and not any(unfinished):
            return ()
    lock = lock_recording(location)
    try:
        problems = []
        for number, stem in journals.items():
            problems += _finish_chunk(location, number, stem, finish)
        for number, stem in stems.items():
            problems += _close_extra(location, number, stem + EXTRA)
        for name in location.names():
            if name.startswith(".new-"):  # what was to become a file
                location.delete(name)
        location.delete(LOCK_FILE)
        return tuple(problems)
    finally:
        lock.release()


def _finish_chunk(
    location: Directory, number: int, stem: str, finish: Callable[[int], int]
) -> list[Problem]:
    problems = []
    journal = read_journal(location, stem)
    # An index beside the journal was written last, and is whole.
    if journal is not None and read_chunk_index(location, stem) is None:
        numbers, times = journal
        kept = min(len(numbers), finish(number))
        # Without an index there would be no chunk to which the extra data belong.
        if kept or location.exists(stem + EXTRA):
            location.write(f"{stem}.npz", dump_chunk_index(numbers[:kept], times[:kept]))
        if kept < len(numbers):
            problems.append(
                Problem(
                    "frames-lost",
                    f"{location.name}: of the {len(numbers)} frames that chunk {number} was given, "
                    f"the first {kept} are on storage, the others are lost",
                    number,
                )
            )
    location.delete(stem + JOURNAL)
    return problems


def _is_unfinished(location: Directory, key: str) -> bool:
    try:
        return not parse_records(location.read(key)).complete
    except FileNotFoundError:
        return False
    except _DAMAGE:
        return True


def _close_extra(location: Directory, number: int, key: str) -> list[Problem]:
    """Give a list of records that breaks off its end."""
    try:
        records, complete = parse_records(location.read(key))
        if not complete:
            location.write(key, json.dumps(records).encode())
    except FileNotFoundError:
        pass
    except _DAMAGE as error:
        message = (
            f"{location.name}: the extra data {key} of chunk {number} are damaged ({error}); they "
            "stay so"
        )
        return [Problem("extra-data-damaged", message, number)]
    return []

"""The folder of a conversion that is not finished: what it is of, and which chunks are done."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgstore_zarr.conversion_job import DoneChunk
from imgstore_zarr.errors import RecordingExistsError
from imgstore_zarr.layouts import CONVERSION, CONVERSION_STATE, JoinsChunks, Layout
from imgstore_zarr.lock import can_delete, take_lock
from imgstore_zarr.recording import RecordingSpec
from imgstore_zarr.storage import Directory, Location, access_error, each

_DONE, _LOCK = f"{CONVERSION}/done.jsonl", f"{CONVERSION}/lock"

# What is done in a store that is no directory: an empty object each, whose name says all.
_DONE_NAMES = f"{CONVERSION}/done"


@dataclass
class Claim:
    """The right to convert to a location.

    Attributes
    ----------
    location
        The destination.
    spec
        What it will be, with the identity that it got when the conversion began.
    spool
        The directory in which parts are written.
    chunksize
        Frames in a chunk.
    done
        Chunks that are in their place, by their numbers.
    resumable
        Whether notes can be kept there; not in stores from which nothing can be removed.
    stored_shape
        Of an image.
    """

    location: Location
    spec: RecordingSpec
    spool: Path
    chunksize: int
    done: dict[int, DoneChunk] = field(default_factory=dict)
    resumable: bool = True
    stored_shape: tuple[int, ...] = ()

    @property
    def head(self) -> Path:
        """A part without frames."""
        return self.spool / "head"

    def note(self, chunk: DoneChunk) -> None:
        """Note that a chunk is done."""
        self.done[chunk.number] = chunk
        if self.location.path is not None:
            with (self.location.path / _DONE).open("a") as file:
                file.write(_line(chunk))
        elif self.resumable:
            facts = f"{chunk.number}-{chunk.frames}-{chunk.checksum}"
            self.location.write(f"{_DONE_NAMES}/{facts}", b"")

    def finished(self) -> None:
        """Note that there is nothing left to do."""
        if self.resumable:
            self.location.delete(CONVERSION_STATE)


def _done_key(location: Location) -> str:
    return _DONE_NAMES if location.path is None else _DONE


def _line(chunk: DoneChunk) -> str:
    return json.dumps(dataclasses.asdict(chunk)) + "\n"


@contextmanager
def claimed(
    location: Location, layout: Layout, spec: RecordingSpec, identity: Mapping[str, Any]
) -> Iterator[Claim]:
    """Begin to convert to a location, or go on with what an interrupted conversion has left there.

    Parameters
    ----------
    location, layout, spec
        The destination.
    identity
        All that must be the same to go on.

    Raises
    ------
    RecordingExistsError
        There is a recording, or the unfinished conversion of something else.
    RecordingLockedError
        Another process is converting to there.
    UnsupportedFormatError
        The layout cannot hold this; nothing is left behind.
    """
    assert isinstance(layout, JoinsChunks)
    document = json.loads(json.dumps({**identity, "uuid": spec.uuid}))
    refuse_occupied(location, layout)
    made = _make_folder(location)
    try:
        lock = take_lock(location, _LOCK)
    except BaseException:
        _remove_made(made)
        raise
    spool = _make_spool(spec)
    claim: Claim | None = None
    begun: dict[str, Any] | None = None
    try:
        # Again, now that nobody else can come between.
        begun = _read_state(location)
        if begun is None:
            _refuse_existing(location, layout)
            if can_delete(location):
                location.delete(_done_key(location))
        else:
            _check_same(location, begun, document)
            spec = dataclasses.replace(spec, uuid=begun["uuid"])
        if location.path is not None:
            spool.rmdir()
            spool = location.path / CONVERSION / "parts"
            shutil.rmtree(spool, ignore_errors=True)
            spool.mkdir()
        done = {} if begun is None else _read_done(location, layout)
        claim = Claim(location, spec, spool, 0, done, can_delete(location))
        sink = layout.create(Directory(claim.head), spec)
        claim.chunksize = sink.info.chunksize
        claim.stored_shape = sink.info.stored_shape
        sink.close()
        if begun is None and claim.resumable:
            location.write(CONVERSION_STATE, json.dumps(document).encode())
        yield claim
    finally:
        shutil.rmtree(spool, ignore_errors=True)
        is_begun = begun is not None or (claim is not None and bool(claim.done))
        if is_begun and location.exists(CONVERSION_STATE):
            lock.release()
        else:
            # Finished, or nothing was done: the lock last, since the folder is somebody else's then.
            for key in (CONVERSION_STATE, _done_key(location)) if can_delete(location) else ():
                location.delete(key)
            lock.remove()
            _remove_made([location.path / CONVERSION, *made] if location.path else [])


def _make_spool(spec: RecordingSpec) -> Path:
    if spec.spool is not None:
        spec.spool.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="imgstore-zarr-", dir=spec.spool))


def refuse_occupied(location: Location, layout: JoinsChunks) -> None:
    """Refuse a location where there is something else than an unfinished conversion.

    Raises
    ------
    RecordingExistsError
        What is there.
    """
    if not location.exists(CONVERSION_STATE):
        _refuse_existing(location, layout)


def _refuse_existing(location: Location, layout: JoinsChunks) -> None:
    """Refuse a recording, and everything else but an empty directory: a conversion may be a slip."""
    layout.refuse_existing(location)
    names = [name for name in location.names() if name != CONVERSION]
    if names:
        raise RecordingExistsError(
            f"{location.name} is not empty ({', '.join(names[:3])}{', ...' if names[3:] else ''}); give "
            "a new place to convert to"
        )


def _read_state(location: Location) -> dict[str, Any] | None:
    """Return what is being converted; None where that was not noted, or not whole, yet."""
    try:
        state: Any = json.loads(location.read(CONVERSION_STATE))
    except (FileNotFoundError, ValueError):
        return None
    return state if isinstance(state, dict) and "uuid" in state else None


def _check_same(location: Location, begun: dict[str, Any], document: dict[str, Any]) -> None:
    names = {*begun, *document} - {"uuid"}
    differ = sorted(name for name in names if begun.get(name) != document.get(name))
    if differ:
        raise RecordingExistsError(
            f"{location.name} holds the unfinished conversion of {begun.get('source')} to "
            f"{begun.get('format')}; this one differs in {', '.join(differ)}. Finish that with the same "
            "arguments and the same source, or choose another place, or remove it"
        )


def _make_folder(location: Location) -> list[Path]:
    """Make the folder; return the directories that were not there before, the innermost first."""
    if location.path is None:
        return []
    folder = location.path / CONVERSION
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise access_error(location, "making the directory", error) from error
    return missing


def _remove_made(made: list[Path]) -> None:
    for path in made:
        with contextlib.suppress(OSError):  # not empty any more, so somebody's
            path.rmdir()


def _read_done(location: Location, layout: JoinsChunks) -> dict[int, DoneChunk]:
    """Read which chunks are done; a last line that is cut off does not count."""
    if location.path is None:
        noted = (map(int, name.split("-")) for name in location.names(_DONE_NAMES))
        done = {chunk.number: chunk for chunk in itertools.starmap(DoneChunk, noted)}
        there = each(lambda number: layout.has_chunk(location, number), [*done])
        return {number: done[number] for number in itertools.compress(done, there)}
    try:
        text = location.read(_DONE).decode()
    except FileNotFoundError:
        return {}
    lines = text.splitlines(keepends=True)
    chunks = [DoneChunk(**json.loads(line)) for line in lines if line.endswith("\n")]
    if lines and not lines[-1].endswith("\n"):
        location.write(_DONE, "".join(lines[:-1]).encode())
    return {chunk.number: chunk for chunk in chunks if layout.has_chunk(location, chunk.number)}

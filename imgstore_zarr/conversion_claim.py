"""The folder of a conversion that is not finished: what it is of, and which chunks are done."""

from __future__ import annotations

import contextlib
import dataclasses
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
from imgstore_zarr.layouts import CONVERSION, JoinsChunks, Layout
from imgstore_zarr.lock import can_delete, take_lock
from imgstore_zarr.recording import RecordingSpec
from imgstore_zarr.storage import Directory, Location, access_error

_STATE, _DONE, _LOCK = f"{CONVERSION}/state.json", f"{CONVERSION}/done.jsonl", f"{CONVERSION}/lock"

# In a store that is no directory the list of what is done is written anew, not for each chunk.
_LISTED_AT_ONCE = 64


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
        elif self.resumable and len(self.done) % _LISTED_AT_ONCE == 0:
            self.list_done()

    def list_done(self) -> None:
        """Write the list of what is done, where it cannot grow line by line."""
        if self.location.path is None and self.resumable:
            self.location.write(_DONE, "".join(map(_line, self.done.values())).encode())

    def finished(self) -> None:
        """Note that there is nothing left to do."""
        if self.resumable:
            self.location.delete(_STATE)


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
    spool = Path(tempfile.mkdtemp(prefix="imgstore-zarr-"))
    claim: Claim | None = None
    begun: dict[str, Any] | None = None
    try:
        # Again, now that nobody else can come between.
        begun = _read_state(location)
        if begun is None:
            _refuse_existing(location, layout)
            location.delete(_DONE)
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
            location.write(_STATE, json.dumps(document).encode())
        yield claim
    finally:
        shutil.rmtree(spool, ignore_errors=True)
        is_begun = begun is not None or (claim is not None and bool(claim.done))
        if is_begun and location.exists(_STATE):
            lock.release()
        else:
            # Finished, or nothing was done: the lock last, since the folder is somebody else's then.
            for key in (_STATE, _DONE) if can_delete(location) else ():
                location.delete(key)
            lock.remove()
            _remove_made([location.path / CONVERSION, *made] if location.path else [])


def refuse_occupied(location: Location, layout: JoinsChunks) -> None:
    """Refuse a location where there is something else than an unfinished conversion.

    Raises
    ------
    RecordingExistsError
        What is there.
    """
    if not location.exists(_STATE):
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
        state: Any = json.loads(location.read(_STATE))
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
    try:
        text = location.read(_DONE).decode()
    except FileNotFoundError:
        return {}
    lines = text.splitlines(keepends=True)
    chunks = [DoneChunk(**json.loads(line)) for line in lines if line.endswith("\n")]
    if lines and not lines[-1].endswith("\n"):
        location.write(_DONE, "".join(lines[:-1]).encode())
    return {chunk.number: chunk for chunk in chunks if layout.has_chunk(location, chunk.number)}

"""What a layout is: one small object that turns a location into the four parts of a recording."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from imgstore_zarr.extra import ExtraData, SampledSource
from imgstore_zarr.frames import FrameSink, FrameSource
from imgstore_zarr.index import FrameIndex, Int64s
from imgstore_zarr.recording import RecordingInfo, RecordingSpec
from imgstore_zarr.storage import Location

_log = logging.getLogger("imgstore_zarr")

# Reasons in one message.
_SHOWN = 3


@dataclass(frozen=True)
class Problem:
    """Something about a recording that is not as it should be.

    Attributes
    ----------
    kind
        ``chunk-missing``, ``chunk-damaged``, ``chunk-length``, ``chunk-without-index``,
        ``index-damaged``, ``index-left-over``, ``extra-data-damaged``, ``extra-data-without-chunk``,
        ``left-over``, ``metadata-changed``, ``repair-due``, ``frames-lost``,
        ``frames-damaged``, ``recording-damaged``, ``not-checked``.
    message
        What it is, and what to do.
    chunk
        The chunk concerned, where it is one; the first of several.
    """

    kind: str
    message: str
    chunk: int | None = None


@dataclass(frozen=True)
class Parts:
    """The four parts of a recording, and what was noticed on the way."""

    info: RecordingInfo
    index: FrameIndex
    frames: FrameSource
    extra: ExtraData
    problems: tuple[Problem, ...] = ()

    def log_problems(self) -> None:
        """Warn that there are any, naming the first."""
        if self.problems:
            first, count = self.problems[0].message, len(self.problems)
            _log.warning("%s; report() lists what was noticed, %d in all", first, count)

    def left_out(self) -> str:
        """Say which chunks are left out of the index, and why; empty where none is."""
        known = {*self.index.chunk_numbers.tolist()}
        name = f"{self.info.name}: "
        found = [
            problem.message.removeprefix(name)
            for problem in self.problems
            if problem.chunk is not None and problem.chunk not in known
        ]
        if len(found) > _SHOWN:
            found[_SHOWN:] = [f"and {len(found) - _SHOWN} more, which report() lists"]
        return "; ".join(found)


class Layout(Protocol):
    """How recordings of one kind lie on storage. Must be picklable."""

    @property
    def name(self) -> str:
        """``zarr``, ``video``, ``directory``, ..."""
        ...

    @property
    def formats(self) -> Mapping[str, str]:
        """The formats that it writes: from the name as it is asked for to the canonical one."""
        ...

    def recognises(self, location: Location) -> bool:
        """Whether the location holds such a recording. Looks for a marker file; never raises."""
        ...

    def open(self, location: Location, index: FrameIndex | None = None) -> Parts:
        """Open a recording for reading; writes nothing.

        Parameters
        ----------
        location
            The recording.
        index
            Its index, where somebody has kept it: then it is not read from storage.
        """
        ...

    def create(self, location: Location, spec: RecordingSpec) -> FrameSink:
        """Begin a recording.

        Raises
        ------
        RecordingExistsError
            The location already holds one.
        """
        ...


@runtime_checkable
class Appends(Protocol):
    """A layout whose recordings can be written to again (``create(..., mode="a")``)."""

    def append(self, location: Location, spec: RecordingSpec) -> tuple[FrameSink, Parts]:
        """Go on with a recording, after a repair if one is due.

        Returns
        -------
        FrameSink
            Takes the frames that follow.
        Parts
            The recording as it is so far.

        Raises
        ------
        RecordingExistsError
            The recording is of another kind than the spec.
        RecordingLockedError
            A writer is at work.
        """
        ...


@runtime_checkable
class Refreshes(Protocol):
    """A layout that can tell what was added since a recording was opened, without opening it anew."""

    def refresh(self, location: Location, parts: Parts) -> Parts:
        """Return the recording as it is now; what is in `parts` stays as it is."""
        ...


@runtime_checkable
class Renumbers(Protocol):
    """A layout whose recordings can be given other frame numbers (`ImgStore.reindex`)."""

    def renumber(self, location: Location, index: FrameIndex, frame_number: Int64s) -> None:
        """Replace the frame numbers, keeping the old ones beside them."""
        ...


@runtime_checkable
class ExtractsFrames(Protocol):
    """A layout that reads one frame without the whole index (`extract_only_frame`)."""

    def extract(self, location: Location, position: int) -> NDArray[Any] | None:
        """Return the image at a position as it is stored; None where there is no such position."""
        ...


@runtime_checkable
class Inspects(Protocol):
    """A layout that can look through the files of a recording without decoding them."""

    def inspect(self, location: Location, index: FrameIndex) -> tuple[Problem, ...]:
        """Return what is wrong with the files of chunks and extra data, unless `open` told it."""
        ...


@runtime_checkable
class FindsLeftOvers(Protocol):
    """A layout that can tell which files in a recording belong to nothing."""

    def left_over(self, location: Location, index: FrameIndex) -> tuple[Problem, ...]:
        """Return a problem per file, or folder, that nothing refers to."""
        ...


@runtime_checkable
class Repairs(Protocol):
    """A layout that can finish what an interrupted writer left."""

    def repair(self, location: Location) -> tuple[Problem, ...]:
        """Bring every whole frame back; return what could not be."""
        ...


CONVERSION = ".conversion"
"""The folder in a recording to which another one is being converted, or was before an interruption."""


CONVERSION_STATE = f"{CONVERSION}/state.json"
"""Says what is being converted; gone as soon as the recording is whole."""


@dataclass(frozen=True)
class Holds:
    """What recordings of a layout can hold of those that they are made of (`convert`).

    Attributes
    ----------
    encoded
        Whether images may stay in their encoding, to be decoded when they are read.
    only_json
        Whether metadata that JSON cannot hold become text.
    sample_dtypes
        Names of the dtypes that samples can have; empty where there is no place for samples.
    """

    encoded: bool = True
    only_json: bool = False
    sample_dtypes: frozenset[str] = frozenset()


@runtime_checkable
class JoinsChunks(Protocol):
    """A layout that can put a recording together from chunks that were written apart (`convert`).

    Each chunk comes as a recording of its own, with the same spec; its frames are those of one chunk.
    """

    @property
    def holds(self) -> Holds:
        """What recordings can hold."""
        ...

    def refuse_existing(self, location: Location) -> None:
        """Raise RecordingExistsError where there is a recording, or what would become part of one."""
        ...

    def has_chunk(self, location: Location, chunk: int) -> bool:
        """Whether a chunk was taken already."""
        ...

    def take_chunk(self, location: Location, spec: RecordingSpec, part: Path, chunk: int) -> None:
        """Make the chunk of a part that of a recording, all at once."""
        ...

    def finish(
        self,
        location: Location,
        spec: RecordingSpec,
        head: Path,
        index: FrameIndex,
        records: Callable[[], Iterable[dict[str, Any]]],
        datasets: Mapping[str, SampledSource],
    ) -> None:
        """Make a recording of the chunks that were taken; can be done again.

        Parameters
        ----------
        location, spec
            The recording.
        head
            A part without frames.
        index
            Its frames.
        records
            Gives its extra data, from the first record, each time it is called.
        datasets
            What was sampled beside its frames, by name, as far as the layout `holds` it.
        """
        ...


def refreshed(layout: Layout, location: Location, parts: Parts) -> Parts:
    """Return a recording as it is now, by what its layout does fastest."""
    if isinstance(layout, Refreshes):
        return layout.refresh(location, parts)
    return layout.open(location)

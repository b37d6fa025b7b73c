"""convert: any recording to any format, chunk by chunk, so that it can be interrupted and go on."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time as clock
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from imgstore_zarr.comparison import compare, compare_samples
from imgstore_zarr.conversion_claim import Claim, claimed, refuse_occupied
from imgstore_zarr.conversion_damage import DamagedFrames, find_damaged, told, without_damaged
from imgstore_zarr.conversion_job import DoneChunk, Job, SourceFrames, writing
from imgstore_zarr.conversion_samples import taken_along
from imgstore_zarr.conversion_source import PROVENANCE, Record, Selection, Source
from imgstore_zarr.errors import RecordingExistsError, UnsupportedFormatError
from imgstore_zarr.extra import SampledSource, dump_record
from imgstore_zarr.formats import layout_of, planned, refuse_spool
from imgstore_zarr.frames import Window
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.layouts import JoinsChunks
from imgstore_zarr.recording import RecordingSpec, as_json
from imgstore_zarr.report import counted
from imgstore_zarr.shared_sources import SharedSource
from imgstore_zarr.storage import Location, locate, locate_urls

if TYPE_CHECKING:
    from distributed import Client

_log = logging.getLogger("imgstore_zarr")

# Tasks that a cluster gets: each is some neighbouring chunks.
_MOST_TASKS = 2000
_GOPS_IN_A_TASK = 4

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes
    ----------
    source, destination, format
        From where, to where, and in which form.
    frame_count, chunk_count
        Of the destination.
    resumed
        Chunks that an earlier, interrupted run had finished.
    seconds
        How long this run took, without verifying.
    frames_per_second
        Of this run.
    checksum
        CRC-32C of the checksums of all chunks, in their order; each is that of its frames' pixels as
        they were read from the source.
    left_out
        What else the destination does not have of the source, in words: sampled data where there is no
        place for them, records of frames that are not there, the last row of odd images in video.
    damaged
        The frames that cannot be read and were left out, in the order of the source; see ``damaged`` of
        `convert`.
    verified
        Whether every frame, and every sample, was compared with the source.
    worst_psnr
        Of lossy formats, when verified: the peak signal-to-noise ratio of the frame that differs most,
        in dB; infinite where none differs.
    """

    source: str
    destination: str
    format: str
    frame_count: int
    chunk_count: int
    resumed: int
    seconds: float
    frames_per_second: float
    checksum: str
    left_out: tuple[str, ...] = ()
    damaged: tuple[DamagedFrames, ...] = ()
    verified: bool = False
    worst_psnr: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all this as JSON holds it."""
        facts = dataclasses.asdict(self)
        worst = self.worst_psnr
        return facts | {"worst_psnr": None if worst is None or np.isinf(worst) else worst}

    def __str__(self) -> str:
        resumed = f", {self.resumed} of them before" if self.resumed else ""
        how = "not verified"
        if self.verified and self.worst_psnr is None:
            how = "verified, bit-exact"
        elif self.verified:
            same = np.isinf(self.worst_psnr or 0.0)
            how = "verified, " + (
                "no pixel differs" if same else f"at least {self.worst_psnr:.1f} dB"
            )
        return (
            f"{self.source} -> {self.destination} ({self.format}): "
            f"{counted(self.frame_count, 'frame')} in {counted(self.chunk_count, 'chunk')}{resumed}; "
            f"{self.frames_per_second:.1f} frames/s; checksum {self.checksum}, {how}"
            + "".join(f"; left out: {what}" for what in (*self.left_out, *told(self.damaged)))
        )


def convert(
    source: object,
    destination: object,
    format: str,
    *,
    frames: slice | range | Sequence[int] | NDArray[Any] | None = None,
    time: tuple[float | None, float | None] | None = None,
    stride: int = 1,
    roi: tuple[slice, slice] | None = None,
    gray: bool = False,
    chunksize: int | None = None,
    inner_chunks: tuple[int, ...] | None = None,
    metadata: Mapping[str, Any] | None = None,
    durable: bool = False,
    client: Client | None = None,
    damaged: Literal["raise", "skip"] = "raise",
    verify: bool = False,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> ConversionReport:
    """Convert a recording, or a plain video file, to another format.

    Frame numbers and times, extra data, the user's metadata, and when it was recorded come along; the
    metadata get the key ``converted_from``. What was sampled beside the frames comes along to Zarr: with
    ``time`` what was sampled then; with ``frames`` from the first frame time that is kept to just before
    that of the frame after the last one; whatever ``stride`` and ``roi``. Interrupted, the same call
    goes on where it was.

    Parameters
    ----------
    source
        What `open` takes, an `ImgStore`, or a video file; of that, times are its timestamps in seconds.
    destination
        Where the new recording goes; video and directories only to a local directory.
    format
        What `create` takes.
    frames
        Positions to take: a slice, a range, integers in the order in which they are wanted, or a mask.
    time
        Take only frames with ``time[0] <= frame_time < time[1]``, in seconds; None is no end.
    stride
        Of what is selected take every stride-th frame.
    roi
        The rows and the columns of each image to keep, as slices: ``(slice(10, 200), slice(0, 640))``.
        An encoding is then decoded first, since a pattern of colours has no corner that may be cut.
    gray
        Make images gray, as many videos of gray cameras are stored in colour.
    chunksize, inner_chunks, durable
        See `create`. What is finished when a conversion is interrupted are whole chunks.
    metadata
        In place of the source's own.
    client
        Of a dask cluster, whose workers see source and destination under the same paths; by default this
        process, on all its cores.
    damaged
        What to do with frames of the source that cannot be read: ``"raise"``, or ``"skip"``, which
        leaves them out. They are found by reading all frames once before anything is written, also when
        an interrupted conversion goes on; the report names them. Extra data and samples that cannot be
        read, or not be joined, are then left out, too, and told in its ``left_out``: samples by blocks
        of all columns, of up to 2**20 samples.
    verify
        Compare every frame and every sample with the source afterwards: frames bit by bit if the format
        is lossless.
    progress
        Called with the number of frames that are done, and of all; from 0 for what ``damaged="skip"``
        reads first, and again from 0 for `verify`.
    storage_options
        Of source and destination, as far as they are URLs of object storage; see `open`. Where the two
        need other ones, give what `locate` returns for each.
    **options
        What only one format understands; see the page on formats. For what goes to object storage,
        ``spool`` as in `create`.

    Returns
    -------
    ConversionReport
        With a checksum.

    Raises
    ------
    RecordingExistsError
        There is something already, or the unfinished conversion of something else.
    UnsupportedFormatError
        The format cannot hold the source's images (uint16 in video, ...), or a video file has pixels of
        more than 8 bits; nothing is written.
    RecordingLockedError
        Another process is converting to there.
    CorruptChunkError, ChunkMissingError
        Of the source: its frames cannot be read. Of the destination: it is not as it was written
        (``verify``).
    RecordingAccessError
        The destination cannot be written. What is finished is kept.
    """
    if damaged not in ("raise", "skip"):
        raise UnsupportedFormatError(f"damaged must be 'raise' or 'skip', not {damaged!r}")
    progress = progress or _silent
    source, destination = locate_urls(storage_options, source, destination)
    origin = Source.of(source, gray=gray, skips=damaged == "skip")
    place = locate(destination)
    _refuse_within(origin, place)
    began = clock.monotonic()
    selection = Selection(frames, time, stride, roi)
    index = origin.parts.index
    positions = selection.positions(index, origin.name)
    layout = layout_of(format)
    if not isinstance(layout, JoinsChunks):
        raise UnsupportedFormatError(f"nothing can be converted to {format!r} yet")
    keeps = origin.encoding is not None and roi is None and layout.holds.encoded and not gray
    images = origin.images(stored=keeps)
    window = selection.window(images.shape[1:])
    shape = images.shape[1:] if window is None else (*window.shape, *images.shape[3:])
    user = origin.parts.info.user_metadata if metadata is None else metadata
    datasets, left_out = taken_along(
        origin.beside.datasets,
        layout.holds,
        selection.span(index, origin.name),
        skip=origin.skips,
    )
    left_out = [*filter(None, [origin.parts.left_out()]), *origin.beside.left_out, *left_out]
    if layout.holds.only_json and metadata is None:
        user, changed = as_json(user)
        left_out += [f"metadata, now text: {name}" for name in changed]
    if missing := origin.records_of_no_frame():
        left_out.append(f"{counted(missing, 'record')} of extra data of frames that are not there")
    _, spec = planned(
        format,
        shape,
        images.dtype,
        chunksize=chunksize,
        metadata=user,
        encoding=origin.encoding if keeps else None,
        inner_chunks=inner_chunks,
        durable=durable,
        **options,
    )
    refuse_spool(place, spec)
    lost: tuple[DamagedFrames, ...] = ()
    if origin.skips:
        refuse_occupied(place, layout)  # before all is read
        lost = find_damaged(images, window, index, positions, progress)
        readable = without_damaged(positions, lost, origin.name)
        if missing := origin.records_of(np.setdiff1d(positions, readable)):
            left_out.append(f"{counted(missing, 'record')} of extra data of damaged frames")
        positions = readable
    wanted = SourceFrames(0, positions, index.frame_number[positions], index.frame_time[positions])
    provenance = origin.provenance(selection, sum(one.frames for one in lost))
    info = origin.parts.info
    spec = dataclasses.replace(
        spec,
        metadata={**spec.metadata, PROVENANCE: provenance},
        created=info.created,
        timezone=info.timezone,
    )
    starts = np.arange(0, len(wanted), max(len(wanted), 1))
    whole = FrameIndex(wanted.frame_number, wanted.frame_time, starts)
    for record in origin.records(positions, whole):
        dump_record(record)  # what cannot be stored is told before the first frame
    identity = _identity(origin, wanted, window, spec)
    with claimed(place, layout, spec, identity) as claim:
        before = len(claim.done)
        source_ = SharedSource(images)
        job = Job(source_, window, layout, place, claim.spec, claim.spool, claim.chunksize)
        if claim.stored_shape[:2] != shape[:2]:
            sizes = " x ".join(map(str, claim.stored_shape[:2])), " x ".join(map(str, shape[:2]))
            left_out.append(f"images of {sizes[1]} are cut to even sizes, {sizes[0]}")
        for what in (*left_out, *told(lost)):
            _log.warning("%s: left out of %s: %s", origin.name, place.name, what)
        _write_all(job, wanted, claim, client, progress)
        starts = np.arange(0, len(wanted), job.chunksize)
        target = FrameIndex(wanted.frame_number, wanted.frame_time, starts)
        _finish(job, claim, target, lambda: origin.records(positions, target), datasets)
    done = [claim.done[number] for number in sorted(claim.done)]
    seconds = clock.monotonic() - began
    report = ConversionReport(
        source=origin.name,
        destination=place.name,
        format=spec.format,
        frame_count=len(wanted),
        chunk_count=len(done),
        resumed=before,
        seconds=seconds,
        frames_per_second=sum(one.frames for one in list(claim.done.values())[before:]) / seconds,
        checksum=f"{crc32c(b''.join(one.checksum.to_bytes(4, 'big') for one in done)):08x}",
        left_out=tuple(left_out),
        damaged=lost,
    )
    if verify:
        worst = compare(place, origin, wanted, window, progress)
        compare_samples(place, origin, datasets)
        report = dataclasses.replace(report, verified=True, worst_psnr=worst)
    return report


def _refuse_within(source: Source, destination: Location) -> None:
    """Refuse to convert into the source: what is in a recording is taken for a part of it."""
    origin, target = Path(source.name).absolute(), destination.path
    if target is not None and origin.is_dir() and (target == origin or origin in target.parents):
        raise RecordingExistsError(
            f"{destination.name} is in the recording that is to be converted, {source.name}; choose "
            "another place"
        )


def _silent(done: int, total: int) -> None:
    """Tell nobody."""


def _identity(
    source: Source, wanted: SourceFrames, window: Window | None, spec: RecordingSpec
) -> dict[str, Any]:
    """Everything that must be the same for an interrupted conversion to go on."""
    columns = (wanted.positions, wanted.frame_number, wanted.frame_time)
    return {
        **source.identity,
        "gray": source.gray,
        "frames": len(wanted),
        "frames_checksum": crc32c(b"".join(column.tobytes() for column in columns)),
        "window": window,
        "format": spec.requested_format,
        "imgshape": spec.imgshape,
        "imgdtype": str(spec.imgdtype),
        "encoding": spec.encoding,
        "chunksize": spec.chunksize,
        "inner_chunks": spec.inner_chunks,
        "options": {name: repr(value) for name, value in sorted(spec.options.items())},
        "metadata": repr(spec.metadata),
    }


def _write_all(
    job: Job, wanted: SourceFrames, claim: Claim, client: Client | None, progress: Progress
) -> None:
    """Write every chunk that is not done; note each that is."""
    count, size = len(wanted), job.chunksize
    chunks = -(-count // size)
    left = np.array([number for number in range(chunks) if number not in claim.done], np.int64)
    runs = np.split(left, np.flatnonzero(np.diff(left) != 1) + 1) if len(left) else []
    spans = [(int(run[0]) * size, min((int(run[-1]) + 1) * size, count)) for run in runs]
    ready = sum(chunk.frames for chunk in claim.done.values())
    progress(ready, count)

    def note(chunk: DoneChunk) -> None:
        nonlocal ready
        claim.note(chunk)
        ready += chunk.frames
        progress(ready, count)

    if client is not None:
        _on_cluster(job, wanted, spans, client, note)
        return
    for span in spans:
        for chunk in job.write(wanted.part(*span)):
            note(chunk)


def _finish(
    job: Job,
    claim: Claim,
    target: FrameIndex,
    records: Callable[[], Iterable[Record]],
    datasets: Mapping[str, SampledSource],
) -> None:
    """Make a recording of the chunks."""
    assert isinstance(job.layout, JoinsChunks)
    samples = ", samples" if datasets else ""
    with writing(job.location, f"coordinates, extra data{samples} and metadata"):
        job.layout.finish(job.location, claim.spec, claim.head, target, records, datasets)
    claim.finished()


def _on_cluster(
    job: Job,
    wanted: SourceFrames,
    spans: list[tuple[int, int]],
    client: Client,
    note: Callable[[DoneChunk], None],
) -> None:
    """Have spans of chunks written by the workers of a cluster, a few for each of them at a time."""
    from distributed import as_completed, wait

    # Neighbouring chunks in one task: a GOP that two of them need is decoded by one worker.
    gop = job.source.source.preferred_chunks[0]
    size = job.chunksize
    length = size * max(
        -(-_GOPS_IN_A_TASK * gop // size), -(-len(wanted) // (size * _MOST_TASKS)), 1
    )
    parts = (
        wanted.part(start, min(start + length, stop))
        for first, stop in spans
        for start in range(first, stop, length)
    )
    shared = client.scatter(job, broadcast=True, hash=False)
    workers = max(1, sum(client.nthreads().values()))
    tasks = (client.submit(_write_span, shared, part, pure=False) for part in parts)
    running = {*itertools.islice(tasks, 2 * workers)}
    done = as_completed(running)
    try:
        for future in done:
            running.discard(future)
            for chunk in future.result():
                note(chunk)
            following = {*itertools.islice(tasks, 1)}
            running |= following
            done.update(following)
    finally:
        # After an error or Ctrl-C: who is at work writes to the destination until it is done.
        if running:
            wait(running)
            for future in running:
                for chunk in future.result() if future.status == "finished" else ():
                    note(chunk)


def _write_span(job: Job, frames: SourceFrames) -> list[DoneChunk]:
    return list(job.write(frames))

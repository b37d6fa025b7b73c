"""convert: any recording to any format, chunk by chunk, so that it can be interrupted and go on."""

from __future__ import annotations

import dataclasses
import itertools
import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from crc32c import crc32c

from imgstore_zarr.comparison import compare
from imgstore_zarr.conversion_claim import Claim, claimed
from imgstore_zarr.conversion_job import DoneChunk, Frames, Job
from imgstore_zarr.conversion_source import Selection, Source
from imgstore_zarr.errors import UnsupportedFormatError
from imgstore_zarr.formats import layout_of, planned
from imgstore_zarr.frames import Window
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.layouts import JoinsChunks
from imgstore_zarr.recording import RecordingSpec
from imgstore_zarr.shared_sources import SharedSource
from imgstore_zarr.storage import locate

if TYPE_CHECKING:
    from distributed import Client

PROVENANCE = "converted_from"
"""The key of the user's metadata that says where a converted recording comes from."""

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
    verified
        Whether every frame was compared with the source.
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
    verified: bool = False
    worst_psnr: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all this as JSON holds it."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        resumed = f", {self.resumed} of them before" if self.resumed else ""
        how = "not verified"
        if self.verified:
            alike = self.worst_psnr is None or np.isinf(self.worst_psnr)
            how = "verified, " + ("bit-exact" if alike else f"at least {self.worst_psnr:.1f} dB")
        return (
            f"{self.source} -> {self.destination} ({self.format}): {self.frame_count} frames in "
            f"{self.chunk_count} chunks{resumed}; {self.frames_per_second:.1f} frames/s; checksum "
            f"{self.checksum}, {how}"
        )


def convert(
    source: object,
    destination: object,
    format: str,
    *,
    frames: slice | range | Sequence[int] | None = None,
    time: tuple[float, float] | None = None,
    stride: int = 1,
    roi: tuple[slice, slice] | None = None,
    chunksize: int | None = None,
    inner_chunks: tuple[int, ...] | None = None,
    metadata: Mapping[str, Any] | None = None,
    durable: bool = False,
    client: Client | None = None,
    verify: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> ConversionReport:
    """Convert a recording, or a plain video file, to another format.

    Frame numbers and times, extra data, the user's metadata, and when it was recorded come along; the
    metadata get the key ``converted_from``. Interrupted, the same call goes on where it was.

    Parameters
    ----------
    source
        What `open` takes, an `ImgStore`, or a video file; of that, times are its timestamps in seconds.
    destination
        Where the new recording goes; video and directories only to a local directory.
    format
        What `create` takes.
    frames
        Positions to take: a slice, a range, or integers in the order in which they are wanted.
    time
        Take only frames with ``time[0] <= frame_time < time[1]``, in seconds.
    stride
        Of what is selected take every stride-th frame.
    roi
        The rows and the columns of each image to keep, as slices: ``(slice(10, 200), slice(0, 640))``.
        An encoding is then decoded first, since a pattern of colours has no corner that may be cut.
    chunksize, inner_chunks, durable
        See `create`.
    metadata
        In place of the source's own.
    client
        Of a dask cluster, whose workers see source and destination under the same paths; by default this
        process, on all its cores.
    verify
        Compare every frame with the source afterwards: bit by bit if the format is lossless.
    progress
        Called with the number of frames that are done, and of all.
    **options
        What only one format understands; see the page on formats.

    Returns
    -------
    ConversionReport
        With a checksum.

    Raises
    ------
    RecordingExistsError
        There is a recording already, or the unfinished conversion of something else.
    UnsupportedFormatError
        The format cannot hold the source's images (uint16 in video, ...); nothing is written.
    RecordingLockedError
        Another process is converting to there.
    CorruptChunkError, ChunkMissingError
        Of the source: its frames cannot be read. Of the destination: it is not as it was written
        (``verify``).
    """
    origin = Source.of(source)
    place = locate(destination)
    began = clock.monotonic()
    selection = Selection(frames, time, stride, roi)
    index = origin.parts.index
    positions = selection.positions(index, origin.name)
    wanted = Frames(0, positions, index.frame_number[positions], index.frame_time[positions])
    layout = layout_of(format)
    keeps = origin.encoding is not None and roi is None and layout.name != "video"
    images = origin.images(stored=keeps)
    window = selection.window(images.shape[1:])
    shape = images.shape[1:] if window is None else (*window.shape, *images.shape[3:])
    user = origin.parts.info.user_metadata if metadata is None else metadata
    _, spec = planned(
        format,
        shape,
        images.dtype,
        chunksize=chunksize,
        metadata={**user, PROVENANCE: origin.provenance(selection)},
        encoding=origin.encoding if keeps else None,
        inner_chunks=inner_chunks,
        durable=durable,
        **options,
    )
    info = origin.parts.info
    spec = dataclasses.replace(spec, created=info.created, timezone=info.timezone)
    if not isinstance(layout, JoinsChunks):
        raise UnsupportedFormatError(f"nothing can be converted to {format!r} yet")
    identity = _identity(origin, wanted, window, spec)
    with claimed(place, layout, spec, identity) as claim:
        before = len(claim.done)
        source_ = SharedSource(images)
        job = Job(source_, window, layout, place, claim.spec, claim.spool, claim.chunksize)
        _write_all(job, wanted, claim, client, progress or _silent)
        starts = np.arange(0, len(wanted), job.chunksize)
        target = FrameIndex(wanted.frame_number, wanted.frame_time, starts)
        layout.finish(
            place, claim.spec, claim.head, target, lambda: origin.records(positions, target)
        )
        claim.finished()
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
    )
    if verify:
        worst = compare(place, origin, wanted, window)
        report = dataclasses.replace(report, verified=True, worst_psnr=worst)
    return report


def _silent(done: int, total: int) -> None:
    """Tell nobody."""


def _identity(
    source: Source, wanted: Frames, window: Window | None, spec: RecordingSpec
) -> dict[str, Any]:
    """Everything that must be the same for an interrupted conversion to go on."""
    info = source.parts.info
    columns = (wanted.positions, wanted.frame_number, wanted.frame_time)
    return {
        "source": info.name,
        "source_uuid": info.uuid,
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
    job: Job, wanted: Frames, claim: Claim, client: Client | None, progress: Progress
) -> None:
    """Write every chunk that is not done; note each that is."""
    count, size = len(wanted), job.chunksize
    chunks = -(-count // size)
    left = np.array([number for number in range(chunks) if number not in claim.done], np.int64)
    runs = np.split(left, np.flatnonzero(np.diff(left) != 1) + 1) if len(left) else []
    spans = [(int(run[0]) * size, min((int(run[-1]) + 1) * size, count)) for run in runs]
    ready = sum(chunk.frames for chunk in claim.done.values())
    progress(ready, count)
    here = (chunk for span in spans for chunk in job.write(wanted.part(*span)))
    try:
        for chunk in here if client is None else _on_cluster(job, wanted, spans, client):
            claim.note(chunk)
            ready += chunk.frames
            progress(ready, count)
    except BaseException:
        claim.list_done()
        raise


def _on_cluster(
    job: Job, wanted: Frames, spans: list[tuple[int, int]], client: Client
) -> Iterator[DoneChunk]:
    """Have spans of chunks written by the workers of a cluster, a few for each of them at a time."""
    from distributed import as_completed

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

    def submitted() -> Iterator[Any]:
        for part in parts:
            yield client.submit(_write_span, shared, part, pure=False)

    tasks = submitted()
    running = as_completed(itertools.islice(tasks, 2 * workers))
    for future in running:
        yield from future.result()
        running.update(itertools.islice(tasks, 1))


def _write_span(job: Job, frames: Frames) -> list[DoneChunk]:
    return list(job.write(frames))

"""Repair of video chunks: what is whole in one that was not finished becomes an ordinary file."""

from __future__ import annotations

from pathlib import Path

from imgstore_compat.chunks import read_journal
from imgstore_compat.recovery import repair_chunks
from imgstore_zarr.layouts import Problem
from imgstore_zarr.storage import Directory
from imgstore_zarr.video import copy_frames, whole_frames


def unfinished_copy(video: Path) -> Path:
    """Where a chunk lies while it is copied: no reader takes this for a chunk."""
    return video.with_name(f".new-{video.name}")


def finish_video(video: Path, count: int) -> int:
    """Make what is whole of a video an ordinary file, in its place.

    Parameters
    ----------
    video
        The file of a chunk; may be missing.
    count
        How many frames are kept at most.

    Returns
    -------
    int
        How many frames it has; where none is whole, the file is removed.

    Raises
    ------
    OSError, av.FFmpegError
        There is no room for the copy; the file is as it was.
    """
    copy = unfinished_copy(video)
    copy.unlink(missing_ok=True)
    kept = min(count, whole_frames(video, decode=True))
    if not kept:
        video.unlink(missing_ok=True)
        return 0
    try:
        copy_frames(video, copy, kept)
        copy.replace(video)
    finally:
        copy.unlink(missing_ok=True)
    return kept


def repair_videos(location: Directory, extension: str) -> tuple[Problem, ...]:
    """Finish what an interrupted writer left; can itself be interrupted.

    Parameters
    ----------
    location
        The recording.
    extension
        The ending of the chunks' files.

    Returns
    -------
    tuple of Problem
        Frames that have a record in a journal, but are not in the video.

    Raises
    ------
    RecordingLockedError
        A writer is at work.
    """

    def finish(number: int) -> int:
        journal = read_journal(location, f"{number:06d}")
        given = 0 if journal is None else len(journal[0])
        return finish_video(location.root / f"{number:06d}{extension}", given)

    stems = [name.split(".")[0] for name in location.names()]
    numbers = sorted({int(stem) for stem in stems if stem.isdecimal()})
    return repair_chunks(location, {number: f"{number:06d}" for number in numbers}, finish)

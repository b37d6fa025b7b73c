"""The errors for frames that a video file does not give."""

from __future__ import annotations

from imgstore_zarr.errors import CorruptChunkError

Format = tuple[str, tuple[int, int]]
"""A pixel format, and (y, x)."""


def beyond_end(name: str, count: int, position: int) -> CorruptChunkError:
    """Return the error for a position behind the last frame."""
    return CorruptChunkError(
        f"{name} holds {count} frames, so there is none at position {position}; the file is truncated, "
        "or does not belong to its index: restore both from a backup"
    )


def undecodable(name: str, position: int, reason: str) -> CorruptChunkError:
    """Return the error for a frame that is damaged, or lost with another one."""
    return CorruptChunkError(
        f"{name}: the frame at position {position} cannot be decoded ({reason}); restore the file from "
        "a backup"
    )


def of_another_format(name: str, position: int, there: Format, before: Format) -> CorruptChunkError:
    """Return the error for a frame that is not like those before it."""
    return CorruptChunkError(
        f"{name}: the frame at position {position} is {_described(there)}, those before are "
        f"{_described(before)}; a recording has one format, so convert the file to one"
    )


def _described(form: Format) -> str:
    return f"{form[0]} {form[1][0]} x {form[1][1]}"

"""Moment: one frame of a recording, as the page names it."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass

from imgstore_zarr.index import FrameIndex
from imgstore_zarr.timeline import UNIX_TIMES


@dataclass(frozen=True)
class Moment:
    """Which frame it is.

    Attributes
    ----------
    position, number
        In the recording, and the camera's.
    time
        Frame time in seconds; None where it is not finite.
    local
        The time as a date in the recording's zone; None where it is no Unix time.
    """

    position: int
    number: int
    time: float | None
    local: str | None


def is_unix(time: float) -> bool:
    """Whether a frame time can be seconds since 1970."""
    return UNIX_TIMES[0] <= time < UNIX_TIMES[1]


def local_text(time: float, zone: dt.tzinfo) -> str | None:
    """Return a frame time as date, time with milliseconds, and zone; None where it is no Unix time."""
    if not is_unix(time):
        return None
    local = dt.datetime.fromtimestamp(time, zone)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local:%Z}"


def moment_at(index: FrameIndex, position: int, zone: dt.tzinfo) -> Moment:
    """Return the moment of a position, which must be one."""
    time = float(index.frame_time[position])
    return Moment(
        position,
        int(index.frame_number[position]),
        time if math.isfinite(time) else None,
        local_text(time, zone),
    )


def time_of(text: str, start: float, zone: dt.tzinfo) -> float:
    """Return a date and time, or a time of day, as a frame time.

    Parameters
    ----------
    text
        In the form of ISO 8601. Without a date, the first such time from `start` on is meant.
    start
        A frame time, in seconds.
    zone
        The time zone, where the text names none.

    Raises
    ------
    ValueError
        Another form.
    """
    first = dt.datetime.fromtimestamp(start, zone)
    if "-" in text:
        moment = dt.datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
    day = first.date()
    clock = dt.time.fromisoformat(text)
    moment = dt.datetime.combine(day, clock, zone)
    if moment < first.replace(microsecond=0):
        moment = dt.datetime.combine(day + dt.timedelta(days=1), clock, zone)
    return moment.timestamp()

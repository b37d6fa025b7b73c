"""How the commands write: one console, and numbers as people read them."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from imgstore_zarr.errors import UnsupportedFormatError
from imgstore_zarr.storage import Directory, Location
from imgstore_zarr.timeline import UNIX_TIMES

_PIPED_WIDTH = 160
_SWITCHES: dict[str, str | bool] = {"true": True, "false": False}

_Value = TypeVar("_Value")


def leave_log() -> None:
    """Have what the library logs not printed as well, where a command says the same in its own way."""
    logging.getLogger("imgstore_zarr").addHandler(logging.NullHandler())


def make_console() -> Console:
    """Return the console; what is piped is not cut to the width of a terminal."""
    terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if terminal else _PIPED_WIDTH, markup=False, highlight=False)


@contextlib.contextmanager
def progress_of_frames(*phases: str) -> Iterator[Callable[[int, int], None]]:
    """Give what shows a bar of how many frames are done; where it starts anew, the next phase begins.

    It is on stderr, so that a report can be piped, and shows nothing where that is no terminal.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        names = iter(phases)
        task = bar.add_task(next(names), total=None)

        def show(done: int, total: int) -> None:
            if done < bar.tasks[0].completed:
                bar.update(task, description=next(names))
            bar.update(task, completed=done, total=total)

        yield show


def options_of(words: Sequence[str]) -> dict[str, str | bool]:
    """Return the storage options of a command, each ``NAME=VALUE``."""
    return named_values(
        words, "--storage-option", lambda value: _SWITCHES.get(value.lower(), value)
    )


def named_values(
    words: Sequence[str], option: str, value_of: Callable[[str], _Value]
) -> dict[str, _Value]:
    """Return what an option was given, each time as ``NAME=VALUE``."""
    values = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            # What may be a secret is not repeated.
            shown = f"{name}=..." if sign else repr(word)
            raise UnsupportedFormatError(f"{option} must be NAME=VALUE, not {shown}")
        values[name] = value_of(value)
    return values


def frames_of(text: str | None) -> slice | None:
    """Return the positions of ``--frames``, None where it was not given."""
    return None if text is None else slice(*ends_of(text, "--frames", int))


def time_of(text: str | None) -> tuple[float | None, float | None] | None:
    """Return the ends of ``--time`` in seconds, None where it was not given."""
    return None if text is None else ends_of(text, "--time", float)


def ends_of(text: str, option: str, kind: type[Any]) -> tuple[Any, Any]:
    """Return two ends written as ``START:STOP``, of which each may be left out."""
    try:
        start, stop = text.split(":")
        return kind(start) if start else None, kind(stop) if stop else None
    except ValueError as error:
        raise UnsupportedFormatError(
            f"{option} must be START:STOP, of which one may be left out, not {text!r}"
        ) from error


def bytes_text(count: int) -> str:
    """Return a size with a binary unit."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def seconds_text(seconds: float) -> str:
    """Return a duration as seconds, and from a minute on also as hours, minutes and seconds."""
    if seconds < 60:
        return f"{seconds:.3f} s"
    return f"{seconds:.3f} s ({dt.timedelta(seconds=round(seconds))})"


def moment_text(moment: dt.datetime, zone: dt.tzinfo) -> str:
    """Return a moment in a time zone, with the zone's abbreviation and name."""
    local = moment.astimezone(zone)
    short, name = local.strftime("%Z"), str(zone)
    return f"{local:%Y-%m-%d %H:%M:%S} {short}" + (f" ({name})" if name != short else "")


def frame_time_text(time: float, zone: dt.tzinfo) -> str:
    """Return a frame time in seconds, and as a date where it can be one."""
    if not UNIX_TIMES[0] <= time < UNIX_TIMES[1]:
        return f"{time:.3f} s"
    local = dt.datetime.fromtimestamp(time, zone)
    return f"{time:.3f} s  {local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local:%Z}"


def size_on_disk(location: Location) -> int | None:
    """Return the bytes of all files of a recording, or None where it is in no directory."""
    return None if location.path is None else Directory(location.path).nbytes


def limited(lines: Iterable[str], shown: int = 10) -> str:
    """Return the first lines, and how many more there are."""
    every = list(lines)
    more = [f"... and {len(every) - shown} more"] if len(every) > shown else []
    return "\n".join(every[:shown] + more)

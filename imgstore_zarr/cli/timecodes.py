"""``imgstore-zarr timecodes``: when each frame was made, as video tools take it."""

from __future__ import annotations

import numpy as np
import typer

import imgstore_zarr
from imgstore_zarr.cli.console import options_of
from imgstore_zarr.cli.export import selected
from imgstore_zarr.errors import FrameNotFoundError, InvalidMetadataError
from imgstore_zarr.index import Int64s
from imgstore_zarr.store import ImgStore

_HEADER = "# timecode format v2"
_LINES = 10_000


def print_timecodes(
    recording: str, options: list[str], *, frames: str | None, time: str | None, table: bool
) -> None:
    """Print the times of frames, in Matroska's format or as a table.

    Parameters
    ----------
    recording
        What to read.
    options
        Of URLs, each ``NAME=VALUE``.
    frames, time
        ``START:STOP`` of positions and of seconds.
    table
        A table of position, frame number, frame time and local time instead.

    Raises
    ------
    InvalidMetadataError
        A frame time that goes back or is not known, which Matroska's format cannot hold.
    """
    location = imgstore_zarr.locate(recording, options_of(options))
    with imgstore_zarr.open(location) as store:
        positions = selected(store, frames, time)
        if not len(positions):
            raise FrameNotFoundError(f"{store.filename} has no frames")
        if table:
            _print_table(store, positions)
        else:
            _print_timecodes(store, positions)


def _print_timecodes(store: ImgStore, positions: Int64s) -> None:
    times = store.index.frame_time[positions]
    odd = np.flatnonzero(~np.isfinite(times) | (np.diff(times, prepend=times[0]) < 0))
    if len(odd):
        at = int(odd[0])
        raise InvalidMetadataError(
            f"{store.filename}: the frame time at position {positions[at]} is {times[at]}, and "
            "timecodes cannot go back; choose others by --frames, or print a --table"
        )
    typer.echo(_HEADER)
    milliseconds = (times - times[0]) * 1e3
    for start in range(0, len(times), _LINES):
        part = milliseconds[start : start + _LINES].tolist()
        typer.echo("\n".join(f"{stamp:.3f}" for stamp in part))


def _print_table(store: ImgStore, positions: Int64s) -> None:
    from imgstore_zarr.cli.tables import frame_table, with_local_text

    for start in range(0, len(positions), _LINES):
        frames = with_local_text(frame_table(store, positions[start : start + _LINES]))
        text = frames.to_csv(sep="\t", index=False, header=start == 0, lineterminator="\n")
        typer.echo(text, nl=False)

"""``imgstore-zarr convert``: any recording to any format."""

from __future__ import annotations

import contextlib
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import typer

import imgstore_zarr
from imgstore_zarr.cli.console import (
    ends_of,
    frames_of,
    leave_log,
    make_console,
    named_values,
    options_of,
    progress_of_frames,
    time_of,
)
from imgstore_zarr.cli.info import plain
from imgstore_zarr.cli.running import interrupted
from imgstore_zarr.errors import UnsupportedFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator


def run_convert(
    source: str,
    destination: str,
    format: str,
    *,
    frames: str | None,
    time: str | None,
    roi: str | None,
    damaged: Literal["raise", "skip"],
    scheduler: str | None,
    as_json: bool,
    options: list[str],
    storage_options: list[str],
    **more: Any,
) -> None:
    """Convert a recording, and print the report.

    Parameters
    ----------
    source, destination, format
        See `imgstore_zarr.convert`.
    frames, time, roi
        ``START:STOP``, ``START:STOP`` in seconds, and ``TOP:BOTTOM,LEFT:RIGHT``.
    damaged
        See `imgstore_zarr.convert`.
    scheduler
        The address of a dask scheduler.
    as_json
        Print one JSON document.
    options
        Of the format, each ``NAME=VALUE``.
    storage_options
        Of URLs, each ``NAME=VALUE``.
    **more
        Handed on.
    """
    # The problems that opening logs would stand in the middle of the bar.
    leave_log()
    selection: dict[str, Any] = {
        "frames": frames_of(frames),
        "time": time_of(time),
        "roi": _rectangle(roi) if roi else None,
    }
    phases = ["looking for damage"] if damaged == "skip" else []
    try:
        with (
            _client(scheduler) as client,
            progress_of_frames(*phases, "converting", "verifying") as progress,
        ):
            report = imgstore_zarr.convert(
                source,
                destination,
                format,
                client=client,
                progress=progress,
                damaged=damaged,
                storage_options=options_of(storage_options),
                **selection,
                **more,
                **named_values(options, "--option", _number),
            )
    except KeyboardInterrupt:
        what = "interrupted; chunks that are finished are kept, and the same command goes on after them"
        raise interrupted(what) from None
    if as_json:
        typer.echo(json.dumps(plain(report.to_dict()), indent=2, allow_nan=False))
    else:
        make_console().print(str(report), soft_wrap=True)


def _number(value: str) -> Any:
    """A value of an option: a number, where it is one."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return value


def _rectangle(text: str) -> tuple[slice, slice]:
    rows, comma, columns = text.partition(",")
    if comma != "," or ":" not in rows or ":" not in columns:
        raise UnsupportedFormatError(f"--roi must be TOP:BOTTOM,LEFT:RIGHT, not {text!r}")
    return slice(*ends_of(rows, "--roi", int)), slice(*ends_of(columns, "--roi", int))


@contextmanager
def _client(scheduler: str | None) -> Iterator[Any]:
    if scheduler is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise imgstore_zarr.MissingDependencyError(
            "--scheduler needs dask: pip install 'imgstore-zarr[dask]'"
        ) from error
    with Client(scheduler) as client:
        yield client

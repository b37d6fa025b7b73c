"""``imgstore-zarr test`` and ``imgstore-test``: whether this installation works."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from imgstore_zarr._version import __version__
from imgstore_zarr.cli.running import FAILED, NOT_DONE, interrupted, run_alone

if TYPE_CHECKING:
    from rich.table import Table

    from imgstore_zarr.installation import Check, WriteSpeed

_STYLES = {"ok": "green", "missing": "yellow", "failed": "bold red"}


def run_test(at: Path | None = None, *, as_json: bool = False) -> None:
    """Check this installation, print what was found, and exit.

    Parameters
    ----------
    at
        A directory: measure also how fast can be written to it.
    as_json
        Print one JSON document.
    """
    from rich.console import Console

    from imgstore_zarr.cli.console import leave_log, make_console
    from imgstore_zarr.installation import (
        check_codecs,
        check_extras,
        check_formats,
        measure_writing,
    )

    # What formats that fail log is in the table.
    leave_log()
    waiting = Console(stderr=True)
    speeds: list[WriteSpeed] = []
    try:
        # First, since a directory that is none is told at once.
        if at is not None:
            with waiting.status(f"writing to {at} for some seconds"):
                speeds = [*measure_writing(at)]
        with waiting.status("testing"), tempfile.TemporaryDirectory() as directory:
            checks = [*check_formats(Path(directory)), *check_codecs(), *check_extras()]
    except KeyboardInterrupt:
        raise interrupted() from None
    failed = [check for check in checks if check.state == "failed"]
    if as_json:
        document = {
            "version": __version__,
            "ok": not failed,
            "checks": [dataclasses.asdict(check) for check in checks],
            "write_speeds": [
                dataclasses.asdict(speed) | {"frames_per_second": speed.frames_per_second}
                for speed in speeds
            ],
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        console = make_console()
        console.print(_table(checks))
        for line in _told(speeds):
            console.print(line, soft_wrap=True)
        verdict = f"{len(failed)} of {len(checks)} failed" if failed else "all fine"
        console.print(verdict, style="bold red" if failed else "bold green")
    if failed:
        raise typer.Exit(FAILED)


def main() -> None:
    """Run ``imgstore-test``, which takes no arguments, as imgstore's own command."""
    run_alone(_test_as_imgstore)


def _test_as_imgstore(context: typer.Context) -> None:
    """Check this installation.

    The same as imgstore-zarr test, which can also measure how fast can be written to a directory.
    """
    context.obj.failure = NOT_DONE
    run_test()


def _table(checks: list[Check]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"imgstore-zarr {__version__}", title_style="bold", title_justify="left")
    for heading in ("kind", "name", "state"):
        table.add_column(heading, no_wrap=True)
    table.add_column("detail", overflow="fold")
    for before, check in zip([None, *checks], checks, strict=False):
        if before is not None and before.kind != check.kind:
            table.add_section()
        table.add_row(check.kind, check.name, Text(check.state, _STYLES[check.state]), check.detail)
    return table


def _told(speeds: list[WriteSpeed]) -> list[str]:
    from imgstore_zarr.installation import SPEED_SHAPE

    if not speeds:
        return []
    height, width = SPEED_SHAPE
    lines = [
        f"{speed.format:<10} {speed.frames_per_second:7.1f} frames/s  ({speed.frames} frames in "
        f"{speed.seconds:.1f} s)"
        for speed in speeds
    ]
    return [
        f"Cameras of {height} x {width} uint8 that {speeds[0].directory} can record:",
        *lines,
        "Measured on this machine now, with noisy images, until all was safe from power loss.",
    ]

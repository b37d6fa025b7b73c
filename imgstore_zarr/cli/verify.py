"""``imgstore-zarr verify`` and ``repair``: whether a recording is sound, and making it so."""

from __future__ import annotations

import json

import typer

import imgstore_zarr
from imgstore_zarr.cli.console import leave_log, make_console, options_of, progress_of_frames
from imgstore_zarr.cli.info import plain
from imgstore_zarr.cli.running import FAILED
from imgstore_zarr.report import Report, counted
from imgstore_zarr.storage import Location


def run_verify(recording: str, options: list[str], *, quick: bool, as_json: bool) -> None:
    """Verify a recording, print its report, and exit."""
    location = _located(recording, options)
    with progress_of_frames("verifying") as progress:
        report = imgstore_zarr.verify(location, quick=quick, progress=progress)
    _finish(report, as_json, "sound")


def run_repair(recording: str, options: list[str], *, as_json: bool) -> None:
    """Repair a recording, print its report, and exit."""
    _finish(imgstore_zarr.repair(_located(recording, options)), as_json, "whole")


def _located(recording: str, options: list[str]) -> Location:
    leave_log()
    return imgstore_zarr.locate(recording, options_of(options))


def _finish(report: Report, as_json: bool, sound: str) -> None:
    if as_json:
        typer.echo(json.dumps(plain(report.to_dict()), indent=2, allow_nan=False))
    else:
        console = make_console()
        console.print(str(report), soft_wrap=True)
        found = counted(len(report.problems), "problem")
        console.print(
            sound if report.ok else found, style="bold green" if report.ok else "bold red"
        )
    if not report.ok:
        raise typer.Exit(FAILED)

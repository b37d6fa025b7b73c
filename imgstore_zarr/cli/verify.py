"""``imgstore-zarr verify`` and ``repair``: whether a recording is sound, and making it so."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TypeVar

import typer

import imgstore_zarr
from imgstore_zarr.cli.console import make_console, options_of, progress_of_frames
from imgstore_zarr.cli.info import plain
from imgstore_zarr.errors import ImgStoreError
from imgstore_zarr.report import Report, counted
from imgstore_zarr.storage import Location

SOUND, DAMAGED, NOT_CHECKED = 0, 1, 2
"""Exit codes of both commands."""

_T = TypeVar("_T")


def run_verify(
    recording: str, options: list[str], *, quick: bool, as_json: bool, debug: bool
) -> None:
    """Verify a recording, print its report, and exit."""
    _finish(_checked(lambda: _verify(recording, options, quick), debug), as_json, "sound")


def run_repair(recording: str, options: list[str], *, as_json: bool, debug: bool) -> None:
    """Repair a recording, print its report, and exit."""
    report = _checked(lambda: imgstore_zarr.repair(_located(recording, options)), debug)
    _finish(report, as_json, "whole")


def _located(recording: str, options: list[str]) -> Location:
    return imgstore_zarr.locate(recording, options_of(options))


def _verify(recording: str, options: list[str], quick: bool) -> Report:
    location = _located(recording, options)
    with progress_of_frames("verifying") as progress:
        return imgstore_zarr.verify(location, quick=quick, progress=progress)


def _checked(work: Callable[[], _T], debug: bool) -> _T:
    # The problems that opening logs are in the report.
    logging.getLogger("imgstore_zarr").addHandler(logging.NullHandler())
    try:
        return work()
    except (ImgStoreError, OSError) as error:
        if debug:
            raise
        typer.echo(f"error: {' '.join(str(error).splitlines())}", err=True)
        raise typer.Exit(NOT_CHECKED) from error


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
    raise typer.Exit(SOUND if report.ok else DAMAGED)

"""``imgstore-zarr report``: how a recording went, as text, JSON or a picture."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import typer

import imgstore_zarr
from imgstore_zarr.cli.console import leave_log, make_console, options_of
from imgstore_zarr.cli.info import plain
from imgstore_zarr.errors import RecordingExistsError, UnsupportedFormatError


def print_report(recording: str, options: list[str], *, png: Path | None, as_json: bool) -> None:
    """Print the report of a recording, and draw it where a file is named.

    Parameters
    ----------
    recording
        What to read.
    options
        Of URLs, each ``NAME=VALUE``.
    png
        The picture; it must not exist.
    as_json
        Print one JSON document.
    """
    # The problems that opening logs are in the report.
    leave_log()
    if png and png.suffix.lower() != ".png":
        raise UnsupportedFormatError(f"--png draws a PNG file, and {png} does not end with .png")
    if png and png.exists():
        raise RecordingExistsError(f"{png} exists, and is not overwritten; choose another name")
    location = imgstore_zarr.locate(recording, options_of(options))
    with imgstore_zarr.open(location) as store:
        report = store.report()
        with warnings.catch_warnings():
            # What cannot be read of them is among the problems.
            warnings.simplefilter("ignore", UserWarning)
            extra = store.get_extra_data(ignore_corrupt_chunks=True) if png else None
    if png:
        figure = report.plot(extra)
        png.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(png, format="png")
    if as_json:
        typer.echo(json.dumps(plain(report.to_dict()), indent=2, allow_nan=False))
    else:
        make_console().print(str(report), soft_wrap=True)

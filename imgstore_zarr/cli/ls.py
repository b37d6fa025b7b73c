"""``imgstore-zarr ls``: the recordings below a place."""

from __future__ import annotations

import json
from typing import Any, Literal

import pandas as pd
import typer
from rich.table import Table

import imgstore_zarr
from imgstore_zarr.cli.console import (
    bytes_text,
    leave_log,
    make_console,
    options_of,
    seconds_text,
)


def print_catalogue(location: str, options: list[str], *, as_json: bool) -> None:
    """Print the recordings below a place, as a table or as one JSON document."""
    # The problems that opening logs are in the table.
    leave_log()
    found = imgstore_zarr.catalogue(imgstore_zarr.locate(location, options_of(options)))
    if as_json:
        document = json.loads(found.to_json(orient="records", date_format="iso"))
        typer.echo(json.dumps(document, indent=2, allow_nan=False))
        return
    table = Table(box=None, header_style="bold")
    for heading in ("name", "layout", "format", "frames", "duration", "created", "size"):
        right = heading in ("frames", "duration", "size")
        named = heading == "name"
        justify: Literal["left", "right"] = "right" if right else "left"
        table.add_column(heading, justify=justify, no_wrap=not named, overflow="fold")
    rows: list[Any] = [*found.itertuples()]
    for row in rows:
        size = "" if pd.isna(row.size) else bytes_text(int(row.size))
        facts = [""] * 5
        if not pd.isna(row.frame_count):
            created = f"{row.created:%Y-%m-%d %H:%M} UTC"
            count, duration = f"{row.frame_count:,}", seconds_text(row.duration)
            facts = [row.layout, row.format, count, duration, created]
        table.add_row(row.name, *facts, size)
    console = make_console()
    console.print(table)
    for row in rows:
        if row.problem:
            console.print(f"{row.name}: {row.problem}", style="yellow", soft_wrap=True)

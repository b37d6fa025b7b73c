"""Arguments and options that commands have in common."""

from __future__ import annotations

from typing import Annotated

import typer

Recording = Annotated[
    str,
    typer.Argument(
        metavar="LOCATION", help="A recording: its folder, its metadata file, or a URL."
    ),
]
StorageOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option",
        metavar="NAME=VALUE",
        help="Of a URL, as endpoint=...; may be repeated. Secrets are safer in the environment.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Frames = Annotated[str | None, typer.Option(metavar="START:STOP", help="Only these positions.")]
Time = Annotated[
    str | None, typer.Option(metavar="START:STOP", help="Only these frame times, in seconds.")
]

"""The commands, and what all of them have in common.

``--help`` must be there at once, so each command imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from imgstore_zarr._version import __version__
from imgstore_zarr.errors import ImgStoreError


@dataclass
class Settings:
    """The options that stand before the command."""

    debug: bool = False


app = typer.Typer(
    help="Scientific video as Zarr v3 recordings, and as Motif and imgstore write it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imgstore-zarr {__version__}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version, and exit."
        ),
    ] = False,
) -> None:
    """Read the options that stand before the command."""
    context.obj.debug = debug


Recording = Annotated[
    str, typer.Argument(metavar="PATH", help="A recording, or its metadata file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


@app.command()
def info(recording: Recording, json: AsJson = False) -> None:
    """Say what a recording holds, and how it went.

    Reads metadata and index, and looks into every file, but decodes no pixels. Gaps, drops, missing and
    damaged chunks are listed; they do not change the exit code.
    """
    from imgstore_zarr.cli.info import print_info

    print_info(recording, as_json=json)


@app.command()
def verify(
    context: typer.Context,
    recording: Recording,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the pixels and the extra data.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Check that everything in a recording can be read.

    Metadata, index, every file, every checksum, every frame. Writes nothing. Exits with 0 if the
    recording is sound, 1 if something is damaged, missing or left over, 2 if it could not be checked.
    """
    from imgstore_zarr.cli.verify import run_verify

    run_verify(recording, quick=quick, as_json=json, debug=context.obj.debug)


@app.command()
def repair(context: typer.Context, recording: Recording, json: AsJson = False) -> None:
    """Bring back what an interrupted writer left.

    Can be interrupted, and run again. Nothing is deleted: what cannot be used is moved to the folder
    set-aside in the recording. Exits with 0 if the recording is whole, 1 if something is missing or
    damaged, 2 if it could not be repaired.
    """
    from imgstore_zarr.cli.verify import run_repair

    run_repair(recording, as_json=json, debug=context.obj.debug)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A recording, or a video file.")],
    destination: Annotated[str, typer.Argument(help="Where the new recording goes.")],
    format: Annotated[
        str, typer.Option("--format", "-f", help="zstd/zarr, avc1/mp4, png/dir, ...")
    ] = "zstd/zarr",
    frames: Annotated[
        str | None, typer.Option(metavar="START:STOP", help="Only these positions.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="START:STOP", help="Only these frame times, in seconds.")
    ] = None,
    stride: Annotated[int, typer.Option(min=1, help="Take every so many frames one.")] = 1,
    roi: Annotated[
        str | None,
        typer.Option(metavar="TOP:BOTTOM,LEFT:RIGHT", help="The part of each image to keep."),
    ] = None,
    gray: Annotated[bool, typer.Option("--gray", help="Make images gray.")] = False,
    chunksize: Annotated[int | None, typer.Option(min=1, help="Frames in a chunk.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            metavar="NAME=VALUE",
            help="Of the format, as crf=20; may be repeated.",
        ),
    ] = None,
    damaged: Annotated[
        Literal["raise", "skip"],
        typer.Option(help="What to do with frames that cannot be read: leave them out by skip."),
    ] = "raise",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every frame with the source afterwards.")
    ] = False,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Let a dask cluster do it.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Convert a recording, or a video file, to another format.

    Frame numbers and times, extra data and metadata come along. Nothing is overwritten. Interrupted, the
    same command goes on where it was. Example:

    imgstore-zarr convert old-recording new.zarr --format zstd/zarr --verify
    """
    from imgstore_zarr.cli.convert import run_convert

    run_convert(
        source,
        destination,
        format,
        frames=frames,
        time=time,
        stride=stride,
        roi=roi,
        gray=gray,
        options=option or [],
        chunksize=chunksize,
        damaged=damaged,
        verify=verify,
        scheduler=scheduler,
        as_json=json,
    )


@app.command()
def view(
    recordings: Annotated[
        list[str], typer.Argument(metavar="LOCATION...", help="Recordings, side by side.")
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Listen on this port; 0 is any that is free.")
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Look at recordings in a browser, side by side if there are several.

    A page on this machine alone, at an address that is printed and hard to guess. Nothing is written to
    the recordings. Ends by q in the page, or by Ctrl-C. Example:

    imgstore-zarr view left.zarr right.zarr
    """
    from imgstore_zarr.cli.view import run_view

    run_view(recordings, port=port, browser=browser)


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Argument(help="Where the recordings and the figure go.")
    ] = Path("imgstore-demo"),
    frames: Annotated[int, typer.Option(min=10, help="Frames to record.")] = 600,
    size: Annotated[
        int,
        typer.Option(
            min=48, max=4096, metavar="PIXELS", help="Height of an image; its width is 4/3 of it."
        ),
    ] = 480,
) -> None:
    """Record a synthetic experiment twice and compare.

    The same frames are written as Motif mp4 chunks and as Zarr, read back through xarray and dask,
    compared in a table, and drawn as a figure. Needs dask and matplotlib. Nothing is overwritten.
    """
    from imgstore_zarr.cli.demo import run_demo

    run_demo(directory, frames, size)


@app.command()
def serve(
    locations: Annotated[
        list[str], typer.Argument(metavar="LOCATION...", help="Recordings of any kind.")
    ],
    host: Annotated[
        str, typer.Option(help="Where to listen; by default only this machine can connect.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="By default one that is free.")] = 0,
) -> None:
    """Publish recordings over HTTP as Zarr groups.

    Prints the address of each, which is a secret, on a line of its own. Whoever knows it can read with
    zarrita.js, Neuroglancer, xarray.open_zarr, and nobody can write. Ends with Ctrl-C. Needs the extra
    viewer. Example:

    imgstore-zarr serve old-recording s3://bucket/new.zarr
    """
    from imgstore_zarr.cli.serve import run_serve

    run_serve(locations, host, port)


def main() -> None:
    """Run the command line."""
    run(app)


def run(commands: typer.Typer) -> None:
    """Run commands; an expected error is one line on stderr and exit code 1."""
    settings = Settings()
    try:
        commands(obj=settings)
    except (ImgStoreError, OSError) as error:
        if settings.debug:
            raise
        typer.echo(f"error: {' '.join(str(error).splitlines())}", err=True)
        sys.exit(1)

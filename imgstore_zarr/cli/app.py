"""The commands, and what all of them have in common.

``--help`` must be there at once, so each command imports what it needs when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from imgstore_zarr._version import __version__
from imgstore_zarr.cli.options import AsJson, Frames, Recording, StorageOptions, Time
from imgstore_zarr.cli.running import NOT_DONE, new_app, run

app = new_app("Scientific video as Zarr v3 recordings, and as Motif and imgstore write it.")


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


@app.command()
def info(recording: Recording, storage_option: StorageOptions = None, json: AsJson = False) -> None:
    """Say what a recording holds, and how it went.

    Reads metadata and index, and looks into every file, but decodes no pixels. Gaps, drops, missing and
    damaged chunks are listed; they do not change the exit code. Example:

    imgstore-zarr info recording --json
    """
    from imgstore_zarr.cli.info import print_info

    print_info(recording, storage_option or [], as_json=json)


@app.command()
def ls(
    location: Annotated[
        str, typer.Argument(metavar="LOCATION", help="A folder, or a URL: s3://bucket/folder, ...")
    ] = ".",
    storage_option: StorageOptions = None,
    json: AsJson = False,
) -> None:
    """List the recordings below a folder, or in a bucket.

    Reads their metadata and indexes, no video. Example:

    imgstore-zarr ls s3://bucket/2026 --storage-option region=eu-central-1
    """
    from imgstore_zarr.cli.ls import print_catalogue

    print_catalogue(location, storage_option or [], as_json=json)


@app.command()
def verify(
    context: typer.Context,
    recording: Recording,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the pixels and the extra data.")
    ] = False,
    storage_option: StorageOptions = None,
    json: AsJson = False,
) -> None:
    """Check that everything in a recording can be read.

    Metadata, index, every file, every checksum, every frame. Writes nothing. Exits with 0 if the
    recording is sound, 1 if something is damaged, missing or left over, 2 if it could not be checked.
    Example:

    imgstore-zarr verify recording --quick
    """
    from imgstore_zarr.cli.verify import run_verify

    context.obj.failure = NOT_DONE
    run_verify(recording, storage_option or [], quick=quick, as_json=json)


@app.command()
def repair(
    context: typer.Context,
    recording: Recording,
    storage_option: StorageOptions = None,
    json: AsJson = False,
) -> None:
    """Bring back what an interrupted writer left.

    Can be interrupted, and run again. Nothing is deleted: what cannot be used is moved to the folder
    set-aside in the recording. Exits with 0 if the recording is whole, 1 if something is missing or
    damaged, 2 if it could not be repaired. Example:

    imgstore-zarr repair recording
    """
    from imgstore_zarr.cli.verify import run_repair

    context.obj.failure = NOT_DONE
    run_repair(recording, storage_option or [], as_json=json)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A recording, or a video file.")],
    destination: Annotated[str, typer.Argument(help="Where the new recording goes.")],
    format: Annotated[
        str, typer.Option("--format", "-f", help="zstd/zarr, avc1/mp4, png/dir, ...")
    ] = "zstd/zarr",
    frames: Frames = None,
    time: Time = None,
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
    storage_option: StorageOptions = None,
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
        storage_options=storage_option or [],
        chunksize=chunksize,
        damaged=damaged,
        verify=verify,
        scheduler=scheduler,
        as_json=json,
    )


@app.command()
def save(
    destination: Annotated[str, typer.Argument(help="Where the recording goes; it may be a URL.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            "-s",
            help="A video file; a folder or pattern of images; an npy or TIFF stack; the number of a "
            "camera. By default camera 0.",
        ),
    ] = None,
    format: Annotated[
        str, typer.Option("--format", "-f", help="zstd/zarr, avc1/mp4, png/dir, ...")
    ] = "zstd/zarr",
    frames: Annotated[int | None, typer.Option(min=1, help="End after so many frames.")] = None,
    duration: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="SECONDS", help="End after so long, by the frame times."),
    ] = None,
    gray: Annotated[bool, typer.Option("--gray", help="Make images gray.")] = False,
    fps: Annotated[
        float | None,
        typer.Option(help="Frames per second of images, whose files hold no times; 25 by default."),
    ] = None,
    times_from_names: Annotated[
        bool,
        typer.Option(
            "--times-from-names",
            help="Take the times of images from file names: 2024-03-01_12-00-00.250, Unix time, ...",
        ),
    ] = False,
    chunksize: Annotated[int | None, typer.Option(min=1, help="Frames in a chunk.")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="About the recording; may be repeated."),
    ] = None,
    storage_option: StorageOptions = None,
    json: AsJson = False,
) -> None:
    """Record from a camera, or from files that are no recording.

    Frame times are the video's timestamps, or those at which the camera's frames came. What a camera
    gives faster than it can be written is dropped, counted, and missing in the frame numbers. Ctrl-C
    ends it with a whole recording. Exits with 0; with 130 if interrupted before its end; with 1 after
    an error. Example:

    imgstore-zarr save bees.zarr --source 0 --gray --duration 3600 --metadata hive=7
    """
    from imgstore_zarr.cli.save import run_save

    run_save(
        destination,
        source,
        format,
        gray=gray,
        fps=fps,
        times_from_names=times_from_names,
        frames=frames,
        duration=duration,
        chunksize=chunksize,
        metadata=metadata or [],
        storage_options=storage_option or [],
        as_json=json,
    )


@app.command("test")
def check_installation(
    context: typer.Context,
    at: Annotated[
        Path | None,
        typer.Option(metavar="DIRECTORY", help="Also measure how fast can be written to there."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Check this installation.

    Every format is written, and read back in random order; codecs and optional packages are looked
    for. With --at, some seconds of recording to a directory say which camera rate it sustains. Exits
    with 0 if all is fine, 1 if something failed, 2 if it could not be run. Example:

    imgstore-zarr test --at /data
    """
    from imgstore_zarr.cli.test import run_test

    context.obj.failure = NOT_DONE
    run_test(at, as_json=json)


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
    storage_option: StorageOptions = None,
) -> None:
    """Look at recordings in a browser, side by side.

    A page on this machine alone, at an address that is printed and hard to guess. Nothing is written to
    the recordings. Ends by q in the page, or by Ctrl-C. Example:

    imgstore-zarr view left.zarr right.zarr
    """
    from imgstore_zarr.cli.view import run_view

    run_view(recordings, storage_option or [], port=port, browser=browser)


@app.command()
def report(
    recording: Recording,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the recording over time, too.")
    ] = None,
    storage_option: StorageOptions = None,
    json: AsJson = False,
) -> None:
    """Say how a recording went, also as a picture.

    Gaps, drops, jitter, repeats, chunks that are missing or damaged. Looks into every file, but decodes
    no pixels. What is found does not change the exit code. The picture needs matplotlib. Example:

    imgstore-zarr report recording --png report.png
    """
    from imgstore_zarr.cli.report import print_report

    print_report(recording, storage_option or [], png=png, as_json=json)


@app.command()
def export(
    recording: Recording,
    destination: Annotated[
        str, typer.Argument(help="A folder, or a file: .mp4, .csv, .parquet, .png, .tif.")
    ],
    frames: Frames = None,
    time: Time = None,
    to: Annotated[
        Literal["png", "tif"] | None, typer.Option(help="Images of this kind in a folder.")
    ] = None,
    extra: Annotated[
        bool, typer.Option("--extra", help="A table of the extra data, not of the frames.")
    ] = False,
    storage_option: StorageOptions = None,
    json: AsJson = False,
) -> None:
    """Write images, a video or a table, by what the destination is.

    A folder gets one image for each frame, named by its position. An .mp4 file is a video: frames are
    copied as they are encoded where that is possible, and encoded anew where it is not; it says which,
    and why. .csv and .parquet are tables of frame numbers and times, or of the extra data. Nothing is
    overwritten. Example:

    imgstore-zarr export recording clip.mp4 --frames 1000:2000
    """
    from imgstore_zarr.cli.export import run_export

    run_export(
        recording,
        destination,
        frames=frames,
        time=time,
        to=to,
        extra=extra,
        options=storage_option or [],
        as_json=json,
    )


@app.command()
def timecodes(
    recording: Recording,
    frames: Frames = None,
    time: Time = None,
    table: Annotated[
        bool,
        typer.Option("--table", help="Position, frame number, frame time and local time instead."),
    ] = False,
    storage_option: StorageOptions = None,
) -> None:
    """Print when each frame was made, for video tools.

    Matroska's timecode format v2, as mkvmerge and x264 take it: milliseconds since the first of the
    frames, one to a line. Example:

    imgstore-zarr timecodes recording --frames 1000:2000 > clip.txt
    """
    from imgstore_zarr.cli.timecodes import print_timecodes

    print_timecodes(recording, storage_option or [], frames=frames, time=time, table=table)


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
    Example:

    imgstore-zarr demo somewhere --frames 200
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
    storage_option: StorageOptions = None,
) -> None:
    """Publish recordings over HTTP as Zarr groups.

    Prints the address of each, which is a secret, on a line of its own. Whoever knows it can read with
    zarrita.js, Neuroglancer, xarray.open_zarr, and nobody can write. Ends with Ctrl-C. Needs the extra
    viewer. Example:

    imgstore-zarr serve old-recording s3://bucket/new.zarr
    """
    from imgstore_zarr.cli.serve import run_serve

    run_serve(locations, storage_option or [], host, port)


def main() -> None:
    """Run the command line."""
    run(app)

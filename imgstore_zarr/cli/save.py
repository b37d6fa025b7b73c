"""``imgstore-zarr save`` and ``imgstore-save``: record from a camera, or from what is there already."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgstore_zarr.cli.running import INTERRUPTED, interrupted, run_alone

if TYPE_CHECKING:
    from imgstore_zarr.capture import Saved, State


def run_save(
    destination: str,
    source: str | None,
    format: str,
    *,
    gray: bool = False,
    fps: float | None = None,
    times_from_names: bool = False,
    frames: int | None = None,
    duration: float | None = None,
    chunksize: int | None = None,
    metadata: Sequence[str] = (),
    storage_options: Sequence[str] = (),
    as_json: bool = False,
) -> None:
    """Record what a source gives, and print what was saved.

    Parameters
    ----------
    destination, format, frames, duration, chunksize
        See `imgstore_zarr.capture.save`.
    source, gray, fps, times_from_names
        See `imgstore_zarr.capture.open_source`.
    metadata, storage_options
        Each ``NAME=VALUE``.
    as_json
        Print one JSON document.
    """
    from imgstore_zarr.capture import open_source, save
    from imgstore_zarr.cli.console import named_values, options_of

    user = named_values(metadata, "--metadata", _plain)
    options = options_of([*storage_options])
    try:
        opened = open_source(source, gray=gray, fps=fps, times_from_names=times_from_names)
        with _stopped_by_signals() as stop, _progress(opened.name) as progress:
            saved = save(
                opened,
                destination,
                format,
                frames=frames,
                duration=duration,
                chunksize=chunksize,
                metadata=user,
                storage_options=options,
                progress=progress,
                stop=stop,
            )
    except KeyboardInterrupt:
        raise interrupted() from None
    typer.echo(json.dumps(dataclasses.asdict(saved), indent=2) if as_json else _told(saved))
    if saved.interrupted:
        raise typer.Exit(INTERRUPTED)


def main() -> None:
    """Run ``imgstore-save``, which takes what imgstore's own command takes."""
    run_alone(_save_as_imgstore)


def _save_as_imgstore(
    dest: Annotated[str, typer.Argument(metavar="DEST", help="Where the recording goes.")],
    source: Annotated[
        str | None, typer.Option(metavar="PATH", help="What to record; camera 0 by default.")
    ] = None,
    format: Annotated[str, typer.Option(help="zstd/zarr, avc1/mp4, png, ...")] = "mjpeg",
) -> None:
    """Record from a camera, or from a file.

    As imgstore-zarr save does, with the options of imgstore's own command.
    """
    run_save(dest, source, format)


def _told(saved: Saved) -> str:
    from imgstore_zarr.report import counted

    dropped = f"; {counted(saved.dropped, 'frame')} dropped" if saved.dropped else ""
    stopped = "; interrupted, and whole up to there" if saved.interrupted else ""
    return (
        f"{saved.source} -> {saved.destination} ({saved.format}): "
        f"{counted(saved.frame_count, 'frame')} of {saved.duration:.3f} s; "
        f"{saved.frames_per_second:.1f} frames/s{dropped}{stopped}"
    )


# What JSON takes for one; 007 is a name.
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


def _plain(value: str) -> Any:
    """What is meant by a value of the metadata."""
    if value in ("true", "false"):
        return value == "true"
    if _NUMBER.fullmatch(value) and math.isfinite(number := json.loads(value)):
        return number
    return value


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Give what Ctrl-C, or the request to end, sets; the second time they do what they always do."""
    stop = threading.Event()
    before: dict[int, Any] = {}

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        # Who started it may have made it deaf, as nohup does.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, end)
    try:
        yield stop
    finally:
        restore()


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[State], None]]:
    """Give what shows on stderr how saving goes, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[frames]} frames  {task.fields[rate]:.1f} frames/s"),
        TextColumn("buffer {task.fields[fill]:.0%}  {task.fields[dropped]} dropped"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(name, total=None, frames="0", rate=0.0, fill=0.0, dropped=0)

        def show(state: State) -> None:
            frames = f"{state.frames}/{state.total}" if state.total else str(state.frames)
            bar.update(
                task,
                completed=state.frames,
                total=state.total,
                frames=frames,
                rate=bar.tasks[0].speed or 0.0,
                fill=state.fill,
                dropped=state.dropped,
            )

        yield show

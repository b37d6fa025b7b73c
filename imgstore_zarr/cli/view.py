"""``imgstore-zarr view`` and ``imgstore-view``: look at recordings in a browser."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated

import typer

from imgstore_zarr.cli.console import options_of
from imgstore_zarr.cli.running import run_alone
from imgstore_zarr.errors import MissingDependencyError
from imgstore_zarr.viewer.playing import Playing


def run_view(
    recordings: Sequence[str],
    options: list[str],
    *,
    port: int = 0,
    browser: bool = True,
    playing: Playing | None = None,
) -> None:
    """Serve recordings on this machine, open the page, and return when it was ended.

    Parameters
    ----------
    recordings
        Paths and URLs.
    options
        Of URLs, each ``NAME=VALUE``.
    port
        To listen on; 0 is any that is free.
    browser
        Open the page in a browser.
    playing
        How the page begins.

    Raises
    ------
    MissingDependencyError
        The extra ``viewer`` is not installed.
    """
    try:
        from imgstore_zarr.viewer.browser import what_to_do
        from imgstore_zarr.viewer.server import view
    except ImportError as error:
        raise MissingDependencyError(
            "the viewer needs Starlette and uvicorn: pip install 'imgstore-zarr[viewer]'"
        ) from error
    logging.basicConfig(format="%(message)s")

    def ready(address: str, port: int, names: list[str]) -> None:
        typer.echo(f"Viewing {', '.join(names)}")
        typer.echo(address)
        hint = what_to_do(address, port) if browser else None
        for line in filter(None, [hint, "End it by q in the page, or by Ctrl-C."]):
            typer.echo(line)

    storage_options = options_of(options)
    view(recordings, storage_options=storage_options, port=port, playing=playing, ready=ready)


def main() -> None:
    """Run ``imgstore-view``, which takes what imgstore's own command takes."""
    run_alone(_view_as_imgstore)


def _view_as_imgstore(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A recording.")],
    fps: Annotated[
        float,
        typer.Option(min=0, max=1000, help="Play at so many frames a second; 0 is all it can."),
    ] = 30.0,
    hide_statusbar: Annotated[
        bool, typer.Option("--hide-statusbar", help="Show no frame number and time.")
    ] = False,
) -> None:
    """Play a recording in a browser.

    The same viewer as imgstore-zarr view, with the options of imgstore's own command.
    """
    run_view([path], [], playing=Playing(fps=fps, playing=True, status_bar=not hide_statusbar))

"""``imgstore-zarr serve``: recordings over HTTP, for whoever reads Zarr."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import typer

import imgstore_zarr
from imgstore_zarr.cli.console import options_of
from imgstore_zarr.errors import MissingDependencyError
from imgstore_zarr.storage import locate_urls
from imgstore_zarr.virtual_zarr import virtual_group

if TYPE_CHECKING:
    from imgstore_zarr.virtual_zarr import VirtualGroup


def run_serve(locations: Sequence[str], options: list[str], host: str, port: int) -> None:
    """Publish recordings until Ctrl-C; the address of each is a line on stdout.

    Parameters
    ----------
    locations
        Paths and URLs.
    options
        Of URLs, each ``NAME=VALUE``.
    host, port
        Where to listen; port 0 is any that is free.
    """
    try:
        from imgstore_zarr.serving.server import address_of, listening, run
    except ImportError as error:
        raise MissingDependencyError(
            "serve needs a web server: pip install 'imgstore-zarr[viewer]'"
        ) from error
    from imgstore_zarr.serving.guard import Guard, is_loopback, new_token
    from imgstore_zarr.serving.publication import CROSS_ORIGIN, Publication

    with ExitStack() as stack:
        groups: dict[str, VirtualGroup] = {}
        for location in locate_urls(options_of(options), *locations):
            store = stack.enter_context(imgstore_zarr.open(location))
            groups[_name(store.filename, groups)] = virtual_group(store)
        listener = stack.enter_context(listening(host, port))
        token = new_token()
        for name in groups:
            typer.echo(f"{address_of(listener)}/{token}/{name}")
        if not is_loopback(host):
            typer.echo("others can reach this: whoever knows an address can read", err=True)
        typer.echo("serving until Ctrl-C", err=True)
        run(Guard(Publication(groups), token, host, headers=CROSS_ORIGIN), listener)
    typer.echo("ended", err=True)


def _name(filename: str, taken: dict[str, VirtualGroup]) -> str:
    """A name for a recording that can stand in an address."""
    last = re.split(r"[/\\]", filename.rstrip("/\\"))[-1]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "recording"
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    return unique

"""How commands run, and how they end: exit codes, and one line for what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import typer

from imgstore_zarr.errors import ImgStoreError

FAILED = 1
"""Exit code of an error; of commands that check something, that it is not as it should be."""

NOT_DONE = 2
"""Exit code of a command that cannot be understood, or of a check that could not be made."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


@dataclass
class Settings:
    """What holds for the command that runs.

    Attributes
    ----------
    debug
        Show the traceback of an error.
    failure
        The exit code of an error.
    """

    debug: bool = False
    failure: int = FAILED


def new_app(help: str | None = None, *, completion: bool = True) -> typer.Typer:
    """Return what commands are added to, for `run`."""
    return typer.Typer(
        help=help,
        add_completion=completion,
        no_args_is_help=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run(commands: typer.Typer) -> None:
    """Run commands; an expected error is one line on stderr, and an exit code."""
    settings = Settings()
    try:
        commands(obj=settings)
    except (ImgStoreError, OSError) as error:
        if settings.debug:
            raise
        typer.echo(f"error: {' '.join(str(error).splitlines())}", err=True)
        sys.exit(settings.failure)


def run_alone(command: Callable[..., None]) -> None:
    """Run a command that is a script by itself."""
    script = new_app(completion=False)
    script.command(context_settings={"help_option_names": ["-h", "--help"]})(command)
    run(script)


def interrupted(text: str = "interrupted") -> typer.Exit:
    """Say that Ctrl-C ended a command, and return what is to be raised."""
    typer.echo(text, err=True)
    return typer.Exit(INTERRUPTED)

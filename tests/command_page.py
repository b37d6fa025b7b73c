"""The page of the command line, as its commands describe themselves: ``python -m tests.command_page``.

Writes ``docs/commands.md``. A test compares that page with what is made here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo

from imgstore_zarr.cli.app import app

PAGE = Path(__file__).parents[1] / "docs/commands.md"

INTRODUCTION = """\
# Commands

<!-- Made by: python -m tests.command_page -->

`imgstore-zarr` and the name of a command. `imgstore-zarr COMMAND --help` says what is here, too.

- A recording is named by its folder, by its `metadata.yaml` or `zarr.json`, or by a URL as
  `s3://bucket/recording`. What a URL needs is in the environment, or in `--storage-option NAME=VALUE`.
- `--json` prints one JSON document where a machine may read it. Numbers that are not known are `null`.
- Ranges are half-open: `--frames 100:200` is the positions 100 to 199. One end may be left out, and
  negative ones count from the end: `--frames=-100:` is the last hundred.
- Progress is on stderr, and only on a terminal. What is printed on stdout can be piped.
- Nothing is overwritten. [Exporting](exporting.md) has more on `export` and `timecodes`.

## When something goes wrong

An error is one line on stderr. [Errors](errors.md) has the usual cause of each, and its cure.
`imgstore-zarr --debug COMMAND ...` shows where it came from.

| exit code | means |
|---|---|
| 0 | done; of `verify` and `repair`: the recording is sound; of `test`: all is fine |
| 1 | an error; of `verify`, `repair` and `test`: something is damaged, missing, or failed |
| 2 | the command cannot be understood; of `verify`, `repair` and `test`: it could not be done |
| 130 | interrupted by Ctrl-C |

## Completion

`imgstore-zarr --install-completion` teaches the shell that you use (bash, zsh, fish, PowerShell) to
complete commands and options. Start a new shell afterwards. `imgstore-zarr --show-completion` prints
what it would install.
"""


@dataclass(frozen=True)
class Parameter:
    """An argument or an option, as it is typed."""

    typed: str
    help: str
    default: str


@dataclass(frozen=True)
class Command:
    """A command, as its function describes it."""

    name: str
    help: str
    parameters: tuple[Parameter, ...]

    @property
    def example(self) -> str | None:
        """The line of the help that can be typed."""
        lines = re.findall(r"^imgstore-zarr .+$", self.help, re.MULTILINE)
        return lines[-1] if lines else None


def commands() -> list[Command]:
    """The commands, in the order in which they are listed."""
    found = []
    for registered in app.registered_commands:
        function = registered.callback
        assert function is not None
        hints = get_type_hints(function, include_extras=True)
        parameters = [
            _parameter(name, hints[name], parameter.default)
            for name, parameter in inspect.signature(function).parameters.items()
            if hints[name] is not typer.Context
        ]
        name = registered.name or function.__name__
        found.append(Command(name, inspect.getdoc(function) or "", tuple(parameters)))
    return found


def _parameter(name: str, hint: Any, default: Any) -> Parameter:
    kind, described = get_args(hint)[:2]
    text = " ".join((described.help or "").split())
    if isinstance(described, ArgumentInfo):
        typed = f"`{described.metavar or name.upper()}`"
    else:
        # The first name stands where the default would, were it not in the signature.
        first = [described.default] if str(described.default).startswith("-") else []
        names = [*first, *(described.param_decls or ())] or [f"--{name.replace('_', '-')}"]
        typed = ", ".join(f"`{one}`" for one in names)
        if kind is not bool:
            typed += f" `{described.metavar or _value_of(kind)}`"
    if default is inspect.Parameter.empty:
        shown = "must be given"
    elif default is None or default is False:
        shown = ""
    else:
        shown = f"`{'on' if default is True else default}`"
    return Parameter(typed, text, shown)


def _value_of(kind: Any) -> str:
    """What an option takes; of several types that which is not None."""
    kinds = [one for one in get_args(kind) if one is not type(None)]
    if get_origin(kind) is Literal:
        return " or ".join(map(str, kinds))
    if kinds and get_origin(kind) is not list:
        return _value_of(kinds[0])
    return {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _table(command: Command) -> Iterator[str]:
    yield "| | | by default |"
    yield "|---|---|---|"
    for parameter in command.parameters:
        cells = map(_cell, (parameter.typed, parameter.help, parameter.default))
        yield f"| {' | '.join(cells)} |"


def _section(command: Command) -> Iterator[str]:
    """A command: its help, its example, and what it takes."""
    yield f"## {command.name}"
    for paragraph in command.help.split("\n\n"):
        text = " ".join(paragraph.split())
        if text != command.example:
            yield text.removesuffix(" Example:").removesuffix("Example:")
    yield f"```console\n$ {command.example}\n```"
    yield "\n".join(_table(command))


def page() -> str:
    """Return the page."""
    sections = ["\n\n".join(_section(command)) for command in commands()]
    return "\n".join([INTRODUCTION, *(f"{section}\n" for section in sections)])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

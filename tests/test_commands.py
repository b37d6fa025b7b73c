"""What all commands have in common, and the page that describes them."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from tests import command_page
from tests.command_page import Command, commands
from tests.test_cli import Finished, run

SCRIPT = str(Path(sys.executable).with_name("imgstore-zarr"))

COMMANDS = commands()

# What is typed for commands that need a recording, where `nowhere` is none.
MISSING = {
    "info": ["nowhere"],
    "ls": ["nowhere"],
    "verify": ["nowhere"],
    "repair": ["nowhere"],
    "convert": ["nowhere", "new.zarr"],
    "save": ["new.zarr", "--source", "nowhere"],
    "view": ["nowhere", "--no-browser"],
    "report": ["nowhere"],
    "export": ["nowhere", "images"],
    "timecodes": ["nowhere"],
    "serve": ["nowhere"],
}

# They need none.
OWN = {"demo", "test"}


def script(*arguments: str, cwd: Path | None = None) -> Finished:
    return run([SCRIPT, *arguments], cwd)


def name_of(command: Command) -> str:
    return command.name


def test_every_command_is_known_here() -> None:
    assert {command.name for command in COMMANDS} == {*MISSING, *OWN}
    listed = script("--help").stdout.partition("Commands:")[2]
    assert re.findall(r"^  (\w+) ", listed, re.MULTILINE) == [c.name for c in COMMANDS]
    # None is cut off in a terminal of 80 characters.
    assert "..." not in listed


@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_a_command_explains_itself(command: Command) -> None:
    helped = script(command.name, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert command.example is not None
    assert command.example in re.sub(r"\s+", " ", helped.stdout)
    for parameter in command.parameters:
        assert parameter.help, parameter.typed
        for name in re.findall(r"--[\w-]+", parameter.typed):
            assert name in helped.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_an_example_is_one_that_can_be_typed(command: Command) -> None:
    assert command.example is not None
    words = shlex.split(command.example.partition(">")[0])
    assert words[:2] == ["imgstore-zarr", command.name]
    known = {
        name
        for parameter in command.parameters
        for name in re.findall(r"--?\w[\w-]*", parameter.typed)
    }
    assert {word for word in words[2:] if word.startswith("-")} <= known


@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_an_unknown_option_is_a_usage_error(command: Command, tmp_path: Path) -> None:
    finished = script(command.name, "--no-such-option", cwd=tmp_path)
    assert finished.returncode == 2
    assert "--no-such-option" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", MISSING)
def test_a_recording_that_is_not_there_is_one_line(name: str, tmp_path: Path) -> None:
    finished = script(name, *MISSING[name], cwd=tmp_path)
    assert finished.returncode == (2 if name in ("verify", "repair") else 1)
    assert finished.stdout == ""
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1
    assert "nowhere" in finished.stderr
    assert list(tmp_path.iterdir()) == []
    shown = script("--debug", name, *MISSING[name], cwd=tmp_path)
    assert "Traceback" in shown.stderr


def test_help_loads_no_numpy() -> None:
    """Nothing of the package but the command line, so that help is there at once."""
    for arguments in (["--help"], ["export", "--help"], ["--version"]):
        code = (
            "import sys, imgstore_zarr.cli as cli\n"
            f"sys.argv = ['imgstore-zarr', *{arguments!r}]\n"
            "try: cli.main()\n"
            "except SystemExit: pass\n"
            "print(*sorted(m for m in sys.modules if m.startswith('imgstore_zarr')), file=sys.stderr)\n"
            "print('numpy' in sys.modules, 'rich' in sys.modules, file=sys.stderr)"
        )
        loaded, heavy = run([sys.executable, "-c", code]).stderr.splitlines()
        assert loaded.split() == [
            "imgstore_zarr",
            "imgstore_zarr._version",
            "imgstore_zarr.cli",
            "imgstore_zarr.cli.app",
            "imgstore_zarr.cli.options",
            "imgstore_zarr.cli.running",
            "imgstore_zarr.errors",
        ]
        assert heavy == "False False"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, tmp_path: Path) -> None:
    asked = {
        "COMP_WORDS": "imgstore-zarr re",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "imgstore-zarr re",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    environment = ["env", *(f"{k}={v}" for k, v in asked.items())]
    done = run([*environment, f"_IMGSTORE_ZARR_COMPLETE=complete_{shell}", SCRIPT], tmp_path)
    found = set(re.findall(r"\b(?:repair|report|info|export)\b", done.stdout))
    assert found == {"repair", "report"}


def test_completion_can_be_installed(tmp_path: Path) -> None:
    home = [
        "env",
        f"HOME={tmp_path}",
        "SHELL=/bin/bash",
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1",
    ]
    done = run([*home, SCRIPT, "--install-completion", "bash"], tmp_path)
    assert done.returncode == 0, done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_IMGSTORE_ZARR_COMPLETE=complete_bash" in path.read_text() for path in written)


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    assert command_page.PAGE.read_text(encoding="utf-8") == command_page.page(), (
        "docs/commands.md is not up to date: python -m tests.command_page"
    )

"""Servers as processes of their own, so that their work does not share this process's lock."""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence

_START = 60.0


class Server:
    """A process that listens on a free port of this machine, until this process ends.

    Parameters
    ----------
    command
        Starts it.
    ready
        Matches what it prints once it listens, with the port as the group.
    """

    def __init__(self, command: Sequence[str], ready: str = r"^(\d+)$") -> None:
        self._owner = os.getpid()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process runs
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True
        )
        atexit.register(self.stop)
        self.port = self._wait_for_port(ready)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def _wait_for_port(self, ready: str) -> int:
        assert self.process.stdout is not None
        timer = threading.Timer(_START, self.process.kill)
        timer.start()
        try:
            for line in self.process.stdout:
                if found := re.search(ready, line):
                    return int(found[1])
        finally:
            timer.cancel()
        self._said.seek(0)
        raise RuntimeError(f"{self.process.args!r} did not start: {self._said.read()!r}")

    def stop(self) -> None:
        """End the process."""
        if self._owner != os.getpid():
            return  # a fork's
        atexit.unregister(self.stop)
        self.process.kill()
        self.process.communicate()
        self._said.close()


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this folder."""
    return [sys.executable, "-m", f"tests.servers.{name}", *arguments]


def end_with_parent() -> None:
    """End this process when the one that started it has, however that ended."""

    def wait() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()

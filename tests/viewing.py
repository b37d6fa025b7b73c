"""``imgstore-zarr view`` as a process of its own, and recordings for it to show."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray

_START = 60.0
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/")


def script(name: str) -> str:
    """Where an installed command is."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else str(shutil.which(name))


class Viewing:
    """A viewer that runs; what it printed, and how to ask it.

    Parameters
    ----------
    arguments
        Recordings and options.
    command
        The installed script, with its subcommand.
    """

    def __init__(
        self, *arguments: str | Path, command: tuple[str, ...] = ("imgstore-zarr", "view")
    ) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        own = ["--no-browser"] if command[-1] == "view" else []
        environment = {k: v for k, v in os.environ.items() if "DISPLAY" not in k}
        self.process = subprocess.Popen(
            [script(command[0]), *command[1:], *map(str, arguments), *own],
            stdout=subprocess.PIPE,
            stderr=self._said,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment | {"PYTHONUNBUFFERED": "1"},
        )
        self.printed: list[str] = []
        self.url, self.port, self.token = self._wait()
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def _wait(self) -> tuple[str, int, str]:
        assert self.process.stdout is not None
        timer = threading.Timer(_START, self.process.kill)
        timer.start()
        try:
            for line in self.process.stdout:
                self.printed.append(line.rstrip("\n"))
                if found := _ADDRESS.fullmatch(self.printed[-1]):
                    return found[0], int(found[1]), found[2]
        finally:
            timer.cancel()
        raise RuntimeError(f"the viewer did not start: {self.stderr()}")

    def stderr(self) -> str:
        """What it wrote to stderr so far."""
        return os.pread(self._said.fileno(), 2**24, 0).decode()

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        """Answer of a path below the token."""
        return self.client.get(path, params=parameters or None)

    def json(self, path: str, **parameters: Any) -> Any:
        """JSON answer of a path below the token."""
        answer = self.get(path, **parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @property
    def memory(self) -> int:
        """Bytes that the process holds (Linux)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) * 1024

    def end(self) -> int:
        """End it as Ctrl-C does, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.close()
        try:
            self.end()
        finally:
            self.process.kill()
            self.process.communicate()
        said = self.stderr()
        self._said.close()
        if error is not None:
            print(said)
        assert "Traceback" not in said, said


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Overwrite the middle of a file, and put it back afterwards."""
    good = path.read_bytes()
    middle, size = len(good) // 2, max(len(good) // 20, 64)
    path.write_bytes(good[:middle] + bytes(size) + good[middle + size :])
    try:
        yield
    finally:
        path.write_bytes(good)


def mean_of_squares(image: NDArray[Any], side: int) -> NDArray[np.float64]:
    """Each square of pixels as its mean."""
    y, x = (n // side for n in image.shape[:2])
    squares = image.astype(np.float64).reshape(y, side, x, side, *image.shape[2:])
    means: NDArray[np.float64] = squares.mean(axis=(1, 3))
    return means

"""An interpreter that has the real imgstore."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PYTHON_VARIABLE = "IMGSTORE_REFERENCE"
"""The environment variable that names an interpreter that has imgstore 0.4.0."""

PACKAGES = (
    "imgstore==0.4.0",
    "h5py==3.16.0",
    "numpy==2.4.6",
    "opencv-python-headless==5.0.0.93",
    "pandas==3.1.1",
)
"""Those with which the reference is known to behave as the tests say."""

PATIENCE = 300.0
"""Seconds that making the environment may take."""


def reference_python(cache: Path) -> str:
    """Return the interpreter: the one that is named, or one made in the cache unless it is there.

    Raises
    ------
    OSError, subprocess.SubprocessError
        It could not be made, for instance without a network.
    """
    if named := os.environ.get(PYTHON_VARIABLE):
        return named
    home = cache / f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter, complete = home / "bin" / "python", home / "complete"
    made_of = "\n".join(PACKAGES)
    with _locked(cache / "lock"):
        if not complete.exists() or complete.read_text() != made_of:
            _run(sys.executable, "-m", "venv", "--clear", str(home))
            _run(str(interpreter), "-m", "pip", "install", "--quiet", *PACKAGES)
            complete.write_text(made_of)
    return str(interpreter)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock against the other processes of the test run; waits no longer than `PATIENCE`."""
    with path.open("w") as file:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        yield

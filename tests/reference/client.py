"""The client's side of the process that runs the real imgstore."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import imgstore_zarr
from tests.reference import worker

PATIENCE = 60.0
"""Seconds that one call, or the start, may take."""


class ImgStoreRaisedError(Exception):
    """What the real imgstore raised.

    Attributes
    ----------
    builtins
        The names of the builtin exceptions that it is, the most special first.
    """

    def __init__(self, name: str, builtins: list[str], message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.builtins = builtins


class Reference:
    """The functions of `tests.reference.worker`, run on the real imgstore.

    Parameters
    ----------
    interpreter
        The Python that has imgstore.
    """

    def __init__(self, interpreter: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [interpreter, "-I", "-W", "ignore", worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __call__(self, function: str, **arguments: Any) -> Any:
        """Run one function and return its result.

        Raises
        ------
        ImgStoreRaisedError
            It raised.
        RuntimeError
            The process ended, or did not answer in time and was ended.
        """
        answer = json.loads(self._ask(json.dumps({"do": function, "with": arguments}, default=str)))
        if "raised" in answer:
            raise ImgStoreRaisedError(**answer["raised"])
        return answer["result"]

    def _ask(self, question: str) -> str:
        pipes = self._process.stdin, self._process.stdout
        assert pipes[0] is not None
        assert pipes[1] is not None
        watch = threading.Timer(PATIENCE, self._process.kill)
        watch.start()
        try:
            pipes[0].write(question + "\n")
            pipes[0].flush()
            line = pipes[1].readline()
        except BrokenPipeError:
            line = ""
        finally:
            watch.cancel()
        if not line:
            code = self._process.wait(PATIENCE)
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"the reference ended ({code}) when asked {question[:500]}: {said}")
        return line

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def ours(function: str, **arguments: Any) -> Any:
    """Run the same function on this project, in this process."""
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in arguments.items()}
    return worker.FUNCTIONS[function](imgstore_zarr, **plain)

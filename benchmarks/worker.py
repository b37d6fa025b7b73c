"""A contender in a process and, if need be, an interpreter of its own.

The module of the contender is served as JSON lines: ``{"do": name, "with": arguments, "peak": bool}``
is answered by ``{"result": ...}`` or ``{"error": ...}``.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent


class Worker:
    """The client's side of one contender.

    Parameters
    ----------
    peer
        Name of a module in `benchmarks.peers`.
    interpreter
        The Python that has what the contender needs.
    """

    def __init__(self, peer: str, interpreter: str = sys.executable) -> None:
        self.peer = peer
        self._process = subprocess.Popen(
            [interpreter, "-m", "benchmarks.worker", f"benchmarks.peers.{peer}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def call(self, do: str, **arguments: Any) -> Any:
        """Run one function of the contender and return its result."""
        return self._ask({"do": do, "with": arguments})

    def call_and_peak(self, do: str, **arguments: Any) -> tuple[float, float]:
        """Run one function; return its result and the growth of peak memory meanwhile, in bytes."""
        result, growth = self._ask({"do": do, "with": arguments, "peak": True})
        return float(result), float(growth)

    def _ask(self, question: dict[str, Any]) -> Any:
        pipes = self._process.stdin, self._process.stdout
        assert pipes[0] is not None
        assert pipes[1] is not None
        pipes[0].write(json.dumps(question) + "\n")
        pipes[0].flush()
        line = pipes[1].readline()
        if not line:
            raise RuntimeError(f"{self.peer} ended while it was asked to {question['do']}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.peer}, {question['do']}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _memory(field: str) -> int:
    # Not getrusage: its peak is inherited over fork and exec, and cannot be reset.
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def _serve(peer: str) -> None:
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module = importlib.import_module(peer)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            before = 0
            if question.get("peak"):
                Path("/proc/self/clear_refs").write_text("5")
                before = _memory("VmRSS")
            result = getattr(module, question["do"])(**question["with"])
            if question.get("peak"):
                result = result, _memory("VmHWM") - before
            answer = {"result": result}
        except Exception as error:  # noqa: BLE001 - it is raised again on the other side
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])

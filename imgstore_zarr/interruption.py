"""Ctrl-C that waits for the end of what must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any

# Those whose handlers may raise: Ctrl-C, being told to end, and time limits.
_NAMES = ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2")
_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class Deferred:
    """A context in which signals are noted, and answered when it ends; for moments, not for waits.

    Python raises KeyboardInterrupt between any two steps of the main thread, and so may the handler
    of any other signal. Other threads are never interrupted, and there this does nothing.
    """

    def __init__(self) -> None:
        self._handlers: list[tuple[int, Any]] = []
        self._noted: dict[int, FrameType | None] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers.append((number, handler))
                    signal.signal(number, self._note)
        except BaseException:  # of a signal that is not deferred yet
            self.__exit__(None, None, None)
            raise

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted[number] = frame

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handlers:
            try:
                _each(signal.signal, self._handlers)
            finally:
                handlers = dict(self._handlers)
                _each(lambda number, frame: handlers[number](number, frame), [*self._noted.items()])


def _each(work: Callable[[Any, Any], object], arguments: Sequence[tuple[Any, Any]]) -> None:
    """Do something with each of the arguments, whatever one of them raises."""
    if arguments:
        try:
            work(*arguments[0])
        finally:
            _each(work, arguments[1:])

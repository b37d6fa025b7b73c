"""Desk: the reading that is done for one recording, in two threads, the newest wish first."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

MOST_NOW = 4
"""Wishes of the moment that may wait; a newer one takes the place of the oldest."""

MOST_AHEAD = 24
"""Frames that will be shown next and may wait."""


class SupersededError(Exception):
    """Nobody waits for this any more: newer wishes took its place."""


@dataclass
class _Job:
    key: Hashable
    work: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)


class Desk:
    """Does work of two kinds: what is looked at now, and what will be looked at next.

    Whoever drags along a timeline makes wishes faster than frames are read. The newest is answered
    first, and those that waited too long are not answered at all. What is read ahead keeps its order,
    since frames of video are read best one after the other.

    Parameters
    ----------
    name
        For the threads.
    turns
        How many desks may work at the same time.
    """

    def __init__(self, name: str, turns: threading.Semaphore) -> None:
        self._turns = turns
        self._changed = threading.Condition()
        self._now: deque[_Job] = deque()
        self._ahead: deque[_Job] = deque()
        self._jobs: dict[Hashable, _Job] = {}
        self._closed = False
        for takes_ahead in (False, True):
            threading.Thread(
                target=self._work, args=(takes_ahead,), name=f"view-{name}", daemon=True
            ).start()

    def ask(self, key: Hashable, work: Callable[[], Any], *, ahead: bool = False) -> Future[Any]:
        """Have work done, unless work of this key is under way already.

        Returns
        -------
        Future
            Of the result; raises SupersededError where newer wishes took its place.
        """
        with self._changed:
            job = self._jobs.get(key)
            if job is not None:
                if not ahead and job in self._ahead:
                    self._ahead.remove(job)
                    self._now.append(job)
                    self._changed.notify_all()
                return job.future
            job = self._jobs[key] = _Job(key, work)
            queue, most = (self._ahead, MOST_AHEAD) if ahead else (self._now, MOST_NOW)
            queue.append(job)
            dropped = queue.popleft() if len(queue) > most else None
            if dropped:
                del self._jobs[dropped.key]
            self._changed.notify_all()
        if dropped:
            dropped.future.set_exception(SupersededError())
        return job.future

    def _work(self, takes_ahead: bool) -> None:
        while (job := self._take(takes_ahead)) is not None:
            try:
                with self._turns:
                    result = job.work()
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                self._done(job)
                job.future.set_exception(error)
            else:
                self._done(job)
                job.future.set_result(result)
                del result
            del job

    def _take(self, takes_ahead: bool) -> _Job | None:
        with self._changed:
            while not self._closed:
                if takes_ahead and self._ahead:
                    return self._ahead.popleft()
                if self._now:
                    return self._now.pop()
                self._changed.wait()
            return None

    def _done(self, job: _Job) -> None:
        with self._changed:
            del self._jobs[job.key]

    def close(self) -> None:
        """Begin nothing more; what waits is superseded."""
        with self._changed:
            self._closed = True
            waiting = [*self._now, *self._ahead]
            self._now.clear()
            self._ahead.clear()
            self._changed.notify_all()
        for job in waiting:
            job.future.set_exception(SupersededError())

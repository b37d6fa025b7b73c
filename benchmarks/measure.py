"""Contenders side by side: ours, peer, ours, peer ...; the ratio of the medians counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

Timed = Callable[[], float]
"""Does one repetition and returns what it took; less is better."""

Show = Callable[[float], str]


def rate(seconds: float) -> str:
    return f"{1 / seconds:,.0f} frames/s"


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.1 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def mebibytes(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


@dataclass(frozen=True)
class Peer:
    """Another contender.

    Attributes
    ----------
    name
        As the table shows it.
    timed
        One repetition.
    budget
        The ratio that docs/design asks for, None where it asks nothing.
    once
        Too slow to repeat: done in the first round only.
    """

    name: str
    timed: Timed
    budget: float | None = None
    once: bool = False


@dataclass(frozen=True)
class Work:
    """What everybody does.

    Attributes
    ----------
    name
        As the table shows it.
    show
        How a result is written.
    ours
        One repetition.
    peers
        The others.
    limit
        An absolute budget of ours, None where there is none.
    once
        Ours too is done once: what is measured does not vary, or nearly so.
    """

    name: str
    show: Show
    ours: Timed
    peers: Sequence[Peer] = ()
    limit: float | None = None
    once: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    work: str
    ours: str
    peer: str = ""
    theirs: str = ""
    ratio: str = ""
    spread: str = ""
    budget: str = ""
    met: bool | None = None


def run(work: Work, repetitions: int) -> list[Row]:
    """Measure; the first round warms up and is thrown away where there is more than one.

    Returns
    -------
    list
        A row for each peer, and one for an absolute budget. The ratio is that of the medians, how
        many times less ours takes; the spread is that of the ratios of single rounds.
    """
    rounds = 1 if work.once else repetitions
    ours: list[float] = []
    theirs: list[list[float]] = [[] for _ in work.peers]
    for turn in range(rounds if work.once else rounds + 1):
        warm_up = turn == 0 and not work.once
        result = work.ours()
        if not warm_up:
            ours.append(result)
        for peer, results in zip(work.peers, theirs, strict=True):
            if peer.once and results:
                continue
            result = peer.timed()
            if not warm_up or peer.once:
                results.append(result)
    rows = []
    shown = work.show(median(ours))
    if not theirs and work.limit is None:
        rows.append(Row(work.name, shown))
    if work.limit is not None:
        met = median(ours) < work.limit
        rows.append(Row(work.name, shown, budget=f"under {work.show(work.limit)}", met=met))
    for peer, results in zip(work.peers, theirs, strict=True):
        ratio = median(results) / median(ours)
        if len(results) > 1:
            single = [b / a for a, b in zip(ours, results, strict=True)]
            spread = f"{_digits(min(single))} to {_digits(max(single))}"
        else:
            spread = "once"
        rows.append(
            Row(
                work.name,
                shown,
                peer.name,
                work.show(median(results)),
                _digits(ratio),
                spread,
                "" if peer.budget is None else f"{peer.budget:g}",
                None if peer.budget is None else ratio >= peer.budget,
            )
        )
    return rows


def _digits(ratio: float) -> str:
    if ratio < 0.01:
        return "under 0.01"
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"

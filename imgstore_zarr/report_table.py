"""What a report lists, as a table and as HTML for notebooks."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from imgstore_zarr.layouts import Problem
from imgstore_zarr.report import Report, Step, counted
from imgstore_zarr.timeline import ChunkTimes

if TYPE_CHECKING:
    import pandas as pd

_SHOWN_IN_HTML = 10

# Of the columns of `_Finding`. A gap can be longer than int64.
_DTYPES: list[Any] = ["string", *["Int64"] * 2, "float64", "UInt64", "float64", "Int64", "string"]


class _Finding(NamedTuple):
    """One row of `to_dataframe`."""

    kind: str
    position: int | None
    frame_number: int | None
    frame_time: float
    missing: int | None
    seconds: float
    chunk: int | None
    message: str


def to_dataframe(report: Report) -> pd.DataFrame:
    """Return what a report lists, one row each; see `Report.to_dataframe`."""
    import pandas as pd

    rows = list(_findings(report))
    columns = {
        name: pd.Series([getattr(row, name) for row in rows], dtype=dtype)
        for name, dtype in zip(_Finding._fields, _DTYPES, strict=True)
    }
    return pd.DataFrame(columns).sort_values("position", kind="stable", ignore_index=True)


def to_html(report: Report) -> str:
    """Return the facts of a report and the first of what it lists, as HTML for notebooks."""
    found = list(_findings(report))
    count = report.gap_count + report.repeated + report.backward + report.backward_times
    hidden = count + len(report.problems) - len(found[:_SHOWN_IN_HTML])
    name = html.escape(report.name)
    text = f"<b>Report</b> <code>{name}</code>{_html_table(_facts(report).items(), head='th')}"
    if found:
        titles = ("kind", "position", "frame time", "what")
        text += _html_table([titles, *map(_shown, found[:_SHOWN_IN_HTML])])
    return text + (f"<p>... and {hidden:,} more</p>" if hidden else "")


def _shown(row: _Finding) -> tuple[str, ...]:
    position = "" if row.position is None else str(row.position)
    time = f"{row.frame_time:.3f} s" if math.isfinite(row.frame_time) else ""
    return row.kind, position, time, row.message


def _html_table(rows: Iterable[Sequence[str]], head: str = "td") -> str:
    """Rows of text as a table, the first column of each within the tag `head`."""
    left = "style='text-align:left'"
    lines = [
        [f"<{head} {left}>{html.escape(row[0])}</{head}>"]
        + [f"<td {left}>{html.escape(cell)}</td>" for cell in row[1:]]
        for row in rows
    ]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in map("".join, lines)) + "</table>"


def _facts(report: Report) -> dict[str, str]:
    facts = {
        "format": f"{report.format} ({report.layout} layout)",
        "frames": f"{report.frame_count:,} in {counted(report.chunk_count, 'chunk')}",
        "duration": f"{report.duration:.3f} s",
        "rate": f"{1 / report.interval:.2f} frames/s" if report.interval > 0 else "unknown",
    }
    if report.frame_count > 1:
        facts["interval"] = (
            f"{report.interval * 1e3:.3f} ms, jitter {report.jitter * 1e3:.3f} ms, "
            f"longest {report.longest_interval * 1e3:.3f} ms"
        )
    facts["gaps"] = f"{report.gap_count:,} with {counted(report.dropped, 'frame')} dropped"
    facts["order"] = (
        f"{report.repeated:,} frame numbers repeated, {report.backward:,} going back; "
        f"{report.backward_times:,} times going back"
    )
    facts["problems"] = str(len(report.problems) or "none")
    return facts


def _findings(report: Report) -> Iterator[_Finding]:
    """Problems, gaps and steps."""
    for problem in report.problems:
        yield _of_problem(problem, report.chunk_times)
    for gap in report.gaps:
        what = f"{counted(gap.missing, 'frame')} dropped after number {gap.after}"
        yield _Finding(
            "gap", gap.position, gap.before, gap.frame_time, gap.missing, gap.seconds, None, what
        )
    for step in report.steps:
        yield _Finding(
            step.kind, step.position, step.frame_number, step.frame_time, None, step.seconds, None,
            _step_text(step),
        )  # fmt: skip


def _step_text(step: Step) -> str:
    if step.kind == "backward-time":
        return f"the time goes back by {-step.seconds:.3f} s"
    if step.kind == "repeat":
        return f"number {step.frame_number} is repeated"
    return f"the number goes back from {step.before} to {step.frame_number}"


def _of_problem(problem: Problem, chunks: ChunkTimes) -> _Finding:
    nan, chunk = float("nan"), problem.chunk
    rows = np.flatnonzero(chunks.number == chunk)
    if chunk is None or not len(rows):
        return _Finding(problem.kind, None, None, nan, None, nan, chunk, problem.message)
    position, number = int(chunks.position[rows[0]]), int(chunks.frame_number[rows[0]])
    time = float(chunks.start[rows[0]])
    return _Finding(problem.kind, position, number, time, None, nan, chunk, problem.message)

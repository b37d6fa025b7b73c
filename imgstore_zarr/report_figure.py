"""How a report is drawn: the recording over time, its gaps and damage, and extra data."""

from __future__ import annotations

import datetime as dt
import functools
import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from imgstore_zarr.errors import MissingDependencyError
from imgstore_zarr.index import Float64s
from imgstore_zarr.report import Report
from imgstore_zarr.timeline import UNIX_TIMES, Timeline, span_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_COLUMNS = 1000  # as many as it has pixels, about
_FIELDS = 4
_LABELLED = 8
_MARKED = 60
_LONGEST_NAME = 64
_WIDTH = 10.0
_INK, _AXIS, _GRID = "#33373d", "#9aa0a6", "#eceef0"
_GAP, _DAMAGE = "#d5d8dc", "#d1495b"
_ALPHA = {_GAP: 0.7, _DAMAGE: 0.3}
_INTERVAL, _RANGE = "#1f6f8b", "#a9cbd6"
_CURVES = ("#b36a00", "#6a994e", "#7d5a8c", "#5b7083")
_TEXT: dict[str, Any] = {"fontsize": 9, "color": _INK}

# What says when a record was made, and not what was measured.
_NO_FIELDS = {"frame_time", "frame_index", "frame_number", "sensor_time"}

# Up to how many seconds which unit is used.
_UNITS = (
    (180, 1.0, "s"), (10_800, 60.0, "min"), (259_200, 3600.0, "h"), (math.inf, 86_400.0, "days"),
)  # fmt: skip

# Kinds of problems that say that frames of a chunk are not there, or not to be trusted.
_DAMAGES = ("chunk-", "frames-", "index-damaged")


class _Clock(NamedTuple):
    """How frame times are shown: since when, and in which unit."""

    start: float
    span: float
    seconds: float
    unit: str

    def at(self, time: Any) -> Any:
        """Frame times as they are shown."""
        return (time - self.start) / self.seconds

    @property
    def label(self) -> str:
        since = "the first frame"
        if UNIX_TIMES[0] <= self.start < UNIX_TIMES[1]:
            since = f"{dt.datetime.fromtimestamp(self.start, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
        return f"time since {since}  [{self.unit}]"


def _unit(span: float) -> tuple[float, str]:
    """In which unit a stretch of time is shown, and how many seconds that has."""
    return next((seconds, unit) for most, seconds, unit in _UNITS if span <= most)


def _clock(line: Timeline) -> _Clock | None:
    """The clock of a timeline; None where there are no times, or none that can be drawn."""
    if not len(line):
        return None
    start, span = float(line.start[0]), line.width * len(line)
    if not max(abs(start), span) < 1e300:
        return None
    return _Clock(start, span, *_unit(span))


class _Mark(NamedTuple):
    """A stretch of time that is marked in every panel."""

    begin: float
    end: float
    color: str
    text: str


def draw(
    report: Report, extra: pd.DataFrame | None, fields: Sequence[str] | None, ax: Any
) -> Figure:
    """Draw a report over time; see `Report.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "plot() needs matplotlib: pip install 'imgstore-zarr[plot]'"
        ) from error
    if ax is not None and extra is not None:
        raise ValueError("extra data need panels of their own: leave out ax, or extra")
    curves = _curves(extra, fields)
    line, clock, marks = report.timeline, _clock(report.timeline), _marks(report)
    drops = ax is None and report.gap_count > _LABELLED
    if ax is None:
        figure, panels = _panels([2.2, *[0.9] * drops, *[1.1] * len(curves)], marks)
        _title(figure, report)
    else:
        figure, panels = ax.figure, [ax]
        while not isinstance(figure, Figure):  # but a part of one
            figure = figure.figure
    _draw_intervals(panels[0], line, clock)
    if drops:
        _draw_drops(panels[1], line, clock)
    for i, (panel, curve) in enumerate(zip(panels[1 + drops :], curves, strict=True)):
        _draw_curve(panel, *curve, clock, _CURVES[i % len(_CURVES)])
    for panel in panels:
        _finish(panel, clock, marks, first=panel is panels[0])
        panel.tick_params(labelbottom=panel is panels[-1])
    if clock is not None:
        _label(panels[0], clock, [mark for mark in marks if mark.text])
        panels[-1].set_xlabel(clock.label, **_TEXT)
    return figure


def _panels(heights: list[float], marks: list[_Mark]) -> tuple[Figure, list[Any]]:
    """A figure of panels of these heights in inches, and the key to the marks."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    above, between, below = (1.3 if any(mark.text for mark in marks) else 0.95), 0.42, 0.55
    total = above + sum(heights) + between * (len(heights) - 1) + below
    figure = Figure(figsize=(_WIDTH, total), dpi=120, facecolor="white")
    # A notebook shows a figure that pyplot does not know only if it is its own picture.
    setattr(figure, "_repr_png_", functools.partial(_png, figure))  # noqa: B010
    panels: list[Any] = []
    top = total - above
    for height in heights:
        box = (0.09, (top - height) / total, 0.89, height / total)
        panels.append(figure.add_axes(box, sharex=panels[0] if panels else None))
        top -= height + between
    patches = [
        Patch(facecolor=(color, _ALPHA[color]), edgecolor=(color, 0.7), label=text)
        for color, text in ((_GAP, "gap"), (_DAMAGE, "missing or damaged"))
        if any(mark.color == color for mark in marks)
    ]
    if patches:
        figure.legend(
            handles=patches, loc="upper right", bbox_to_anchor=(0.988, 1 - 0.31 / total),
            ncols=len(patches), frameon=False, fontsize=9, labelcolor=_INK, handlelength=1.2,
        )  # fmt: skip
    return figure, panels


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _title(figure: Figure, report: Report) -> None:
    inch = 1 / figure.get_figheight()
    name = report.name.rstrip("/").rsplit("/", 1)[-1] or report.name
    name = name if len(name) <= _LONGEST_NAME else f"{name[:30]} … {name[-30:]}"
    facts = [_many(report.frame_count, "frame"), _duration(report.duration), "no gaps"]
    if report.interval > 0:
        facts.insert(1, f"{1 / report.interval:,.2f} frames/s")
    if report.gap_count:
        facts[-1] = f"{report.dropped:,} dropped in {_many(report.gap_count, 'gap')}"
    odd = {"repeated": report.repeated, "going back": report.backward + report.backward_times}
    facts += [f"{count:,} {what}" for what, count in odd.items() if count]
    style: dict[str, Any] = {"color": _INK, "parse_math": False}
    figure.text(0.09, 1 - 0.33 * inch, name, size=13, weight="bold", **style)
    figure.text(0.09, 1 - 0.55 * inch, "  ·  ".join(facts), size=9, **style)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _duration(seconds: float) -> str:
    unit, name = _unit(seconds)
    return f"{seconds / unit:.4g} {name}"


def _marks(report: Report) -> list[_Mark]:
    """Chunks that are missing or damaged, and gaps; what is to be labelled rather comes first."""
    marks = []
    found = [(p.chunk, p.kind) for p in report.problems if p.kind.startswith(_DAMAGES)]
    # Of a chunk with several problems the first is shown.
    for chunk, kind in dict(reversed(found)).items():
        if chunk is not None and (span := span_of(report.chunk_times, chunk)):
            what = "missing" if kind == "chunk-missing" else "damaged"
            marks.append(_Mark(*span, _DAMAGE, f"chunk {chunk} {what}"))
    # Many short gaps would be a grey panel; the drops have one of their own.
    least = report.duration / _COLUMNS if report.gap_count > _MARKED else 0.0
    for i, gap in enumerate(sorted(report.gaps, key=lambda gap: -gap.missing)):
        if math.isfinite(gap.frame_time - gap.seconds) and abs(gap.seconds) >= least:
            begin, end = sorted((gap.frame_time - gap.seconds, gap.frame_time))
            text = f"{gap.missing:,} dropped" if i < _LABELLED else ""
            marks.append(_Mark(begin, end, _GAP, text))
    return marks


def _draw_intervals(axes: Any, line: Timeline, clock: _Clock | None) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_title("frame interval (line: median, shade: up to the longest)", loc="left", **_TEXT)
    if clock is None:
        axes.text(0.5, 0.5, "no frame times that can be drawn", ha="center", va="center",
                  transform=axes.transAxes, **_TEXT)  # fmt: skip
        return
    x = clock.at(line.start + line.width / 2)
    known = line.interval[np.isfinite(line.interval)]
    usual = float(np.median(known)) if len(known) else 0.0
    longest = float(np.nanmax(line.longest)) if len(known) else 0.0
    median, most = line.interval, line.longest
    if logarithmic := longest > 20 * usual > 0:
        median, most = (np.where(y > 0, y, np.nan) for y in (median, most))
    axes.fill_between(x, median, most, color=_RANGE, lw=0.8, step="mid", zorder=2)
    axes.plot(x, median, color=_INTERVAL, lw=1.2, marker="." if len(x) < 60 else "", zorder=3)
    low = float(np.nanmin(median)) if len(known) and not np.isnan(median).all() else usual
    if logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.6, longest * 1.6)
        between = () if longest > 300 * low else (2.0, 5.0)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, *between), numticks=8))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        # Not the noise of floating point, all over the panel.
        room = max(0.08 * (longest - low), 0.05 * abs(usual), 1e-9)
        axes.set_ylim(low - room, longest + room)
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))


def _tick(seconds: float, _: int | None = None) -> str:
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if abs(seconds) >= 0.999 * unit:
            return f"{seconds / unit:.5g} {name}"
    return f"{seconds * 1e6:.5g} µs" if seconds else "0"


def _draw_drops(axes: Any, line: Timeline, clock: _Clock | None) -> None:
    axes.set_title(f"frames dropped in each {_duration(line.width)}", loc="left", **_TEXT)
    if clock is not None:
        x = clock.at(line.start + line.width / 2)
        dropped = line.dropped.astype(np.float64)
        axes.fill_between(x, 0, dropped, step="mid", color=_AXIS, lw=0.6, zorder=2)
        axes.set_ylim(0, 1.1 * max(dropped.max(), 1.0))


def _draw_curve(
    axes: Any, name: str, seconds: Float64s, values: Float64s, clock: _Clock | None, color: str
) -> None:
    axes.set_title(name, loc="left", parse_math=False, **_TEXT)
    if clock is not None:
        x, y = _thinned(clock.at(seconds), values)
        marker = "." if len(x) < 150 else ""
        axes.plot(x, y, color=color, lw=1.0, marker=marker, ms=4, label=name, zorder=3)
    axes.margins(y=0.12)


def _finish(axes: Any, clock: _Clock | None, marks: list[_Mark], *, first: bool) -> None:
    """Mark gaps and damage, and draw all but the curves in the background."""
    from matplotlib.collections import PolyCollection
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if not first:
        # No offset or power of ten, which would stand where the title is.
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.7g}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_AXIS)
    axes.tick_params(color=_AXIS, labelcolor=_INK, labelsize=9)
    axes.grid(axis="y", color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    if clock is None:
        axes.set(xticks=[], yticks=[])
        return
    axes.set_xlim((0, clock.at(clock.start + clock.span)) if clock.span else (-0.5, 0.5))
    for color in dict.fromkeys(mark.color for mark in marks):
        ends = [(clock.at(m.begin), clock.at(m.end)) for m in marks if m.color == color]
        corners = [[(a, 0), (a, 1), (b, 1), (b, 0)] for a, b in ends]
        # Its edge shows what is narrower than a pixel.
        stretches = PolyCollection(
            corners, facecolor=(color, _ALPHA[color]), edgecolor=(color, 0.7), lw=0.8, zorder=0.5,
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip
        axes.add_collection(stretches, autolim=False)


def _label(axes: Any, clock: _Clock, marks: Iterable[_Mark]) -> None:
    """Name marks above a panel, as many as there is room for."""
    # In points, by the width of a usual letter.
    room = axes.bbox.width / axes.figure.dpi * 72
    left, right = axes.get_xlim()
    rows: tuple[list[tuple[float, float]], ...] = ([], [])
    for mark in marks:
        half = len(mark.text) * 2.2 + 3
        middle = (clock.at((mark.begin + mark.end) / 2) - left) / (right - left) * room
        middle = min(max(middle, half), room - half)
        ends = middle - half, middle + half
        free = (i for i in (0, 1) if all(ends[1] < a or ends[0] > b for a, b in rows[i]))
        if (row := next(free, None)) is not None:
            rows[row].append(ends)
            axes.annotate(
                mark.text, (middle / room, 1), (0, 2 + 12 * row), xycoords="axes fraction",
                textcoords="offset points", fontsize=8, ha="center", va="bottom",
                color=_DAMAGE if mark.color == _DAMAGE else _INK,
            )  # fmt: skip
    axes.set_title(
        axes.get_title(loc="left"), loc="left", pad=6 + 12 * sum(map(bool, rows)), **_TEXT
    )


def _curves(
    extra: pd.DataFrame | None, fields: Sequence[str] | None
) -> list[tuple[str, Float64s, Float64s]]:
    """Name, frame times and values of each field that is to be drawn."""
    if extra is None:
        if fields:
            raise ValueError("fields are columns of extra data: give extra too")
        return []
    import pandas as pd

    numbers = {
        str(name): column
        for name, column in extra.items()
        if pd.api.types.is_numeric_dtype(column.dtype) and column.dtype.kind != "c"
    }
    if fields is None:
        fields = [name for name in numbers if name not in _NO_FIELDS][:_FIELDS]
    fields = [fields] if isinstance(fields, str) else fields
    unknown = [name for name in ("frame_time", *fields) if name not in numbers]
    if unknown:
        raise ValueError(
            f"the extra data have no numbers called {unknown[0]!r}; they have "
            f"{', '.join(numbers) or 'none'}"
        )
    times = numbers["frame_time"].to_numpy(np.float64, na_value=np.nan)
    return [(n, times, numbers[n].to_numpy(np.float64, na_value=np.nan)) for n in fields]


def _thinned(seconds: Float64s, values: Float64s) -> tuple[Float64s, Float64s]:
    """What is to be drawn of a curve: of many records the extremes in each column of pixels.

    It is broken where records are missing for long.
    """
    known = np.abs(seconds) < 1e300  # and not NaN
    x, y = seconds[known], np.where(np.abs(values[known]) < 1e300, values[known], np.nan)
    if bool(np.any(x[:-1] > x[1:])):
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
    steps, breaks = np.diff(x), x[:0]
    if len(steps):
        far = max(10 * float(np.median(steps)), float(x[-1] - x[0]) / _COLUMNS * 2)
        breaks = x[1:][steps > far]
    if len(x) > 2 * _COLUMNS:
        columns = np.linspace(x[0], x[-1], _COLUMNS, endpoint=False)
        first = np.unique(np.searchsorted(x, columns))
        first[0] = 0
        y = np.column_stack([np.fmin.reduceat(y, first), np.fmax.reduceat(y, first)]).ravel()
        x = np.repeat(x[first], 2)
    at = np.searchsorted(x, breaks)
    return np.insert(x, at, breaks), np.insert(y, at, np.nan)

"""How reports are shown: the table, the HTML, and what the figure consists of."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import pickle
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from imgstore_zarr import FrameIndex, MissingDependencyError, Problem, Report
from imgstore_zarr.report import damaged_report, make_report
from tests.test_report import HIGHEST, INFO, LOWEST, of


def plot(report: Report, *arguments: Any, **options: Any) -> Any:
    figure = report.plot(*arguments, **options)
    assert isinstance(figure, Figure)
    return figure


GRAY, RED = "#d5d8dc", "#d1495b"


def drawn(figure: Any) -> bytes:
    picture: bytes = figure._repr_png_()
    assert picture.startswith(b"\x89PNG")
    return picture


def marked(axes: Any, color: str) -> list[tuple[float, float]]:
    """What is marked in a color, from where to where."""
    found: list[Any] = [
        collection
        for collection in axes.collections
        if isinstance(collection, PolyCollection) and collection.get_zorder() == 0.5
    ]
    corners = [
        path.vertices[:, 0]
        for collection in found
        if tuple(collection.get_facecolor()[0][:3]) == to_rgb(color)
        for path in collection.get_paths()
    ]
    return [(x.min(), x.max()) for x in corners]


def labels(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


# Tables.


def test_one_row_for_each_finding() -> None:
    index = FrameIndex([0, 1, 9, 9, 4], [0.0, 1.0, 2.5, 2.0, 4.0], [0, 3], [0, 2])
    problems = (
        Problem("chunk-damaged", "chunk 2 is damaged", 2),
        Problem("chunk-missing", "chunk 1 is missing", 1),
        Problem("repair-due", "a repair is due"),
    )
    table = make_report(INFO, index, problems).to_dataframe()
    assert list(table) == [
        "kind", "position", "frame_number", "frame_time", "missing", "seconds", "chunk", "message",
    ]  # fmt: skip
    expected = pd.DataFrame(
        [
            ("gap", 2, 9, 2.5, 7, 1.5, None),
            ("chunk-damaged", 3, 9, 2.0, None, math.nan, 2),
            ("repeat", 3, 9, 2.0, None, -0.5, None),
            ("backward-time", 3, 9, 2.0, None, -0.5, None),
            ("backward", 4, 4, 4.0, None, 2.0, None),
            ("chunk-missing", None, None, math.nan, None, math.nan, 1),
            ("repair-due", None, None, math.nan, None, math.nan, None),
        ],
        columns=list(table)[:-1],
    ).astype(table.dtypes[:-1])
    pd.testing.assert_frame_equal(table.drop(columns="message"), expected)
    assert table["message"].tolist() == [
        "7 frames dropped after number 1",
        "chunk 2 is damaged",
        "number 9 is repeated",
        "the time goes back by 0.500 s",
        "the number goes back from 9 to 4",
        "chunk 1 is missing",
        "a repair is due",
    ]


def test_tables_hold_every_gap_and_none() -> None:
    table = of([LOWEST, HIGHEST]).to_dataframe()
    assert table["missing"].tolist() == [2**64 - 2]
    empty = of([]).to_dataframe()
    assert empty.empty
    assert dict(empty.dtypes) == dict(table.dtypes)


class Cells(HTMLParser):
    """The text of every cell, and the names of all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html() -> None:
    evil = "<script>alert('&')</script>"
    index = FrameIndex([0, 1, 2, 9, 12], [0.0, 1.0, 2.0, 3.0, 4.0])
    info = dataclasses.replace(INFO, name=evil, format=evil)
    cells = Cells(make_report(info, index, (Problem(evil, evil, 3),))._repr_html_())
    assert cells.tags <= {"b", "code", "table", "tr", "th", "td"}
    assert cells.text.count(evil) == 3
    for text in ("1.00 frames/s", "2 with 8 frames dropped", "6 frames dropped after number 2"):
        assert text in cells.text
    assert "3.000 s" in cells.text


def test_html_is_short_where_there_is_much() -> None:
    text = of(list(range(0, 100, 2)))._repr_html_()
    assert text.count("<tr>") == 8 + 1 + 10
    assert "... and 39 more" in text


@pytest.mark.parametrize(
    "report", [of([]), of([1]), damaged_report("/data/arena", "video", "gone")], ids=str
)
def test_little_is_shown_too(report: Report) -> None:
    assert "<table>" in report._repr_html_()
    drawn(plot(report))


# The figure.


def a_recording() -> Report:
    """400 s at 10 frames/s; a gap of 60 s, chunk 2 (of 0, 1, 2, 4) damaged, chunk 3 missing."""
    number = np.arange(3400)
    number[1000:] += 600
    index = FrameIndex(number, 1e9 + number / 10, [0, 900, 1800, 2700], [0, 1, 2, 4])
    problems = (
        Problem("chunk-damaged", "damaged", 2),
        Problem("frames-damaged", "the same again", 2),
        Problem("chunk-missing", "missing", 3),
        Problem("extra-data-damaged", "no image", 1),
    )
    return make_report(INFO, index, problems)


def test_the_intervals_over_time() -> None:
    report = a_recording()
    (axes,) = plot(report).axes
    (line,) = axes.lines
    timeline = report.timeline
    middle = timeline.start + timeline.width / 2 - 1e9
    np.testing.assert_allclose(line.get_xdata(), middle / 60)
    np.testing.assert_array_equal(line.get_ydata(), timeline.interval)
    assert axes.get_xlim() == pytest.approx((0, 399.9 / 60))
    assert axes.get_xlabel() == "time since 2001-09-09 01:46:40 UTC  [min]"
    assert axes.get_yscale() == "linear"
    low, high = axes.get_ylim()
    assert 0.09 < low < 0.1 < high < 0.11


def test_gaps_and_damage_are_marked() -> None:
    figure = plot(a_recording())
    (axes,) = figure.axes
    assert marked(axes, GRAY) == [pytest.approx((99.9 / 60, 160 / 60))]
    assert sorted(marked(axes, RED)) == [
        pytest.approx((240 / 60, 329.9 / 60)),
        pytest.approx((329.9 / 60, 330 / 60)),
    ]
    assert sorted(labels(axes)) == ["600 dropped", "chunk 2 damaged", "chunk 3 missing"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["gap", "missing or damaged"]
    assert [text.get_text() for text in figure.texts] == [
        "arena",
        "3,400 frames  ·  10.00 frames/s  ·  6.665 min  ·  600 dropped in 1 gap",
    ]


def test_texts_do_not_overlap() -> None:
    figure = plot(a_recording(), pd.DataFrame({"frame_time": [1e9], "voltage": [-2.5e6]}))
    drawn(figure)
    texts = [*figure.texts, *figure.legends[0].get_texts()]
    for axes in figure.axes:
        texts += [*axes.texts, axes._left_title, axes.xaxis.label]
        low, high = axes.get_ylim()
        texts += [one for one in axes.get_yticklabels() if low <= one.get_position()[1] <= high]
    boxes = {text.get_text(): text.get_window_extent() for text in texts if text.get_text()}
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        assert not a.overlaps(b), (one, other)
    for box in boxes.values():
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_many_gaps_have_a_panel() -> None:
    time = np.arange(4400) / 4
    time[4000:] += 60
    report = of([*range(0, 20_000, 5), *range(30_000, 30_400)], time)
    axes, drops = plot(report).axes
    # Those that are too short to be seen are in the panel only.
    assert marked(axes, GRAY) == [pytest.approx((999.75 / 60, 1060 / 60))]
    assert labels(axes) == ["10,004 dropped"]
    (steps,) = drops.collections[:1]
    assert steps.get_datalim(drops.transData).ymax == report.timeline.dropped.max()
    assert drops.get_title(loc="left").startswith("frames dropped in each ")


def test_a_stall_is_seen_beside_usual_intervals() -> None:
    time = np.arange(3000) / 25
    time[2000:] += 60
    (axes,) = plot(of(list(range(3000)), time)).axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[1] > 60
    assert axes.yaxis.get_major_formatter()(10) == "10 s"
    assert axes.yaxis.get_major_formatter()(0.02) == "20 ms"


def an_extra(count: int) -> pd.DataFrame:
    names = ("frame_index", "a", "b", "c", "d", "e")
    columns: dict[str, Any] = {name: np.arange(count) * 2.0 for name in names}
    columns |= {"frame_time": np.arange(count) / 4, "note": ["x"] * count}
    return pd.DataFrame(columns)


def test_extra_data_are_drawn_below() -> None:
    report, extra = of(list(range(40))), an_extra(40)
    figure = plot(report, extra)
    assert [axes.get_title(loc="left") for axes in figure.axes[1:]] == ["a", "b", "c", "d"]
    figure = plot(report, extra, fields=["e", "b"])
    assert [axes.get_title(loc="left") for axes in figure.axes[1:]] == ["e", "b"]
    (line,) = figure.axes[1].lines
    np.testing.assert_array_equal(line.get_xdata(), extra["frame_time"])
    np.testing.assert_array_equal(line.get_ydata(), extra["e"])
    assert [axes.get_xlabel() != "" for axes in figure.axes] == [False, False, True]
    assert len({axes.get_xlim() for axes in figure.axes}) == 1


def test_kinds_of_numbers() -> None:
    extra = pd.DataFrame(
        {
            "frame_time": [0.0, 1.0, 2.0],
            "yes": [True, False, True],
            "known": pd.array([1, None, 3], dtype="Int64"),
            "odd": [math.inf, math.nan, 1.0],
            "complex": [1j, 2j, 3j],
            "$x_{1$": [1e300, 1, 2],
        }
    )
    figure = plot(of(list(range(9))), extra)
    curves = {axes.get_title(loc="left"): axes.lines[0].get_ydata() for axes in figure.axes[1:]}
    assert list(curves) == ["yes", "known", "odd", "$x_{1$"]
    np.testing.assert_array_equal(curves["yes"], [1, 0, 1])
    np.testing.assert_array_equal(curves["known"], [1, math.nan, 3])
    np.testing.assert_array_equal(curves["odd"], [math.nan, math.nan, 1])
    drawn(figure)


def test_many_records_keep_their_extremes(rng: np.random.Generator) -> None:
    count = 1_000_000
    values = rng.normal(size=count)
    values[[1234, 777_777]] = 50, -70
    values[::9] = math.nan
    time = np.arange(count) / 1000
    order = rng.permutation(count)
    extra = pd.DataFrame({"frame_time": time[order], "v": values[order]})
    report = of(list(range(4000)))
    (line,) = plot(report, extra).axes[1].lines
    x, y = line.get_data()
    assert len(x) == 2000
    assert np.all(np.diff(x) >= 0)
    bins = np.arange(count) // 1000
    by = pd.Series(values).groupby(bins)
    np.testing.assert_array_equal(y[::2], by.min())
    np.testing.assert_array_equal(y[1::2], by.max())


@pytest.mark.parametrize("count", [400, 100_000])
def test_curves_are_broken_where_records_are_missing(count: int) -> None:
    time = np.linspace(0, 100, count)
    time[count // 2 :] += 50
    extra = pd.DataFrame({"frame_time": time, "v": np.ones(count)})
    (line,) = plot(of(list(range(600))), extra).axes[1].lines
    x, y = line.get_data()
    (broken,) = np.flatnonzero(np.isnan(y))
    assert x[broken - 1] < 50.1
    assert x[broken + 1] > 99.9


@pytest.mark.parametrize(
    "extra", [an_extra(0), an_extra(1), an_extra(3).drop(columns="note") * math.nan]
)
def test_few_records(extra: pd.DataFrame) -> None:
    drawn(plot(of(list(range(9))), extra.drop(columns="note", errors="ignore"), fields=["a"]))


def test_fields_that_are_not_there() -> None:
    report = of([1, 2])
    with pytest.raises(ValueError, match="no numbers called 'note'; they have frame_index, a, b"):
        plot(report, an_extra(2), fields=["a", "note"])
    with pytest.raises(ValueError, match="'frame_time'"):
        plot(report, an_extra(2).drop(columns="frame_time"))
    with pytest.raises(ValueError, match="give extra too"):
        plot(report, fields=["a"])
    assert len(plot(report, an_extra(2), fields="a").axes) == 2
    # As `get_extra_data` says that there are none.
    assert len(plot(report, None).axes) == 1


def test_in_axes_of_others() -> None:
    figure: Any = Figure()
    _, axes = figure.subfigures(1, 2)[1].subplots(2)
    assert plot(a_recording(), ax=axes) is figure
    assert len(axes.lines) == 1
    assert axes.get_xlabel()
    assert not figure.texts
    with pytest.raises(ValueError, match="leave out ax"):
        plot(a_recording(), an_extra(3), ax=axes)


@pytest.mark.parametrize(
    "time",
    [
        [math.nan] * 8,
        [3.0] * 8,
        np.linspace(-1, 1, 8) * 1.7e308,
        np.linspace(-1e299, 1e299, 8),
        np.arange(8) * 5e-324,
        [0, 1, -math.inf, 2, 1, 0, math.inf, 3],
        np.arange(8, 0, -1),
    ],
    ids=["none", "same", "largest", "huge", "smallest", "some", "backward"],
)
def test_odd_times(time: Any) -> None:
    report = of([1, 2, 3, 5, 6, 7, 8, 9], time)
    extra = pd.DataFrame({"frame_time": time, "a": range(8)})
    drawn(plot(report, extra))
    assert report.to_dataframe()["missing"].sum() == 1
    report._repr_html_()


@pytest.mark.parametrize(
    ("span", "unit"), [(50, "s"), (1000, "min"), (100_000, "h"), (1e6, "days")]
)
def test_units_of_time(span: float, unit: str) -> None:
    (axes,) = plot(of(list(range(100)), np.linspace(5, 5 + span, 100))).axes
    assert axes.get_xlabel() == f"time since the first frame  [{unit}]"
    assert 1 < axes.get_xlim()[1] < 180


def test_pyplot_has_no_part_in_it() -> None:
    code = """
import sys
from tests.test_report_figure import a_recording
report = a_recording()
figure = report.plot()
assert figure._repr_png_()
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_figures_travel_and_are_saved() -> None:
    figure = pickle.loads(pickle.dumps(plot(a_recording())))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    assert b"<svg" in buffer.getvalue()
    drawn(figure)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'imgstore-zarr\[plot\]'"):
        plot(of([1, 2]))


def test_the_figure_tells_of_repeats_and_steps_back() -> None:
    index = FrameIndex([0, 1, 1, 2, 1, 3], [0.0, 1, 2, 3, 2.5, 5], [0])
    report = make_report(INFO, index)
    texts = [text.get_text() for text in report.plot().texts]
    assert any("1 repeated" in text and "2 going back" in text for text in texts)

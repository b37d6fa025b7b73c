"""ClockCorrection, against exact arithmetic."""

from __future__ import annotations

import pickle
from bisect import bisect_right
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imgstore_zarr.clock import ClockCorrection
from imgstore_zarr.errors import InvalidMetadataError

UNIX = 1.7e9

unix = st.floats(1.5e9, 2e9)
seconds = unix | st.floats(-1e6, 1e6)
drifts = st.floats(-1e-3, 1e-3) | st.sampled_from([0.0, 20e-6, -20e-6])
offsets = st.floats(-2e9, 2e9) | st.floats(-10, 10) | st.just(0.0)


def close(found: Any, exact: Fraction, *through: float) -> bool:
    """As near as float64 can be, and a nanosecond; or as near as at what it was computed through."""
    limit = max(np.spacing(abs(float(exact))) / 2, *(np.spacing(abs(t)) for t in through), 0.0)
    return abs(Fraction(float(found)) - exact) <= Fraction(float(limit)) + Fraction(1, 10**9)


@given(seconds, offsets, drifts, seconds | st.just(0.0))
@example(UNIX + 0.1, 0.0, 20e-6, 0.0)
@example(UNIX + 0.1, -UNIX, -20e-6, UNIX)
@example(0.001, UNIX, 20e-6, 0.0)
def test_line(t: float, offset: float, drift: float, reference: float) -> None:
    correction = ClockCorrection(offset, drift, reference)
    t_, offset_, drift_, reference_ = map(Fraction, (t, offset, drift, reference))
    exact = t_ + offset_ + drift_ * (t_ - reference_)
    found = correction.apply(t)
    assert close(found, exact)
    assert close(correction.inverse(found), t_, found.item())
    back = reference_ + (t_ - offset_ - reference_) / (1 + drift_)
    assert close(correction.inverse(t), back)


@given(st.lists(st.floats(), max_size=10))
def test_no_correction_changes_nothing(times: list[float]) -> None:
    np.testing.assert_array_equal(ClockCorrection().apply(times), times)
    np.testing.assert_array_equal(ClockCorrection().inverse(times), times)


@given(drifts, offsets)
def test_the_order_of_times_is_kept(drift: float, offset: float) -> None:
    correction = ClockCorrection(offset, drift, UNIX)
    for start in (0.0, UNIX):
        times = start + np.arange(50) * np.spacing(start + 1)
        assert (np.diff(correction.apply(times)) >= 0).all()
        assert (np.diff(correction.inverse(times)) >= 0).all()


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """Recorded and true times, of clocks that differ by up to a factor of 4."""
    steps = draw(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=8))
    slopes = draw(st.lists(st.floats(0.25, 4), min_size=len(steps), max_size=len(steps)))
    first = draw(st.tuples(seconds, seconds))
    rises = [step * slope for step, slope in zip(steps, slopes, strict=True)]
    recorded, true = (
        list(accumulate(d, initial=f)) for d, f in zip((steps, rises), first, strict=True)
    )
    return recorded, true


def exact_table(knots: list[float], values: list[float], t: float) -> Fraction:
    i = min(max(bisect_right(knots, t) - 1, 0), len(knots) - 2)
    x0, x1, y0, y1, x = map(Fraction, (*knots[i : i + 2], *values[i : i + 2], t))
    return y0 + (x - x0) * (y1 - y0) / (x1 - x0)


@given(tables(), st.lists(st.floats(-0.5, 1.5), max_size=20))
def test_pairs(table: tuple[list[float], list[float]], places: list[float]) -> None:
    recorded, true = table
    correction = ClockCorrection.from_pairs(recorded, true)
    for knots, values, go in (
        (recorded, true, correction.apply),
        (true, recorded, correction.inverse),
    ):
        # Exactly through the pairs, also where a segment meets the next.
        np.testing.assert_array_equal(go(knots), values)
        times = knots[0] + np.array(places) * (knots[-1] - knots[0])
        for t, found in zip(times.tolist(), go(times).tolist(), strict=True):
            assert close(found, exact_table(knots, values, t))
        inside = times[(times >= knots[0]) & (times <= knots[-1])]
        np.testing.assert_allclose(
            go(inside), np.interp(inside, knots, values), rtol=1e-15, atol=5e-6
        )
        assert (np.diff(go(np.sort(np.append(times, knots)))) >= 0).all()
    times = recorded[0] + np.array(places) * (recorded[-1] - recorded[0])
    corrected = correction.apply(times)
    back = correction.inverse(corrected)
    limit = 8 * np.spacing(np.maximum(np.abs(corrected), np.abs(times))) + 1e-9
    assert (np.abs(back - times) <= limit).all()


def test_a_week_of_unix_times() -> None:
    recorded = UNIX + np.linspace(0, 7 * 86400, 100_001)
    elapsed = recorded - UNIX
    # What is left of the rounding: the differences are exact, and the drift is small.
    fast = ClockCorrection(0.25, -20e-6, UNIX)
    expected = (recorded + 0.25) - 20e-6 * elapsed
    assert np.abs(fast.apply(recorded) - expected).max() <= 2.4e-7
    assert fast.apply(UNIX + 86400) == pytest.approx(UNIX + 86400 + 0.25 - 1.728, abs=2.4e-7)
    assert np.abs(fast.inverse(fast.apply(recorded)) - recorded).max() <= 2.4e-7
    # A pair at each end of the week says the same.
    ends = recorded[[0, -1]]
    table = ClockCorrection.from_pairs(ends, fast.apply(ends))
    assert np.abs(table.apply(recorded) - fast.apply(recorded)).max() <= 4.8e-7


def test_rounding_carries_no_time_past_a_pair() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        recorded, true = (np.cumsum([-50, *rng.uniform(0.1, 100, 2)]) for _ in range(2))
        before = np.nextafter(recorded[1], -np.inf)
        assert ClockCorrection.from_pairs(recorded, true).apply(before) <= true[1]


def test_beyond_the_pairs_the_last_lines_continue() -> None:
    correction = ClockCorrection.from_pairs([10, 20, 40], [0, 20, 30])
    assert correction.apply([0, 9, 10, 15, 20, 30, 40, 50]).tolist() == [
        *(-20, -2, 0, 10),
        *(20, 25, 30, 35),
    ]
    assert correction.inverse([-20, 35]).tolist() == [0, 50]


@pytest.mark.parametrize(
    "correction",
    [
        ClockCorrection(1.5, 0.5, 2.0),
        ClockCorrection(1.5),
        ClockCorrection.from_pairs([0, 1, 3], [0, 2, 3]),
    ],
    ids=repr,
)
def test_shapes(correction: ClockCorrection) -> None:
    for go in (correction.apply, correction.inverse):
        unknown = go([np.nan, np.inf, -np.inf, 1.0])
        np.testing.assert_array_equal(unknown[:3], [np.nan, np.inf, -np.inf])
        assert np.isfinite(unknown[3])
        for times in (3, 3.0, np.float32(3), np.int64(3), np.array(3)):
            found = go(times)
            assert isinstance(found, np.ndarray)
            assert found.shape == ()
            assert found.dtype == np.float64
            assert found == go([3])[0]
        assert go([]).shape == (0,)
        assert go(np.ones((2, 3), np.uint8)).shape == (2, 3)
        given_times = np.arange(3.0)
        go(given_times)
        assert given_times.tolist() == [0, 1, 2]
    bad: tuple[Any, ...] = ("3", None, [1, None], np.array(["2024-01-01"], "M8[s]"), [True], [1j])
    for what in bad:
        with pytest.raises(InvalidMetadataError, match="give numbers, in seconds"):
            correction.apply(what)


def test_corrections_are_values() -> None:
    line = ClockCorrection(np.float64(1), np.float32(0.5), 2)  # type: ignore[arg-type]
    table = ClockCorrection.from_pairs(np.array([1, 0, 3]), [2, 0, 3])
    same = {
        line: ClockCorrection(1.0, 0.5, 2.0),
        table: ClockCorrection.from_pairs([0, 1, 3], np.array([0, 2, 3], np.float32)),
    }
    table.apply(1)
    for one, other in same.items():
        assert one == other
        assert hash(one) == hash(other)
        assert pickle.loads(pickle.dumps(one)) == other
        assert len(pickle.dumps(one)) == len(pickle.dumps(other))
    assert line != table
    assert line != ClockCorrection(1.0, 0.5)
    assert table != ClockCorrection.from_pairs([0, 1, 3], [0, 2, 4])
    assert repr(line) == "ClockCorrection(offset=1.0, drift=0.5, reference=2.0)"
    assert eval(repr(line)) == line
    assert repr(table) == "<ClockCorrection through 3 pairs, recorded 0.0 .. 3.0 s>"
    assert ClockCorrection(pairs=table.pairs) == table


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"offset": np.nan}, "offset is nan; give a finite"),
        ({"reference": -np.inf}, "reference is -inf; give a finite"),
        ({"drift": np.inf}, "drift is inf; give a finite"),
        ({"offset": "late"}, "offset is 'late'; give a number"),
        ({"offset": None}, "offset is None; give a number"),
        ({"offset": 10**400}, "give a number"),
        ({"drift": -1}, "a clock cannot run backwards"),
        ({"drift": -20}, "more than -1 seconds per second"),
        ({"offset": 1.0, "pairs": ((0, 0), (1, 1))}, "not both"),
        ({"pairs": ((0, 0),)}, r"the pairs have shape \(1, 2\)"),
        ({"pairs": ((0, 0, 0), (1, 1, 1))}, r"the pairs have shape \(2, 3\)"),
        ({"pairs": ((0, 0), (1,))}, "the pairs are no table"),
        ({"pairs": (("a", 0), ("b", 1))}, "the pairs have dtype"),
    ],
)
def test_bad_fields(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidMetadataError, match=said):
        ClockCorrection(**fields)


@pytest.mark.parametrize(
    ("recorded", "true", "said"),
    [
        ([0], [0], "at least 2"),
        ([], [], "at least 2"),
        ([0, 1], [0, 1, 2], r"shape \(2,\) and true times of shape \(3,\)"),
        (0.0, 1.0, r"shape \(\)"),
        ([[0, 1]], [[0, 1]], r"shape \(1, 2\)"),
        ([0, np.nan, 2], [0, 1, 2], r"1 pairs are not finite, the first is pair 1, \(nan, 1.0\)"),
        ([0, 1, 2], [0, 1, np.inf], "the first is pair 2"),
        # Pairs are called by their place in what was given.
        ([5, 0, 5], [1, 0, 2], r"pairs 0 and 2, \(5.0, 1.0\) and \(5.0, 2.0\), have the same"),
        ([2, 0, 1], [1, 0, 1], r"pairs 2 and 0, .* do not increase; leave out"),
        ([0, 1, 2], [0, 5, 4], "pairs 1 and 2, .* do not increase"),
        ([0, 5e-324], [0, 1], "make no line"),
        ([-1.5e308, 1.5e308], [0, 1], "make no line"),
        (["a", "b"], [0, 1], "the recorded times have dtype"),
        ([0, 1], [None, 1], "the true times have dtype"),
    ],
)
def test_bad_pairs(recorded: Any, true: Any, said: str) -> None:
    with pytest.raises(InvalidMetadataError, match=said):
        ClockCorrection.from_pairs(recorded, true)

"""ClockCorrection: from the times of a recording's clock to those of another clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from imgstore_zarr.cached import cached_property
from imgstore_zarr.errors import InvalidMetadataError
from imgstore_zarr.index import Float64s


@dataclass(frozen=True)
class ClockCorrection:
    """A map from times of the recording's clock to corrected times, and back.

    It is a line, ``corrected = t + offset + drift * (t - reference)``, or goes through a table of
    pairs; see `from_pairs`. Equal corrections compare equal and have the same hash.

    Parameters
    ----------
    offset
        Seconds to add.
    drift
        Seconds per second by which the recording's clock is slow: ``20e-6`` is 20 ppm, 1.7 seconds
        a day. More than -1, so that later times stay later.
    reference
        The time of the recording's clock, in seconds, at which the offset alone is right.
    pairs
        In place of the three above: ``(recorded, true)`` times in seconds; see `from_pairs`.

    Raises
    ------
    InvalidMetadataError
        Numbers or pairs that are no such map.

    Notes
    -----
    For Unix times, with a drift as clocks have it, a corrected time is wrong by no more than the
    distance between two neighbouring float64 values, 0.24 microseconds.
    """

    offset: float = 0.0
    drift: float = 0.0
    reference: float = 0.0
    pairs: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        for name in ("offset", "drift", "reference"):
            # Python's floats, so that corrections compare, pickle and print the same.
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        if not self.drift > -1:
            raise InvalidMetadataError(
                f"drift is {self.drift}, but a clock cannot run backwards: it must be more than -1 "
                "seconds per second (20 ppm is 20e-6)"
            )
        if not len(self.pairs):
            object.__setattr__(self, "pairs", ())
            return
        if self.offset or self.drift or self.reference:
            raise InvalidMetadataError(
                "a correction is either a table of pairs or offset, drift and reference, not both; "
                "correct the true times of the pairs instead"
            )
        object.__setattr__(self, "pairs", _checked(self.pairs))

    @classmethod
    def from_pairs(cls, recorded: ArrayLike, true: ArrayLike) -> ClockCorrection:
        """Return the correction that goes through pairs of times.

        Between two pairs it is a straight line. Before the first and after the last pair the first
        and the last line continue.

        Parameters
        ----------
        recorded
            (pair,), seconds of the recording's clock, in any order, at least two.
        true
            (pair,), seconds of the other clock at the same moments.

        Raises
        ------
        InvalidMetadataError
            Too few pairs, times that are not finite or occur twice, or true times that do not
            increase with the recorded ones; the message names the pairs.
        """
        columns = [_seconds(recorded, "the recorded times"), _seconds(true, "the true times")]
        shapes = [column.shape for column in columns]
        if len(shapes[0]) != 1 or shapes[0] != shapes[1] or shapes[0][0] < 2:
            raise InvalidMetadataError(
                f"recorded times of shape {shapes[0]} and true times of shape {shapes[1]} make no "
                "table: give two arrays of one length, at least 2 (with a single pair, offset is "
                "their difference)"
            )
        return cls(pairs=tuple(zip(columns[0].tolist(), columns[1].tolist(), strict=True)))

    def apply(self, times: ArrayLike) -> Float64s:
        """Return the corrected times.

        Parameters
        ----------
        times
            Seconds of the recording's clock, an array of any shape or a number.

        Returns
        -------
        array
            float64 of the shape of `times`, seconds. NaN and infinite times stay what they are.

        Raises
        ------
        InvalidMetadataError
            Times that are not numbers.
        """
        seconds = _seconds(times, "the times to correct")
        if self.pairs:
            recorded, true = self._table
            return _through(recorded, true, seconds)
        return _line(seconds, self.offset, self.drift, self.reference)

    def inverse(self, times: ArrayLike) -> Float64s:
        """Return the times of the recording's clock that belong to corrected times.

        Parameters
        ----------
        times
            Corrected seconds, an array of any shape or a number.

        Returns
        -------
        array
            float64 of the shape of `times`, seconds. NaN and infinite times stay what they are.

        Raises
        ------
        InvalidMetadataError
            Times that are not numbers.
        """
        seconds = _seconds(times, "the corrected times")
        if self.pairs:
            recorded, true = self._table
            return _through(true, recorded, seconds)
        drift = -self.drift / (1 + self.drift)
        return _line(seconds, -self.offset, drift, self.reference + self.offset)

    @cached_property
    def _table(self) -> tuple[Float64s, Float64s]:
        recorded, true = np.array(self.pairs, np.float64).T
        return recorded, true

    def __reduce__(self) -> tuple[type[ClockCorrection], tuple[object, ...]]:
        # Without the cached table.
        return ClockCorrection, (self.offset, self.drift, self.reference, self.pairs)

    def __repr__(self) -> str:
        if not self.pairs:
            return (
                f"ClockCorrection(offset={self.offset}, drift={self.drift}, "
                f"reference={self.reference})"
            )
        (first, _), (last, _) = self.pairs[0], self.pairs[-1]
        return f"<ClockCorrection through {len(self.pairs)} pairs, recorded {first} .. {last} s>"


def _number(name: str, value: object) -> float:
    """A finite Python float."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidMetadataError(f"{name} is {value!r}; give a number") from error
    if not math.isfinite(number):
        raise InvalidMetadataError(f"{name} is {number}; give a finite number")
    return number


def _seconds(times: ArrayLike, what: str) -> Float64s:
    # Dates and texts would become numbers of some unit or other.
    array = np.asarray(times)
    if array.dtype.kind not in "iuf":
        raise InvalidMetadataError(
            f"{what} have dtype {array.dtype}; give numbers, in seconds, and NaN where one is not known"
        )
    return array.astype(np.float64)


def _checked(pairs: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """The pairs in ascending order of the recorded times."""
    try:
        table = _seconds(pairs, "the pairs")
    except ValueError as error:
        raise InvalidMetadataError(f"the pairs are no table: {error}") from error
    if table.ndim != 2 or table.shape[1] != 2 or len(table) < 2:
        raise InvalidMetadataError(
            f"the pairs have shape {table.shape}; give at least 2 of (recorded, true) times"
        )
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(bad):
        raise InvalidMetadataError(
            f"{len(bad)} pairs are not finite, the first is pair {bad[0]}, "
            f"{tuple(table[bad[0]].tolist())}; leave them out"
        )
    order = np.argsort(table[:, 0], kind="stable")
    table = table[order]
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        recorded, true = np.diff(table, axis=0).T
        slopes = np.stack([true / recorded, recorded / true])
    for wrong, said, advice in (
        (recorded <= 0, "have the same recorded time", "leave one out"),
        (true <= 0, "have true times that do not increase", "leave out the one that is wrong"),
        # Beyond the range of float64 or nearly so: no line goes through them.
        (~(np.isfinite(slopes) & (slopes > 0)).all(axis=0), "make no line", "leave one out"),
    ):
        if wrong.any():
            i = int(np.argmax(wrong))
            raise InvalidMetadataError(
                f"pairs {order[i]} and {order[i + 1]}, {tuple(table[i].tolist())} and "
                f"{tuple(table[i + 1].tolist())}, {said}; {advice}"
            )
    return tuple((recorded, true) for recorded, true in table.tolist())


def _line(times: Float64s, offset: float, drift: float, reference: float) -> Float64s:
    """Return ``times + offset + drift * (times - reference)``.

    What rounding takes from the large sum is added to the small term, so that no time is rounded
    twice to the quarter of a microsecond that float64 has at Unix times.
    """
    with np.errstate(invalid="ignore"):
        total = times + offset
        added = total - times
        lost = (times - (total - added)) + (offset - added)
        corrected = total + (lost + drift * (times - reference))
    return np.where(np.isinf(times), times, corrected)


def _through(knots: Float64s, values: Float64s, times: Float64s) -> Float64s:
    """The piecewise linear map with these values at these ascending knots."""
    # Differences first: Unix times times a slope would round to microseconds.
    slopes = np.diff(values) / np.diff(knots)
    slopes = np.append(slopes, slopes[-1])
    start = np.maximum(np.searchsorted(knots, times, "right") - 1, 0)
    found = values[start] + (times - knots[start]) * slopes[start]
    # Rounding must not carry a time past the next knot.
    return np.asarray(np.minimum(found, np.append(values[1:], np.inf)[start]), np.float64)

"""Matching: which key belongs to each of those that are wanted, exactly, and in any order."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.index import Float64s, Int64s


def match_positions(
    keys: Float64s | Int64s,
    wanted: Float64s | Int64s,
    method: Literal["nearest", "previous", "next"],
    tolerance: float = math.inf,
    *,
    last: bool = False,
) -> Int64s:
    """Return the position of the key that belongs to each of the wanted ones, -1 where none does.

    Parameters
    ----------
    keys
        (key,), in any order.
    wanted
        (wanted,), of the same dtype. What is not finite, in either, belongs to nothing.
    method
        ``"nearest"`` (the lower key on an exact tie), ``"previous"`` (the highest that is not above)
        or ``"next"`` (the lowest that is not below).
    tolerance
        The greatest distance, inclusive.
    last
        Take the last of equal keys, not the first.
    """
    found = np.full(len(wanted), -1, np.int64)
    positions = np.flatnonzero(np.isfinite(keys))
    if not len(positions):
        return found
    positions = positions[np.argsort(keys[positions], kind="stable")]
    ascending = keys[positions]
    differs = ascending[1:] != ascending[:-1]
    chosen = np.append(differs, True) if last else np.append(True, differs)
    positions, ascending = positions[chosen], ascending[chosen]
    asked = np.flatnonzero(np.isfinite(wanted))
    values = wanted[asked]
    if method == "previous":
        rank = np.searchsorted(ascending, values, "right") - 1
    else:
        rank = np.searchsorted(ascending, values, "left")
    near = (rank >= 0) & (rank < len(ascending))
    rank = np.clip(rank, 0, len(ascending) - 1)
    gap, rest = _gap(ascending[rank], values)
    if method == "nearest":
        near[:] = True
        lower = np.maximum(rank - 1, 0)
        lower_gap, lower_rest = _gap(ascending[lower], values)
        nearer = (lower_gap < gap) | ((lower_gap == gap) & (lower_rest <= rest))
        rank, gap = np.where(nearer, lower, rank), np.where(nearer, lower_gap, gap)
    if tolerance != math.inf:
        if gap.dtype.kind == "u":
            tolerance = min(math.floor(tolerance), 2**64 - 1)
        near &= gap <= gap.dtype.type(tolerance)
    found[asked[near]] = positions[rank[near]]
    return found


def _gap(a: Float64s | Int64s, b: Float64s | Int64s) -> tuple[NDArray[Any], NDArray[Any]]:
    """The distances, and what rounding took from them: together they are exact."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    if low.dtype.kind == "i":
        # As unsigned ones, differences of 64-bit integers do not overflow.
        whole = high.view(np.uint64) - low.view(np.uint64)
        return whole, np.zeros_like(whole)
    with np.errstate(over="ignore", invalid="ignore"):
        gap = high - low
        back = gap - high
        return gap, (high - (gap - back)) - (low + back)

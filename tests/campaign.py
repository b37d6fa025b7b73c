"""How long a campaign is: short by default, long where IMGSTORE_CAMPAIGN is set to a factor."""

from __future__ import annotations

import os

FACTOR = max(1, int(os.environ.get("IMGSTORE_CAMPAIGN", "1")))


def rounds(short: int) -> int:
    """How many rounds to do, where a short campaign does so many."""
    return short * FACTOR

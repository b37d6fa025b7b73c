"""The memory of decoded frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def plane_memory(plane: Any) -> NDArray[np.uint8]:
    """Return the memory of a plane of a frame of PyAV, (rows, bytes in a row)."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]

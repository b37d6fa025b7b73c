from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

import imgstore_zarr

# How long an example takes says nothing about whether it is right.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

Record = Callable[..., Path]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Recordings made by others, beside the repository."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the recordings made by others are not beside the repository")
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Write images to a new recording in the temporary directory, and return its path."""
    made = 0

    def write(
        images: NDArray[Any],
        *,
        format: str = "raw/zarr",
        frame_number: Any = None,
        frame_time: Any = None,
        chunksize: int | None = 4,
        extra: dict[int, dict[str, Any]] | None = None,
        **options: Any,
    ) -> Path:
        nonlocal made
        made += 1
        path = tmp_path / f"recording{made}"
        numbers = range(len(images)) if frame_number is None else frame_number
        times = [1e9 + i / 25 for i in range(len(images))] if frame_time is None else frame_time
        with imgstore_zarr.create(
            path, format, images.shape[1:], images.dtype, chunksize=chunksize, **options
        ) as writer:
            for i, (image, number, time) in enumerate(zip(images, numbers, times, strict=True)):
                writer.add_image(image, number, time)
                if extra and i in extra:
                    writer.add_extra_data(**extra[i])
        return path

    return write

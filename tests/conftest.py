from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

import imgstore_zarr
from tests.reference import Reference, reference_python
from tests.servers.fixtures import azure, s3, through_proxy

__all__ = ["azure", "s3", "through_proxy"]

# How long an example takes says nothing about whether it is right.
settings.register_profile("project", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile("project")

Record = Callable[..., Path]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Recordings made by others, beside the repository."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the recordings made by others are not beside the repository")
    return path


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache, where spools are: not that of the one who runs the tests."""
    path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path))
        yield path


@pytest.fixture(scope="session")
def reference(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reference]:
    """The real imgstore 0.4.0."""
    cache = getattr(pytestconfig, "cache", None)
    directory = cache.mkdir("imgstore-0.4.0") if cache else tmp_path_factory.mktemp("imgstore")
    try:
        interpreter = reference_python(directory)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
        message = f"there is no environment with imgstore 0.4.0: {said}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with Reference(interpreter) as imgstore:
        yield imgstore


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

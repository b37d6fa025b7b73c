"""A writer whose n-th operation on storage fails, for every n: no frame that was taken is lost."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr.native import open_chunk
from imgstore_zarr.storage import Directory

SHAPE = (6, 8)
COUNT = 23
IMAGES = np.random.default_rng(23).integers(0, 256, (COUNT, *SHAPE), np.uint8)

OPERATIONS = ["pwritev", "ftruncate", "move", "write"]


class Failing:
    """Counts operations, and fails one of them, or all from that one on."""

    def __init__(self, fail_at: int | None, *, for_good: bool) -> None:
        self.count = 0
        self._fail_at = fail_at
        self._for_good = for_good

    def wrap(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            due = self._fail_at is not None and (
                self.count == self._fail_at or (self._for_good and self.count > self._fail_at)
            )
            if due:
                raise OSError(28, "No space left on device")
            return work(*arguments, **options)

        return failing


@contextmanager
def failing(operation: str, fail_at: int | None, *, for_good: bool = False) -> Iterator[Failing]:
    counter = Failing(fail_at, for_good=for_good)
    with pytest.MonkeyPatch.context() as patch:
        owner: Any = {"move": open_chunk, "write": Directory}.get(operation, os)
        patch.setattr(owner, operation, counter.wrap(getattr(owner, operation)))
        yield counter


def record(path: Path, inner: tuple[int, ...] | None) -> tuple[list[int], list[int], bool]:
    """Record, trying an image that was refused once more; what was taken, flushed, and closed."""
    taken: list[int] = []
    flushed: list[int] = []
    writer = imgstore_zarr.create(path, "zstd/zarr", SHAPE, chunksize=4, inner_chunks=inner)
    for i, image in enumerate(IMAGES):
        for _ in range(2):
            try:
                writer.add_image(image, i, i / 25)
            except OSError:
                assert len(writer) == len(taken)
            else:
                taken.append(i)
                break
        with contextlib.suppress(OSError):
            writer.add_extra_data(value=i)
        if i % 6 == 5:
            try:
                writer.flush()
            except OSError:
                pass
            else:
                flushed = taken.copy()
    try:
        writer.close()
    except OSError:
        return taken, flushed, False
    return taken, flushed, True


def numbers(path: Path) -> list[int]:
    """The frame numbers of a recording whose pixels are right."""
    with imgstore_zarr.open(path) as store:
        found: list[int] = store.index.frame_number.tolist()
        np.testing.assert_array_equal(store.frames[...], IMAGES[found])
        return found


@pytest.mark.parametrize("inner", [None, (2, 4, 8)], ids=["frames", "groups"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_operation_fails(tmp_path: Path, operation: str, inner: tuple[int, ...] | None) -> None:
    with failing(operation, None) as counter:
        record(tmp_path / "whole", inner)
    assert counter.count >= 5
    for n in range(1, counter.count + 1):
        path = tmp_path / str(n)
        with failing(operation, n):
            try:
                taken, flushed, closed = record(path, inner)
            except imgstore_zarr.RecordingAccessError:
                # It could not be begun: then there is nothing.
                assert not path.exists() or not any(path.iterdir())
                continue
        if not closed:
            assert numbers(path)[: len(flushed)] == flushed
            imgstore_zarr.repair(path)
        if closed or inner is None:
            assert numbers(path)[: len(taken)] == taken
        else:
            # Frames of a group that is not full are in memory only.
            assert numbers(path)[: len(taken) - 1] == taken[: len(numbers(path))][: len(taken) - 1]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_all_operations_fail_from_one_on(tmp_path: Path, operation: str) -> None:
    with failing(operation, None) as counter:
        record(tmp_path / "whole", None)
    for n in range(counter.count // 3, counter.count + 1, 3):
        path = tmp_path / str(n)
        with failing(operation, n, for_good=True):
            taken, flushed, closed = record(path, None)
        assert numbers(path)[: len(flushed)] == flushed
        if closed:
            assert numbers(path) == taken
            continue
        imgstore_zarr.repair(path)
        assert numbers(path) == taken

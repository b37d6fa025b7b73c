"""Strips of small pictures, decoded again."""

from __future__ import annotations

import base64
import html
import re
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr import CorruptChunkError
from imgstore_zarr.thumbnails import spread_positions, strip_html, thumbnail_strip
from tests.conftest import Record

BETWEEN = 3


def decoded(picture: bytes) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


def tiles(picture: bytes, count: int) -> list[NDArray[np.uint8]]:
    """The pictures of a strip, in BGR."""
    strip = decoded(picture)
    width, rest = divmod(strip.shape[1] + BETWEEN, count)
    assert rest == 0
    return [strip[:, i * width : (i + 1) * width - BETWEEN] for i in range(count)]


class Damaged:
    """Frames of which some cannot be read."""

    def __init__(self, frames: NDArray[Any], damaged: set[int], error: Exception) -> None:
        self.frames, self.damaged, self.error = frames, damaged, error
        self.shape = frames.shape
        self.read: list[int] = []

    def __getitem__(self, position: int) -> NDArray[Any]:
        self.read.append(position)
        if position in self.damaged:
            raise self.error
        image: NDArray[Any] = self.frames[position]
        return image


def flat(*values: Any, shape: tuple[int, ...] = (144, 200), dtype: Any = np.uint8) -> NDArray[Any]:
    """Frames of one value each."""
    return np.stack([np.full((*shape, *np.shape(value)), value, dtype) for value in values])


def test_gray_as_it_is() -> None:
    frames = flat(10, 60, 200)
    shown = tiles(thumbnail_strip(frames, [2, 0]), 2)
    assert [tile.shape for tile in shown] == [(72, 100, 3)] * 2
    assert [np.unique(tile).tolist() for tile in shown] == [[200], [10]]
    assert decoded(thumbnail_strip(frames, [0], height=30)).shape[0] == 30


def test_colour_is_bgr() -> None:
    shown = tiles(thumbnail_strip(flat((250, 0, 0), (0, 20, 240)), np.array([0, 1])), 2)
    assert shown[0].mean(axis=(0, 1)).tolist() == [250, 0, 0]
    assert shown[1].mean(axis=(0, 1)).tolist() == [0, 20, 240]


def test_noise_is_no_large_picture(rng: np.random.Generator) -> None:
    frames = rng.integers(0, 256, (6, 72, 96, 3), np.uint8)
    picture = thumbnail_strip(frames, range(6))
    assert picture.startswith(b"\xff\xd8")
    for tile, frame in zip(tiles(picture, 6), frames, strict=True):
        np.testing.assert_allclose(tile.mean(axis=(0, 1)), frame.mean(axis=(0, 1)), atol=4)
    assert 'src="data:image/jpeg;base64,' in strip_html(frames, range(6))


@pytest.mark.parametrize(
    "dtype",
    [
        "uint16",
        "int16",
        "uint32",
        "int32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
        ">u2",
    ],
)
def test_other_dtypes_are_scaled_alike(dtype: str) -> None:
    info = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    values = [float(info.min), 0.0, float(info.max) * 0.999]
    shown = tiles(thumbnail_strip(flat(*values, dtype=dtype), [0, 1, 2]), 3)
    middle = 0 if np.dtype(dtype).kind == "u" else 127.5
    for tile, gray in zip(shown, (0, middle, 255), strict=True):
        assert tile.mean() == pytest.approx(gray, abs=1)


def test_the_scale_leaves_outliers_out(rng: np.random.Generator) -> None:
    frames = rng.uniform(100, 200, (3, 72, 72))
    frames[0, 0, 0] = 1e9
    (tile,) = tiles(thumbnail_strip(frames, [0]), 1)
    assert tile.mean() == pytest.approx(127.5, abs=5)


def test_values_that_are_not_finite() -> None:
    frames = flat(1.0, 3.0, np.nan, shape=(72, 72), dtype=float)
    frames[0, :36] = np.inf
    frames[1, :36] = -np.inf
    shown = tiles(thumbnail_strip(frames, [0, 1, 2]), 3)
    assert [np.unique(tile[:36]).tolist() for tile in shown] == [[128]] * 3
    assert [np.unique(tile[37:]).tolist() for tile in shown] == [[0], [255], [128]]
    # Nor is one of them spread over its neighbours.
    frames = flat(1.0, 3.0, shape=(720, 720), dtype=float)
    frames[0, ::10, ::10] = np.nan
    assert tiles(thumbnail_strip(frames, [0, 1]), 2)[0].max() == 0


@pytest.mark.parametrize("value", [0, 7, np.nan, np.inf, 1.7e308])
def test_frames_of_one_value(value: float) -> None:
    (tile,) = tiles(thumbnail_strip(flat(value, dtype=float), [0]), 1)
    assert np.unique(tile).tolist() == [128]


def test_truth_and_other_channels() -> None:
    shown = tiles(thumbnail_strip(flat(False, True, dtype=bool), [0, 1]), 2)
    assert [tile.mean() for tile in shown] == [0, 255]
    (tile,) = tiles(thumbnail_strip(flat((1, 2, 3, 99)), [0]), 1)
    assert tile[0, 0].tolist() == [1, 2, 3]
    (tile,) = tiles(thumbnail_strip(flat((5, 9)), [0]), 1)
    assert tile[0, 0].tolist() == [5, 5, 5]
    (tile,) = tiles(thumbnail_strip(flat((5,)), [0]), 1)
    assert tile[0, 0].tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((10, 20_000), (72, 288)),
        ((20_000, 10), (72, 1)),
        ((1, 1), (72, 72)),
        ((4, 6), (72, 108)),
        ((1000, 2000), (72, 144)),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_sizes_are_bounded(shape: tuple[int, int], expected: tuple[int, int], dtype: str) -> None:
    frames = flat(9, shape=shape, dtype=dtype)
    assert decoded(thumbnail_strip(frames, [0])).shape[:2] == expected
    damaged = Damaged(frames, {0}, CorruptChunkError("chunk 0"))
    assert decoded(thumbnail_strip(damaged, [0])).shape[:2] == expected


def test_small_images_keep_their_pixels() -> None:
    frames = np.array([[[0, 255], [255, 0]]], np.uint8)
    (tile,) = tiles(thumbnail_strip(frames, [0]), 1)
    assert np.unique(tile).tolist() == [0, 255]
    assert tile[:36, :36].max() == 0


@pytest.mark.parametrize(
    "error", [CorruptChunkError("chunk 3 is damaged"), PermissionError("no")], ids=repr
)
def test_frames_that_cannot_be_read(error: Exception) -> None:
    frames = Damaged(flat(10, 10, 10), {1}, error)
    shown = tiles(thumbnail_strip(frames, [0, 1, 2]), 3)
    assert [len(np.unique(tile)) for tile in shown] == [1, 2, 1]
    assert 190 < shown[1].mean() < 225
    frames = Damaged(flat(10, 10, dtype=float), {0, 1}, error)
    assert [len(np.unique(tile)) for tile in tiles(thumbnail_strip(frames, [0, 1]), 2)] == [2, 2]
    assert "(not readable: 0, 1)" in strip_html(frames, [0, 1])


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        thumbnail_strip(Damaged(flat(1), {0}, ZeroDivisionError()), [0])


def test_six_are_read_at_most() -> None:
    frames = Damaged(flat(*range(100)), set(), OSError())
    assert len(tiles(thumbnail_strip(frames, range(100)), 6)) == 6
    assert frames.read == [8, 25, 41, 58, 75, 91]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6, 7, 100, 15_120_000])
def test_spread_positions(count: int) -> None:
    positions = spread_positions(count)
    assert len(positions) == min(count, 6)
    assert len({*positions.tolist()}) == len(positions)
    assert all(0 <= position < count for position in positions)
    if count <= 6:
        assert positions.tolist() == list(range(count))
    assert positions.tolist() == sorted(count - 1 - position for position in positions) or count > 6


def test_html() -> None:
    text = strip_html(flat(10, 60), [0, 1])
    found = re.fullmatch(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)">', text)
    assert found
    assert base64.b64decode(found[1]) == thumbnail_strip(flat(10, 60), [0, 1])
    assert html.unescape(found[2]) == "frames at positions 0, 1"


def test_without_frames() -> None:
    assert strip_html(flat(1), []) == ""
    with pytest.raises(ValueError, match="at least one position"):
        thumbnail_strip(flat(1), [])


def test_of_a_recording(record: Record) -> None:
    path = record(flat(*range(0, 120, 10), shape=(24, 32)))
    (path / "image" / "c" / "1" / "0" / "0").unlink()
    with imgstore_zarr.open(path) as store:
        positions = spread_positions(store.frame_count)
        shown = tiles(thumbnail_strip(store.frames, positions), 6)
        text = strip_html(store.frames, positions)
    assert positions.tolist() == [1, 3, 5, 7, 9, 11]
    assert [len(np.unique(tile)) for tile in shown] == [1, 1, 2, 2, 1, 1]
    assert shown[4].mean() == 90
    assert "(not readable: 5, 7)" in text

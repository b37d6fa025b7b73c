"""Pixels: OpenCV says what is right."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from imgstore_zarr import UnsupportedFormatError, ensure_color, ensure_gray
from imgstore_zarr.pixels import Conversion, check_encoding, decode, encodings, is_color


def opencv_encodings() -> dict[str, int]:
    """Every code of OpenCV that ends in BGR, by the names that imgstore gives them."""
    table = {}
    for name in dir(cv2):
        if not name.startswith("COLOR_"):
            continue
        codec, found, method = name.removeprefix("COLOR_").partition("2BGR")
        if not found or (method and not method.startswith("_")):
            continue
        if method and (codec.lower().startswith("bayer")):
            continue
        code = "cv_" + codec.replace("_", "").lower()
        if method:
            code += "_" + method.replace("_", "").lower()
        table[code] = getattr(cv2, name)
    return table


def test_encodings_are_all_that_opencv_decodes_to_bgr() -> None:
    assert dict(encodings()) == opencv_encodings()
    assert len(encodings()) > 20


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("cv_bayerbg", "COLOR_BayerBG2BGR"),
        ("cv_bayergb", "COLOR_BayerGB2BGR"),
        ("cv_bayerrg", "COLOR_BayerRG2BGR"),
        ("cv_bayergr", "COLOR_BayerGR2BGR"),
        ("cv_gray", "COLOR_GRAY2BGR"),
        ("cv_rgb", "COLOR_RGB2BGR"),
        ("cv_bgr565", "COLOR_BGR5652BGR"),
        ("cv_lab", "COLOR_Lab2BGR"),
        ("cv_ycrcb", "COLOR_YCrCb2BGR"),
        ("cv_yuv", "COLOR_YUV2BGR"),
        ("cv_yuv_i420", "COLOR_YUV2BGR_I420"),
        ("cv_yuv_nv12", "COLOR_YUV2BGR_NV12"),
        ("cv_yuv_yuyv", "COLOR_YUV2BGR_YUYV"),
    ],
)
def test_names_that_recordings_have(name: str, code: str) -> None:
    assert encodings()[name] == getattr(cv2, code)


def test_variants_that_have_no_name() -> None:
    assert not any(name.endswith(("_vng", "_ea")) for name in encodings())


@pytest.mark.parametrize(
    ("encoding", "shape", "dtype"),
    [
        ("cv_bayerrg", (8, 10), np.uint8),
        ("cv_bayergr", (8, 10), np.uint16),
        ("cv_gray", (7, 5), np.uint8),
        ("cv_rgb", (7, 5, 3), np.float32),
        ("cv_hsv", (7, 5, 3), np.uint8),
        ("cv_yuv_i420", (12, 6), np.uint8),
        ("cv_yuv_nv21", (12, 6), np.uint8),
        ("cv_yuv_yuyv", (4, 6, 2), np.uint8),
    ],
)
def test_decoding_is_that_of_opencv(
    encoding: str, shape: tuple[int, ...], dtype: type[np.generic], rng: np.random.Generator
) -> None:
    image: NDArray[Any] = rng.integers(0, 256, shape).astype(dtype)
    expected = cv2.cvtColor(image, opencv_encodings()[encoding])
    check_encoding(encoding, shape, np.dtype(dtype))
    np.testing.assert_array_equal(decode(image, encoding), expected)
    np.testing.assert_array_equal(
        decode(image[::1, ::-1], encoding), expected_flip(image, encoding)
    )
    conversion = Conversion.between(shape, shape, encoding)
    assert conversion.output_shape(shape) == expected.shape
    np.testing.assert_array_equal(conversion.apply(image), expected)


def expected_flip(image: NDArray[Any], encoding: str) -> NDArray[Any]:
    return cv2.cvtColor(image[:, ::-1].copy(), opencv_encodings()[encoding])


def test_encodings_that_cannot_be() -> None:
    gray = np.zeros((8, 10), np.uint8)
    with pytest.raises(UnsupportedFormatError, match=r"'cv_bayerxx'.*cv_bayerrg"):
        decode(gray, "cv_bayerxx")
    with pytest.raises(UnsupportedFormatError, match=r"'bayerrg'.*cv_bayerrg"):
        check_encoding("bayerrg", (8, 10), np.dtype(np.uint8))
    # Two rows of luma and one of chroma: the rows must be a multiple of three.
    with pytest.raises(UnsupportedFormatError, match=r"\(8, 10\).*cv_yuv_i420"):
        check_encoding("cv_yuv_i420", (8, 10), np.dtype(np.uint8))
    with pytest.raises(UnsupportedFormatError, match="float64"):
        check_encoding("cv_bayerrg", (8, 10), np.dtype(np.float64))


def test_color_is_three_channels() -> None:
    assert is_color((4, 5, 3))
    assert not is_color((4, 3))
    assert not is_color((4, 5, 1))
    assert not is_color((4, 5, 4))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_gray_and_color(dtype: type[np.generic], rng: np.random.Generator) -> None:
    gray: NDArray[Any] = rng.integers(0, 256, (5, 6)).astype(dtype)
    color: NDArray[Any] = rng.integers(0, 256, (5, 6, 3)).astype(dtype)
    np.testing.assert_array_equal(ensure_color(gray), cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))
    np.testing.assert_array_equal(
        ensure_color(gray[..., None]), cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
    )
    np.testing.assert_array_equal(ensure_gray(color), cv2.cvtColor(color, cv2.COLOR_BGR2GRAY))
    flipped = color[::-1]
    np.testing.assert_array_equal(
        ensure_gray(flipped), cv2.cvtColor(flipped.copy(), cv2.COLOR_BGR2GRAY)
    )
    assert ensure_color(color) is color
    assert ensure_gray(gray) is gray


def test_gray_of_a_dtype_that_opencv_does_not_take() -> None:
    with pytest.raises(UnsupportedFormatError, match="int64"):
        ensure_gray(np.zeros((4, 5, 3), np.int64))


def test_color_of_any_dtype() -> None:
    gray = np.arange(6, dtype=np.int64).reshape(2, 3)
    np.testing.assert_array_equal(ensure_color(gray), np.stack([gray] * 3, axis=-1))


@pytest.mark.parametrize(
    ("stored", "wanted", "encoding", "conversion"),
    [
        ((4, 6), (4, 6), None, Conversion()),
        ((4, 6), (4, 6), "", Conversion()),
        ((4, 6), (4, 6), "cv_bayerrg", Conversion("decode", "cv_bayerrg")),
        ((4, 6, 3), (4, 6), None, Conversion("gray")),
        ((4, 6), (4, 6, 3), None, Conversion("color")),
        ((4, 6, 3), (4, 6, 3), None, Conversion()),
        ((4, 6, 4), (4, 6, 4), None, Conversion()),
    ],
)
def test_the_step_from_stored_to_handed_out(
    stored: tuple[int, ...], wanted: tuple[int, ...], encoding: str | None, conversion: Conversion
) -> None:
    assert Conversion.between(stored, wanted, encoding) == conversion
    image = np.arange(np.prod(stored), dtype=np.uint8).reshape(stored)
    result = conversion.apply(image)
    assert result.shape == conversion.output_shape(stored)
    assert (result is image) == (conversion == Conversion())

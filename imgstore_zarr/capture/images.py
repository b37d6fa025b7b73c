"""Image files, and stacks of images in one file, as a source."""

from __future__ import annotations

import datetime as dt
import mmap
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.capture.source import Captured, CapturedFrames
from imgstore_zarr.errors import (
    CorruptChunkError,
    FrameMismatchError,
    UnsupportedFormatError,
)
from imgstore_zarr.image_integrity import ImageHeader, check_image_file, check_tiff_stack
from imgstore_zarr.pixels import ensure_gray, is_color

Image = NDArray[Any]

_TIFF = (".tif", ".tiff")
SUFFIXES = (".png", ".jpg", ".jpeg", *_TIFF, ".bmp", ".pgm", ".ppm", ".npy")
"""Endings of the files that are read as images."""

# Decoding a batch of a TIFF stack begins with a walk to its first image.
_BATCH_BYTES = 32 * 2**20

DEFAULT_RATE = 25.0
"""Frames per second of images, unless somebody says another rate."""


class Images:
    """The images of files, one file after the other.

    Parameters
    ----------
    name
        What messages call them all.
    files
        Each with one of `SUFFIXES`. TIFF files may hold several images. npy files hold one, (y, x) or
        (y, x, 3), or a stack of them, (frame, y, x) or (frame, y, x, channel); colour is BGR.
    gray
        Make images gray.
    fps
        Frames per second, from which the frame times are counted; None is `DEFAULT_RATE`.
    times_from_names
        Take the frame times from the names of the files instead; see `time_in_name`.

    Raises
    ------
    UnsupportedFormatError
        A name holds no time, or not a later one than that before, or both kinds of times are asked for.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        *,
        gray: bool = False,
        fps: float | None = None,
        times_from_names: bool = False,
    ) -> None:
        if fps is not None and times_from_names:
            raise UnsupportedFormatError(
                "give the frame rate, or let the times be taken from the names, not both"
            )
        self.name = name
        self._files = files
        self._gray = gray
        self._rate = fps or DEFAULT_RATE
        self._times = _times_in_names(files) if times_from_names else None

    @property
    def count(self) -> int:
        """How many images there are."""
        return sum(_count(file) for file in self._files)

    def frames(self) -> CapturedFrames:
        """Iterate over all images.

        Raises
        ------
        CorruptChunkError
            A file is damaged.
        FrameMismatchError
            An image has another shape or dtype than the first.
        UnsupportedFormatError
            A file holds something else than images, or several where its name is to give the time.
        """
        number = 0
        first: Image | None = None
        for i, file in enumerate(self._files):
            for within, image in enumerate(_images_in(file)):
                image = ensure_gray(image) if self._gray else image
                if first is None:
                    first = image
                elif (image.shape, image.dtype) != (first.shape, first.dtype):
                    raise FrameMismatchError(
                        f"{file} holds images of {_kind(image)}, and {self._files[0]}, the first, of "
                        f"{_kind(first)}; all images of a recording must be alike"
                    )
                if self._times is None:
                    time = number / self._rate
                elif within:
                    raise UnsupportedFormatError(
                        f"{file} holds several images, and its name the time of one; give the frame "
                        "rate instead (--fps)"
                    )
                else:
                    time = self._times[i]
                yield Captured(image, number, time)
                number += 1


def _kind(image: Image) -> str:
    return f"{' x '.join(map(str, image.shape))} {image.dtype}"


def _count(file: Path) -> int:
    """How many images a file holds."""
    if file.suffix.lower() in _TIFF:
        return len(_tiff_headers(file))
    return len(_npy_images(file)) if file.suffix.lower() == ".npy" else 1


def _images_in(file: Path) -> Iterator[Image]:
    suffix = file.suffix.lower()
    if suffix == ".npy":
        yield from _npy_images(file)
    elif suffix in _TIFF:
        yield from _tiff_images(file)
    else:
        yield _decoded(file)


def _npy_images(file: Path) -> Image:
    """The images of an npy file, (frame, y, x[, channel]), which are read when they are used."""
    try:
        array: Image = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CorruptChunkError(f"{file} cannot be read: {error}") from error
    if array.ndim == 2 or is_color(array.shape):
        array = array[None]
    if array.ndim not in (3, 4):
        raise UnsupportedFormatError(
            f"{file} holds an array of shape {array.shape}; an image is (y, x) or (y, x, 3), a stack "
            "(frame, y, x) or (frame, y, x, channel)"
        )
    return array


def _tiff_headers(file: Path) -> list[ImageHeader]:
    try:
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return check_tiff_stack(data)
    except ValueError as error:
        raise CorruptChunkError(f"{file} cannot be read: {error}") from error


def _tiff_images(file: Path) -> Iterator[Image]:
    import cv2

    headers = _tiff_headers(file)
    height, width = headers[0].size
    batch = max(1, _BATCH_BYTES // (height * width * 4))
    for start in range(0, len(headers), batch):
        wanted = headers[start : start + batch]
        try:
            _, images = cv2.imreadmulti(str(file), start, len(wanted), flags=cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise CorruptChunkError(
                f"{file}: OpenCV cannot decode images from {start} on ({error.err})"
            ) from error
        if len(images) != len(wanted):
            raise CorruptChunkError(f"{file}: image {start + len(images)} cannot be decoded")
        for i, (image, header) in enumerate(zip(images, wanted, strict=True), start):
            yield _checked(image, header, f"{file}, image {i}")


def _decoded(file: Path) -> Image:
    import cv2

    data = file.read_bytes()
    try:
        header = check_image_file(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except ValueError as error:
        raise CorruptChunkError(f"{file} cannot be read: {error}") from error
    except cv2.error as error:
        raise CorruptChunkError(f"{file}: OpenCV cannot decode it ({error.err})") from error
    if image is None:
        raise CorruptChunkError(f"{file}: OpenCV cannot decode it")
    return _checked(image, header, str(file))


def _checked(image: Image, header: ImageHeader, name: str) -> Image:
    """An image that is what its header says, without an alpha channel that says nothing."""
    if image.dtype.name != header.dtype:
        raise UnsupportedFormatError(
            f"{name} holds {header.dtype}, of which OpenCV makes {image.dtype}; numpy.save keeps such "
            "images as they are"
        )
    if image.shape[2:] == (4,):
        opaque = np.iinfo(image.dtype).max if image.dtype.kind in "iu" else 1
        if (image[..., 3] != opaque).any():
            raise UnsupportedFormatError(
                f"{name} is transparent in places, and frames are not; lay it over a background first"
            )
        return np.ascontiguousarray(image[..., :3])
    return image


# 20240301T120000.5 or 2024-03-01_12-00-00: what stands between may be left out. Behind another sign than
# a point may be a count as well as a fraction.
_DATE = re.compile(
    r"(?<!\d)(\d{4})[-_.]?(\d\d)[-_.]?(\d\d)[-_. T]?(\d\d)[-_.:]?(\d\d)[-_.:]?(\d\d)"
    r"(?:[.,](\d{1,9}))?(Z)?(?!\d)"
)
# Unix time: in seconds up to the year 2286, also with decimals, or as many digits more of a finer unit.
_UNIX = re.compile(r"(?<!\d)(1\d{9})(?:\.(\d{1,9})|(\d{3}|\d{6}|\d{9}))?(?!\d)")


def _times_in_names(files: Sequence[Path]) -> list[float]:
    times = [time_in_name(file) for file in files]
    for i, (before, after) in enumerate(pairwise(times)):
        if after <= before:
            raise UnsupportedFormatError(
                f"the time in the name of {files[i + 1]} is not later than that of {files[i]}; "
                "fractions of a second stand behind a point, as in 2024-03-01_12-00-00.250"
            )
    return times


def time_in_name(file: Path) -> float:
    """Return the time that the name of a file holds, as Unix time in seconds.

    It is a date and time of day, of this machine's time zone unless a Z follows, such as
    ``2024-03-01_12-00-00.250`` or ``20240301T120000Z``; or Unix time in seconds (``1709294400.25``), or
    in whole milliseconds, microseconds or nanoseconds.

    Raises
    ------
    UnsupportedFormatError
        It holds none, or several.
    """
    stem = file.stem
    dates, units = [*_DATE.finditer(stem)], [*_UNIX.finditer(stem)]
    found = [*dates, *(unit for unit in units if not any(map(_overlap, dates, repeat(unit))))]
    if len(found) != 1:
        what = "several times" if found else "no time"
        raise UnsupportedFormatError(
            f"the name of {file} holds {what}; a time is 2024-03-01_12-00-00.250, 20240301T120000Z, or "
            "Unix time in s, ms, us or ns; --fps gives a rate instead"
        )
    match = found[0]
    digits = match[7] if match.re is _DATE else match[2] or match[3]
    fraction = float(f"0.{digits or 0}")
    if match.re is _UNIX:
        return int(match[1]) + fraction
    zone = dt.UTC if match[8] else None
    try:
        moment = dt.datetime.strptime("".join(match.groups()[:6]), "%Y%m%d%H%M%S").replace(
            tzinfo=zone
        )
    except ValueError as error:
        raise UnsupportedFormatError(f"the name of {file} holds no time: {error}") from error
    return moment.timestamp() + fraction


def _overlap(one: re.Match[str], other: re.Match[str]) -> bool:
    return one.start() < other.end() and other.start() < one.end()

"""installation: whether what is installed here works, and how fast this machine records."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from packaging.requirements import Requirement

from imgstore_zarr.errors import ImgStoreError, RecordingAccessError, UnsupportedFormatError
from imgstore_zarr.formats import create, get_supported_formats
from imgstore_zarr.formats import open as open_recording
from imgstore_zarr.pixels import decode

DISTRIBUTION = "imgstore-zarr"


@dataclass(frozen=True)
class Check:
    """What was found out about one thing.

    Attributes
    ----------
    kind
        ``format``, ``codec`` or ``extra``.
    name
        Of the thing.
    state
        ``ok``; ``missing`` of what not everybody needs; ``failed`` of what must work.
    detail
        What was tried, what was wrong, what to do.
    """

    kind: Literal["format", "codec", "extra"]
    name: str
    state: Literal["ok", "missing", "failed"]
    detail: str


@dataclass(frozen=True)
class WriteSpeed:
    """How fast frames could be recorded, on this machine, at that moment.

    Attributes
    ----------
    directory, format
        Where to, and in which form.
    frames, seconds
        How many were written in how long, until all were safe from power loss.
    """

    directory: str
    format: str
    frames: int
    seconds: float

    @property
    def frames_per_second(self) -> float:
        """The rate of a camera that can be recorded."""
        return self.frames / self.seconds


def check_formats(directory: Path) -> Iterator[Check]:
    """Write every format to a directory, read it back in random order, and compare.

    Parameters
    ----------
    directory
        An empty one; recordings are left in it.
    """
    for i, format in enumerate(get_supported_formats()):
        try:
            detail = _check_format(format, directory / str(i))
        except Exception as error:  # noqa: BLE001 - whatever is broken, that is the finding
            yield Check("format", format, "failed", f"{type(error).__name__}: {error}")
        else:
            yield Check("format", format, "ok", detail)


_FRAMES, _CHUNKSIZE = 24, 10
_LEAST_PSNR = 30.0

# Kinds of images; not all formats take all of them.
_KINDS: dict[str, tuple[tuple[int, ...], str, str | None]] = {
    "gray": ((48, 64), "uint8", None),
    "colour": ((48, 64, 3), "uint8", None),
    "uint16": ((48, 64), "uint16", None),
    "Bayer pattern": ((48, 64), "uint8", "cv_bayerrg"),
}
_EVERY_FORMAT_TAKES = "gray"


def _check_format(format: str, directory: Path) -> str:
    """What was compared, in words."""
    exact, close = [], []
    for kind in _KINDS:
        # In pgm a colour image loses its colour, as it should.
        if kind == "colour" and format.startswith("pgm"):
            continue
        try:
            worst = _written_and_read(format, kind, directory / kind)
        except UnsupportedFormatError:
            if kind == _EVERY_FORMAT_TAKES:
                raise
            continue
        if worst is None:
            exact.append(kind)
        else:
            close.append(f"{kind} {worst:.0f} dB")
    said = [f"bit-exact: {', '.join(exact)}"] if exact else []
    return "; ".join([*said, *([f"PSNR: {', '.join(close)}"] if close else [])])


def _written_and_read(format: str, kind: str, path: Path) -> float | None:
    """The PSNR of the frame that differs most, in dB; None where none may differ."""
    shape, dtype, encoding = _KINDS[kind]
    images = [_picture(i, shape, dtype) for i in range(_FRAMES)]
    numbers = [100 + i + 5 * (i > 12) for i in range(_FRAMES)]
    times = [1.7e9 + i / 25 for i in range(_FRAMES)]
    with create(
        path, format, shape, np.dtype(dtype), chunksize=_CHUNKSIZE, encoding=encoding
    ) as writer:
        for row in zip(images, numbers, times, strict=True):
            writer.add_image(*row)
    worst = np.inf
    with open_recording(path) as store:
        if len(store) != _FRAMES:
            raise ImgStoreError(f"{kind}: {_FRAMES} frames were written, {len(store)} are there")
        for i in np.random.default_rng(0).permutation(_FRAMES):
            image, metadata = store.get_image(numbers[i])
            if metadata != (numbers[i], times[i]):
                raise ImgStoreError(
                    f"{kind}: frame {numbers[i]} of {times[i]} came back as {metadata}"
                )
            expected = decode(images[i], encoding) if encoding else images[i]
            if (image.shape, image.dtype) != (expected.shape, expected.dtype):
                raise ImgStoreError(
                    f"{kind}: images of {expected.shape} {expected.dtype} came back as {image.shape} "
                    f"{image.dtype}"
                )
            worst = min(worst, _psnr(image, expected))
        lossless = store.lossless
    if worst < (np.inf if lossless else _LEAST_PSNR):
        raise ImgStoreError(f"{kind}: pixels came back changed, by {worst:.1f} dB (PSNR)")
    return None if lossless else worst


def _picture(i: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """A smooth image, which is unlike those before and after it."""
    y, x, channel = np.ogrid[: shape[0], : shape[1], : (*shape, 1)[2]]
    wave = 0.5 + 0.4 * np.sin(x / 9 + y / 14 + channel / 2 + 2.3 * i)
    return (wave * np.iinfo(dtype).max).astype(dtype).reshape(shape)


def _psnr(image: NDArray[Any], expected: NDArray[Any]) -> float:
    error = np.mean(np.square(image.astype(float) - expected))
    return float(10 * np.log10(np.iinfo(expected.dtype).max ** 2 / error)) if error else np.inf


# By their names in FFmpeg: what each is for, and whether a format needs it.
_FFMPEG = {
    "libx264": ("writes avc1/mp4 and h264/mkv", True),
    "mjpeg": ("writes and reads mjpeg/avi", True),
    "h264": ("reads H.264", True),
    "mpeg4": ("reads MPEG-4", False),
    "hevc": ("reads H.265", False),
    "vp9": ("reads VP9", False),
    "libdav1d": ("reads AV1", False),
    "ffv1": ("reads FFV1, lossless", False),
}
_IMAGE_FILES = ("png", "tif", "bmp", "ppm", "pgm", "jpg")
_COMPRESSORS = {"lz4": "lz4/zarr", "zstd": "zstd/zarr"}


def check_codecs() -> Iterator[Check]:
    """Look for the codecs in the packages that bring them."""
    import av
    import cv2
    from numcodecs.blosc import list_compressors

    found = av.codecs_available
    for name, (purpose, needed) in _FFMPEG.items():
        yield _codec(name, purpose, name in found, needed, "av", f"PyAV {av.__version__}")
    for name, purpose in _COMPRESSORS.items():
        there = name in list_compressors()
        yield _codec(name, f"writes and reads {purpose}", there, True, "numcodecs", "Blosc")
    for name in _IMAGE_FILES:
        there = cv2.haveImageWriter(f"image.{name}")
        package = "opencv-python-headless"
        yield _codec(name, f"writes {name}/dir", there, True, package, f"OpenCV {cv2.__version__}")


def _codec(name: str, purpose: str, there: bool, needed: bool, package: str, home: str) -> Check:
    if there:
        return Check("codec", name, "ok", f"{purpose} ({home})")
    cure = f"pip install --force-reinstall {package}"
    return Check(
        "codec", name, "failed" if needed else "missing", f"{purpose}; {home} lacks it: {cure}"
    )


_PURPOSES = {
    "dask": "reads and converts in parallel",
    "cloud": "object storage",
    "viewer": "view and serve",
    "plot": "figures",
}
_OF_DEVELOPERS = ("all", "docs", "test")


def check_extras() -> Iterator[Check]:
    """Look for the packages that the extras of this distribution would install, and import them."""
    facts = importlib.metadata.metadata(DISTRIBUTION)
    for extra in facts.get_all("Provides-Extra") or []:
        if extra not in _OF_DEVELOPERS:
            yield _check_extra(extra, _wanted(DISTRIBUTION, extra))


def _wanted(distribution: str, extra: str) -> list[Requirement]:
    """What an extra needs, with what the extras in it need."""
    try:
        needed = [*map(Requirement, importlib.metadata.requires(distribution) or [])]
    except importlib.metadata.PackageNotFoundError:
        return []
    wanted = []
    for one in needed:
        if (
            one.marker
            and one.marker.evaluate({"extra": extra})
            and not one.marker.evaluate({"extra": ""})
        ):
            within = [_wanted(one.name, inner) for inner in sorted(one.extras)]
            wanted += [one, *itertools.chain.from_iterable(within)]
    return wanted


def _check_extra(extra: str, wanted: list[Requirement]) -> Check:
    purpose = f"{_PURPOSES[extra]}: " if extra in _PURPOSES else ""
    found, lacking = [], []
    for requirement in wanted:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            lacking.append(f"{requirement.name} {version} is not {requirement.specifier}")
            continue
        found.append(f"{requirement.name} {version}")
        if importlib.util.find_spec(requirement.name) is None:
            continue
        try:
            importlib.import_module(requirement.name)
        except Exception as error:  # noqa: BLE001 - whatever is broken, that is the finding
            what = f"{purpose}{requirement.name} {version} cannot be imported: {error}"
            return Check("extra", extra, "failed", what)
    if lacking:
        cure = f"pip install '{DISTRIBUTION}[{extra}]'"
        return Check("extra", extra, "missing", f"{purpose}{', '.join(lacking)}: {cure}")
    return Check("extra", extra, "ok", purpose + ", ".join(found))


SPEED_FORMATS = ("raw/zarr", "zstd/zarr")
SPEED_SHAPE = (1024, 1024)

_MOST_BYTES, _LEAST_BYTES = 8 * 2**30, 256 * 2**20


def measure_writing(directory: Path, seconds: float = 3.0) -> Iterator[WriteSpeed]:
    """Record noisy images to a directory for some seconds, in each of `SPEED_FORMATS`.

    Parameters
    ----------
    directory
        One that is there; what is written to it is removed.
    seconds
        How long for each; all frames are then stored, which takes longer where storage is slow.

    Raises
    ------
    RecordingAccessError
        The directory is not there, cannot be written to, or has little room.
    """
    try:
        free = shutil.disk_usage(directory).free
        place = tempfile.TemporaryDirectory(prefix=".imgstore-speed-", dir=directory)
    except OSError as error:
        raise RecordingAccessError(
            f"nothing can be written to {directory} ({error.strerror}); choose another directory"
        ) from error
    with place as name:
        if free < 2 * _LEAST_BYTES:
            raise RecordingAccessError(
                f"{directory} has {free // 2**20} MiB of room, too little to measure anything; choose "
                "another directory"
            )
        pictures = _noisy_pictures()
        most = min(_MOST_BYTES, free // 2) // pictures[0].nbytes
        for i, format in enumerate(SPEED_FORMATS):
            path = Path(name, str(i))
            frames, took = _record(path, format, pictures, seconds, most)
            shutil.rmtree(path)
            yield WriteSpeed(str(directory), format, frames, took)


def _record(
    path: Path, format: str, pictures: NDArray[np.uint8], seconds: float, most: int
) -> tuple[int, float]:
    """How many frames were recorded, and how long that took."""
    began = time.perf_counter()
    # What the system holds in memory is not recorded yet.
    with create(path, format, SPEED_SHAPE, np.uint8, durable=True) as writer:
        while time.perf_counter() - began < seconds and len(writer) < most:
            count = len(writer)
            writer.add_image(pictures[count % len(pictures)], count, count / 1000)
    return len(writer), time.perf_counter() - began


def _noisy_pictures() -> NDArray[np.uint8]:
    """uint8 (frame, y, x): something smooth, and noise as cameras have it."""
    y, x = np.ogrid[: SPEED_SHAPE[0], : SPEED_SHAPE[1]]
    scene = 128 + 80 * np.sin(x / 150) * np.cos(y / 110)
    random = np.random.default_rng(0)
    noise = random.standard_normal((8, *SPEED_SHAPE), np.float32)
    return np.clip(scene + 2 * noise, 0, 255).astype(np.uint8)

"""Finding out what a source is."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path

from imgstore_zarr.capture.camera import Camera
from imgstore_zarr.capture.images import SUFFIXES, Images
from imgstore_zarr.capture.source import Source
from imgstore_zarr.capture.video import Video
from imgstore_zarr.errors import RecordingNotFoundError, UnsupportedFormatError
from imgstore_zarr.formats import is_recording
from imgstore_zarr.storage import Directory


def open_source(
    source: str | None = None,
    *,
    gray: bool = False,
    fps: float | None = None,
    times_from_names: bool = False,
) -> Source:
    """Open what frames are to be recorded from.

    Parameters
    ----------
    source
        A video file; a folder of images, or a pattern such as ``run1/*.png``, in the order of the
        numbers in their names; a stack of images, as an npy or a TIFF file; or the number of a camera.
        None is camera 0.
    gray
        Make images gray.
    fps
        Frames per second of images and stacks, whose files hold no times; 25 by default.
    times_from_names
        Take the times of images from the names of their files.

    Returns
    -------
    Source
        A video has its timestamps as frame times, a camera the time at which each frame was there.

    Raises
    ------
    RecordingNotFoundError
        There is no such file, image or camera.
    UnsupportedFormatError
        A kind of source that is not known, a name that holds no time, or times for a video or a camera,
        which have their own.
    CorruptChunkError
        A video that cannot be read.
    """
    if fps is not None and not 0 < fps < 1e6:
        raise UnsupportedFormatError(f"the frame rate must be above 0, not {fps}")
    path = Path(source or "").expanduser()
    if source is None or (source.isdecimal() and not path.exists()):
        found: Source = Camera(int(source or 0), gray=gray)
    elif files := _images(source, path):
        return Images(source, files, gray=gray, fps=fps, times_from_names=times_from_names)
    else:
        found = Video(path, gray=gray)
    if fps is not None or times_from_names:
        raise UnsupportedFormatError(
            f"{found.name} has times of its own; a frame rate, and times from names, are for images"
        )
    return found


def _images(source: str, path: Path) -> list[Path]:
    """The image files that a source means; none where it is another file."""
    if path.is_dir():
        if is_recording(Directory(path)):
            raise UnsupportedFormatError(
                f"{source} is a recording: imgstore-zarr convert makes another one of it"
            )
        found = (file for file in path.iterdir() if not file.name.startswith("."))
        files = _in_order(file for file in found if file.suffix.lower() in SUFFIXES)
        if not files:
            raise RecordingNotFoundError(f"{source} holds no images ({', '.join(SUFFIXES)})")
        return files
    if path.exists():
        return [path] if path.suffix.lower() in SUFFIXES else []
    if "://" in source:
        raise UnsupportedFormatError(
            f"{source} is a URL; copy it to this machine, or, if it is a recording, make another one of "
            "it by imgstore-zarr convert"
        )
    files = _in_order(map(Path, glob.glob(str(path)))) if glob.has_magic(source) else []  # noqa: PTH207
    if not files:
        raise RecordingNotFoundError(
            f"{source} does not exist; give a video file, a folder or pattern of images, an npy or TIFF "
            "stack, or the number of a camera"
        )
    others = [file for file in files if file.suffix.lower() not in SUFFIXES]
    if others:
        raise UnsupportedFormatError(
            f"{others[0]}, which {source} means, is no image ({', '.join(SUFFIXES)})"
        )
    return files


def _in_order(files: Iterable[Path]) -> list[Path]:
    """Files by their names, in which numbers count as such: frame-9 before frame-10."""
    return sorted(files, key=lambda file: (_natural(str(file)), str(file)))


def _natural(name: str) -> list[str | int]:
    # Text and numbers take turns.
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]

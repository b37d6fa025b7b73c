"""``imgstore-zarr export``: images, a video or a table, for programs that read no recordings."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr.cli.console import (
    frames_of,
    make_console,
    options_of,
    progress_of_frames,
    time_of,
)
from imgstore_zarr.cli.running import interrupted
from imgstore_zarr.conversion_source import Selection
from imgstore_zarr.cores import in_order
from imgstore_zarr.errors import (
    FrameNotFoundError,
    RecordingExistsError,
    UnsupportedFormatError,
)
from imgstore_zarr.index import Int64s
from imgstore_zarr.pixels import is_color
from imgstore_zarr.report import counted
from imgstore_zarr.store import ImgStore
from imgstore_zarr.video import EncoderOptions, HasVideo, VideoEncoder, copy_cuts

ImageKind = Literal["png", "tif"]

_DTYPES = {
    "png": ("uint8", "uint16"),
    "tif": ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64"),
}
_TABLES = (".csv", ".parquet")
_VIDEO = ".mp4"

# Of a video whose frame times say no rate.
_RATE = 25.0

_Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    destination
        The file, or the folder.
    kind
        ``images``, ``video`` or ``table``.
    count
        Images, frames or rows.
    how
        Of a video: ``copied`` or ``encoded``.
    why
        Why a video was encoded anew.
    rate
        Frames per second of a video that was encoded.
    """

    destination: str
    kind: Literal["images", "video", "table"]
    count: int
    how: Literal["copied", "encoded"] | None = None
    why: str | None = None
    rate: float | None = None

    def __str__(self) -> str:
        noun = {"images": "image", "video": "frame", "table": "row"}[self.kind]
        text = f"{self.destination}: {counted(self.count, noun)}"
        if self.how == "copied":
            text += ", copied as they are encoded"
        elif self.how == "encoded":
            text += f", encoded anew at {self.rate:.2f} frames/s: {self.why}"
        return text


def selected(store: ImgStore, frames: str | None, time: str | None) -> Int64s:
    """Return the positions that ``--frames`` and ``--time`` choose."""
    selection = Selection(frames=frames_of(frames), time=time_of(time))
    return selection.positions(store.index, store.filename)


def run_export(
    recording: str,
    destination: str,
    *,
    frames: str | None,
    time: str | None,
    to: ImageKind | None,
    extra: bool,
    options: list[str],
    as_json: bool,
) -> None:
    """Export, and say what was written.

    Parameters
    ----------
    recording, destination
        What to read, and the file or folder to write.
    frames, time
        ``START:STOP`` of positions and of seconds.
    to
        Images of this kind in a folder, whatever its name ends with.
    extra
        A table of the extra data instead of the frames.
    options
        Of URLs, each ``NAME=VALUE``.
    as_json
        Print one JSON document.
    """
    if "://" in destination:
        raise UnsupportedFormatError(f"{destination} is a URL; export writes files of this machine")
    target = Path(destination)
    kind = _kind_of(target, to, extra)
    location = imgstore_zarr.locate(recording, options_of(options))
    try:
        with imgstore_zarr.open(location) as store:
            positions = selected(store, frames, time)
            if kind == "table":
                done = _table(store, positions, target, extra, some=bool(frames or time))
            elif not len(positions):
                raise FrameNotFoundError(f"{store.filename} has no frames")
            elif kind == "video":
                done = _video(store, positions, target)
            else:
                done = _images(store, positions, target, kind, one=bool(target.suffix and not to))
    except KeyboardInterrupt:
        what = "interrupted; images that are there are whole, of a file nothing is left"
        raise interrupted(what) from None
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(done), indent=2))
    else:
        make_console().print(str(done), soft_wrap=True)


def _kind_of(
    target: Path, to: ImageKind | None, extra: bool
) -> Literal["table", "video", "png", "tif"]:
    """What is to be written, by the ending of its name."""
    ending = target.suffix.lower()
    if extra and (to or ending not in _TABLES):
        raise UnsupportedFormatError(
            f"--extra makes a table: name a file that ends with {' or '.join(_TABLES)}, not {target}"
        )
    if to:
        return to
    if ending in _TABLES:
        return "table"
    if ending == _VIDEO:
        return "video"
    if ending in (".tif", ".tiff"):
        return "tif"
    if ending in (".png", ""):
        return "png"
    raise UnsupportedFormatError(
        f"{target.name} could be anything: a name ends with {', '.join((_VIDEO, *_TABLES))}, .png or "
        ".tif, or is that of a folder for images, with --to png or --to tif"
    )


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise RecordingExistsError(f"{target} exists, and is not overwritten; choose another name")


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """Give a name to write to; the file gets its own when it is whole, and is gone if it is not."""
    _refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.stem}.part{target.suffix.lower()}")
    try:
        yield part
        _refuse_existing(target)
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)


def _table(store: ImgStore, positions: Int64s, target: Path, extra: bool, some: bool) -> Exported:
    from imgstore_zarr.cli.tables import extra_table, write_extra, write_frames

    with _new_file(target) as part:
        if not extra:
            write_frames(store, positions, part)
            return Exported(str(target), "table", len(positions))
        table = extra_table(store, positions if some else None)
        write_extra(table, part)
        return Exported(str(target), "table", len(table))


# Images.


def _images(
    store: ImgStore, positions: Int64s, target: Path, kind: ImageKind, *, one: bool
) -> Exported:
    shape, dtype = store.image_shape, store.dtype
    if dtype.name not in _DTYPES[kind] or (len(shape) == 3 and not is_color(shape)):
        held = " or ".join(
            f"{name} ({', '.join(dtypes)})" for name, dtypes in _DTYPES.items() if name != kind
        )
        raise UnsupportedFormatError(
            f"{store.filename}: {kind} files hold gray and colour images of "
            f"{', '.join(_DTYPES[kind])}, not {dtype} {shape}; {held} may, the format npy/dir of "
            "imgstore-zarr convert does"
        )
    if one:
        if len(positions) > 1:
            raise UnsupportedFormatError(
                f"{target} is the name of one image, and {len(positions)} frames are selected; name a "
                f"folder, with --to {kind}"
            )
        with _new_file(target) as part:
            part.write_bytes(_encoded(store.frames[int(positions[0])], kind))
        return Exported(str(target), "images", 1)
    return _folder(store, positions, target, kind)


def _folder(store: ImgStore, positions: Int64s, target: Path, kind: ImageKind) -> Exported:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RecordingExistsError(
            f"{target} exists and is not empty, and nothing is overwritten; choose another name"
        )
    target.mkdir(parents=True, exist_ok=True)
    digits = max(len(str(len(store) - 1)), 6)

    def write(item: tuple[int, NDArray[Any]]) -> None:
        position, image = item
        with _new_file(target / f"{position:0{digits}d}.{kind}") as part:
            part.write_bytes(_encoded(image, kind))

    frames = store.frames
    images = ((position, frames[position]) for position in positions.tolist())
    with progress_of_frames("writing images") as progress:
        for done, _ in enumerate(in_order(write, images), 1):
            progress(done, len(positions))
    return Exported(str(target), "images", len(positions))


def _encoded(image: NDArray[Any], kind: ImageKind) -> bytes:
    import cv2

    # OpenCV takes the bytes for native ones, and stores some floats with less precision unless asked.
    pixels = np.ascontiguousarray(image, image.dtype.newbyteorder("="))
    lzw = [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_LZW]
    return cv2.imencode(f".{kind}", pixels, lzw if kind == "tif" else [])[1].tobytes()


# Video.


def _video(store: ImgStore, positions: Int64s, target: Path) -> Exported:
    with _new_file(target) as part:
        why = _copied(store, positions, part)
        if why is None:
            return Exported(str(target), "video", len(positions), "copied")
        rate = _encode(store, positions, part)
    return Exported(str(target), "video", len(positions), "encoded", why, rate)


def _copied(store: ImgStore, positions: Int64s, part: Path) -> str | None:
    """Copy frames as they are encoded; or return why not."""
    source = store.parts.frames
    if not isinstance(source, HasVideo):
        return f"the recording is {store.format}, which is no video"
    if store.info.conversion.kind != "none":
        return f"its images are not shown as they are stored ({store.encoding or store.format})"
    first, last = int(positions[0]), int(positions[-1])
    if len(positions) != last - first + 1 or bool((np.diff(positions) != 1).any()):
        return "the frames that are selected do not follow each other"
    return copy_cuts(source.cuts(first, last + 1), part, store.image_shape)


def _encode(store: ImgStore, positions: Int64s, part: Path) -> float:
    """Encode frames, and return at which rate."""
    shape, dtype = store.image_shape, store.dtype
    height, width = (size & -2 for size in shape[:2])
    if dtype != np.uint8 or (len(shape) == 3 and not is_color(shape)) or not height or not width:
        raise UnsupportedFormatError(
            f"{store.filename}: mp4 files hold gray and colour images of uint8, not {dtype} {shape}; "
            "export them as tif, or let imgstore-zarr view make a video with levels that you choose"
        )
    rate = _rate(store.index.frame_time[positions])
    frames, size = store.frames, (height, width, *shape[2:])
    encoder = VideoEncoder(part, "libx264", size, EncoderOptions(fps=rate))
    with contextlib.closing(encoder), progress_of_frames("encoding") as progress:
        for done, position in enumerate(positions.tolist(), 1):
            encoder.write(frames[position, :height, :width])
            progress(done, len(positions))
    return rate


def _rate(times: NDArray[np.float64]) -> float:
    """Frames per second, by the usual time between two frames."""
    known = times[np.isfinite(times)]
    interval = float(np.median(np.diff(known))) if len(known) > 1 else math.nan
    return 1 / interval if 1e-5 < interval < 1e5 else _RATE

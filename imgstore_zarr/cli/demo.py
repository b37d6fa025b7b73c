"""``imgstore-zarr demo``: record, read back, compare, and draw."""

from __future__ import annotations

import importlib
import math
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import imgstore_zarr
from imgstore_zarr.cli.console import bytes_text, make_console, size_on_disk
from imgstore_zarr.cli.scene import DROPPED, RATE, moments
from imgstore_zarr.errors import MissingDependencyError, RecordingExistsError

if TYPE_CHECKING:
    import xarray as xr

_RECORDINGS: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "motif-mp4": ("avc1/mp4", {"fps": RATE}, "lossy: jumps at key frames"),
    "zstd-zarr": ("zstd/zarr", {}, "exact"),
}
"""Format, its options, and what to notice in the figure, by the recording's name."""

_EXACT = "zstd-zarr"
_FIGURE = "demo.png"
_CHUNKSIZE = 100
_ANIMALS = 5
_SEED = 7
_EXTRA_EVERY = 5
_BATCH_BYTES = 32 * 2**20


def run_demo(directory: Path, frames: int, height: int) -> None:
    """Run the whole demo.

    Parameters
    ----------
    directory
        Where everything goes.
    frames
        How many to record.
    height
        Of the images, in pixels.

    Raises
    ------
    MissingDependencyError
        dask or matplotlib is not installed.
    RecordingExistsError
        The directory holds a demo already; nothing is overwritten.
    """
    paths = {name: directory / name for name in _RECORDINGS}
    for path in (*paths.values(), directory / _FIGURE):
        if path.exists():
            raise RecordingExistsError(
                f"{path} is there already, and the demo overwrites nothing: "
                "name another directory, or remove this one"
            )
    _require("dask.array", "matplotlib.figure")
    from imgstore_zarr.cli.figure import draw

    console = make_console()
    shape = (height & -2, round(height * 4 / 3) & -2)
    reading: Counter[str] = Counter()
    energies = {}
    with _progress(console) as progress:
        writing = _record(paths, frames, shape, progress)
        for name, path in paths.items():
            with _timed(reading, name):
                energies[name] = motion_energy(path, progress)
        task = progress.add_task("drawing the figure", total=1)
        labelled = {f"{name} ({_RECORDINGS[name][2]})": e for name, e in energies.items()}
        draw(directory / _FIGURE, paths[_EXACT], labelled)
        progress.advance(task)
    console.print(_comparison(paths, writing, reading))
    _say_what_next(console, directory, paths[_EXACT])


def _require(*modules: str) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingDependencyError(
                f"the demo needs {module.split('.')[0]}: pip install 'imgstore-zarr[dask,plot]'"
            ) from error


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<32}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


@contextmanager
def _timed(seconds: Counter[str], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    # A Counter adds floats as well, but its type says int.
    seconds[name] += time.perf_counter() - start  # type: ignore[assignment]


def _record(
    paths: Mapping[str, Path], frames: int, shape: tuple[int, int], progress: Progress
) -> Counter[str]:
    """Write the same frames to every recording; return the seconds that each has taken."""
    scene = moments(
        frames,
        shape,
        start=time.time() - (frames + DROPPED) / RATE,
        animals=_ANIMALS,
        seed=_SEED,
    )
    metadata = {
        "experiment": "imgstore-zarr demo",
        "subjects": f"{_ANIMALS} synthetic geckos below a heat lamp",
        "camera": {"model": "synthetic", "frame_rate": RATE, "seed": _SEED},
        "units": {"temperature": "degC"},
    }
    seconds: Counter[str] = Counter()
    task = progress.add_task("recording both", total=frames)
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(
                imgstore_zarr.create(
                    paths[name], format, shape, chunksize=_CHUNKSIZE, metadata=metadata, **options
                )
            )
            for name, (format, options, _) in _RECORDINGS.items()
        }
        # In batches, so that what a writer does in the background is on its own clock.
        while batch := list(islice(scene, max(_BATCH_BYTES // (shape[0] * shape[1]), 1))):
            for name, writer in writers.items():
                with _timed(seconds, name):
                    for moment in batch:
                        writer.add_image(moment.image, moment.frame_number, moment.frame_time)
                        if (writer.frame_count - 1) % _EXTRA_EVERY == 0:
                            writer.add_extra_data(temperature=round(moment.temperature, 3))
            progress.advance(task, len(batch))
        for name, writer in writers.items():
            with _timed(seconds, name):
                writer.close()
    return seconds


def motion_energy(path: Path, progress: Progress) -> xr.DataArray:
    """Return the mean absolute difference of each frame to the one before, computed on dask."""
    from dask.callbacks import Callback

    task = progress.add_task(f"motion energy of {path.name}", total=None)
    with (
        imgstore_zarr.open(path) as store,
        Callback(  # type: ignore[no-untyped-call]
            start=lambda graph: progress.update(task, total=len(graph)),
            posttask=lambda *_: progress.advance(task),
            finish=lambda graph, *_: progress.update(task, completed=len(graph)),
        ),
    ):
        images = store.to_xarray(chunks=_CHUNKSIZE).astype("int16")
        energy = abs(images.diff("frame")).mean(("y", "x"))
        return energy.compute(scheduler="threads")


def _comparison(
    paths: Mapping[str, Path], writing: Mapping[str, float], reading: Mapping[str, float]
) -> Table:
    """Return the recordings side by side."""
    columns: list[dict[str, str]] = []
    for name, path in paths.items():
        with imgstore_zarr.open(path) as store:
            report = store.report()
            raw = store.frame_count * math.prod(store.image_shape) * store.dtype.itemsize
            size = size_on_disk(imgstore_zarr.locate(path)) or 0
            columns.append(
                {
                    "format": store.format,
                    "pixels": "exact" if store.lossless else "lossy",
                    "frames": f"{store.frame_count:,}",
                    "duration": f"{store.duration:.3f} s",
                    "gaps": "\n".join(
                        f"{gap.missing} frames dropped, {gap.seconds:.2f} s" for gap in report.gaps
                    )
                    or "none",
                    "size": bytes_text(size),
                    "of the raw size": f"{size / raw:.1%} of {bytes_text(raw)}",
                    "written": f"{store.frame_count / writing[name]:,.0f} frames/s",
                    "read with dask": f"{store.frame_count / reading[name]:,.0f} frames/s",
                }
            )
    table = Table(
        title="The same experiment, recorded twice",
        title_style="bold",
        caption="Written: encoding and files. Read: decoding and motion energy.",
        caption_justify="left",
    )
    table.add_column(style="cyan", no_wrap=True)
    for name in paths:
        table.add_column(name, justify="right")
    for row in columns[0]:
        table.add_row(row, *(column[row] for column in columns))
    return table


def _say_what_next(console: Console, directory: Path, example: Path) -> None:
    """Say where everything is and what to type."""
    lines = [
        "",
        f"Recordings: {', '.join(str(directory / name) for name in _RECORDINGS)}",
        f"Figure:     {directory / _FIGURE}",
        "",
        "Next, look at one:",
        "",
        f"    imgstore-zarr info {shlex.quote(str(example))}",
        "",
        "and work with it in Python:",
        "",
        "    import imgstore_zarr",
        f"    store = imgstore_zarr.open({str(example)!r})",
        '    print(store.to_xarray(chunks="auto").isel(frame=slice(0, 50)).mean("frame").compute())',
    ]
    console.print("\n".join(lines), soft_wrap=True)

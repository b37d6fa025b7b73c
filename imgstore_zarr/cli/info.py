"""``imgstore-zarr info``: what is known of a recording without looking at its pixels."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.table import Table

import imgstore_zarr
from imgstore_zarr.cli.console import (
    bytes_text,
    frame_time_text,
    leave_log,
    limited,
    make_console,
    moment_text,
    options_of,
    seconds_text,
    size_on_disk,
)
from imgstore_zarr.report import Report, counted
from imgstore_zarr.store import ImgStore


def print_info(recording: str, options: list[str], *, as_json: bool) -> None:
    """Print what a recording holds, as a table or as one JSON document."""
    location = imgstore_zarr.locate(recording, options_of(options))
    # The problems that opening logs are in the report.
    leave_log()
    with imgstore_zarr.open(location) as store:
        size = size_on_disk(location)
        if as_json:
            typer.echo(json.dumps(plain(_document(store, size)), indent=2, allow_nan=False))
        else:
            make_console().print(_table(store, size))


def _document(store: ImgStore, size: int | None) -> dict[str, Any]:
    created, zone = store.created
    return {
        "filename": store.filename,
        "full_path": store.full_path,
        "layout": store.info.layout,
        "format": store.format,
        "encoding": store.encoding,
        "lossless": store.lossless,
        "uuid": store.uuid,
        "created_utc": created.isoformat(),
        "created_known": _created_known(store),
        "created_local": created.astimezone(zone).isoformat(),
        "timezone_local": str(zone),
        "frame_count": store.frame_count,
        "image_shape": store.image_shape,
        "dtype": store.dtype.name,
        "frame_min": store.frame_min,
        "frame_max": store.frame_max,
        "frame_time_min": store.frame_time_min,
        "frame_time_max": store.frame_time_max,
        "duration": store.duration,
        "chunksize": store.info.chunksize,
        "chunks": store.chunks,
        "size_on_disk": size,
        "extra_data": store.find_extra_data_files() if store.has_extra_data else [],
        "user_metadata": store.user_metadata,
        "report": store.report().to_dict(),
    }


def _created_known(store: ImgStore) -> bool:
    """Whether the recording has a date; else the time of its file stands for that."""
    try:
        changed = Path(store.full_path).stat().st_mtime
    except OSError:  # in no directory
        changed = 0.0
    return store.info.created != dt.datetime.fromtimestamp(changed, dt.UTC)


def plain(value: Any) -> Any:
    """Return what JSON can hold: NaN and infinities as None, unknown things as text."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | AbstractSet):
        return [plain(item) for item in value]
    return str(value)


def _table(store: ImgStore, size: int | None) -> Table:
    created, zone = store.created
    report = store.report()
    shape = " x ".join(str(n) for n in store.image_shape)
    notes = [store.info.layout + " layout", "lossless" if store.lossless else "lossy"]
    if store.encoding:
        notes.append(f"encoding {store.encoding}")
    rows = {
        "format": f"{store.format} ({', '.join(notes)})",
        "frames": f"{store.frame_count:,}",
        "images": f"{shape} {store.dtype}",
    }
    if store.frame_count:
        raw = store.frame_count * math.prod(store.image_shape) * store.dtype.itemsize
        rows |= {
            "frame numbers": f"{store.frame_min} .. {store.frame_max}",
            "first frame time": frame_time_text(store.frame_time_min, zone),
            "last frame time": frame_time_text(store.frame_time_max, zone),
            "duration": seconds_text(store.duration),
            "interval": _interval(report),
        }
    rows["chunks"] = f"{report.chunk_count:,} of up to {store.info.chunksize:,} frames"
    if size is not None:
        rows["size on disk"] = bytes_text(size)
        if store.frame_count:
            rows["size on disk"] += f" ({size / raw:.1%} of {bytes_text(raw)} uncompressed)"
    rows["created"] = moment_text(created, zone)
    if not _created_known(store):
        rows["created"] += ", when metadata.yaml was last changed: the recording has no date"
    rows["uuid"] = store.uuid or "none"
    rows["extra data"] = (
        limited(store.find_extra_data_files(), 3) if store.has_extra_data else "none"
    )
    rows["user metadata"] = limited(_metadata_lines(store.user_metadata), 40) or "none"
    rows["gaps"] = _gaps(report)

    table = Table(title=store.filename, title_style="bold", title_justify="left", show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value, style="yellow" if name == "gaps" and report.gaps else None)
    problems = limited(problem.message for problem in report.problems)
    table.add_row("problems", problems or "none", style="bold red" if problems else None)
    return table


def _interval(report: Report) -> str:
    if not report.interval > 0:
        return "unknown"
    text = f"{report.interval * 1e3:.3f} ms ({1 / report.interval:.2f} frames/s)"
    if math.isfinite(report.jitter):
        text += (
            f", jitter {report.jitter * 1e3:.3f} ms, longest {report.longest_interval * 1e3:.3f} ms"
        )
    return text


def _gaps(report: Report) -> str:
    lines = [
        f"{counted(gap.missing, 'frame')} missing after number {gap.after} ({gap.seconds:.3f} s)"
        for gap in report.gaps
    ]
    odd = (
        (report.repeated, "frame number", "repeated"),
        (report.backward, "frame number", "going back"),
        (report.backward_times, "frame time", "going back"),
    )
    lines += [f"{counted(count, noun)} {what}" for count, noun, what in odd if count]
    return limited(lines) or "none"


def _metadata_lines(metadata: Mapping[str, Any]) -> list[str]:
    return [
        f"{key}: {value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)}"
        for key, value in metadata.items()
    ]

"""Recordings of which only the index exists: a day, a week, at 25 frames a second."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zarr
from numpy.typing import NDArray
from zarr.errors import ZarrUserWarning

import imgstore_zarr
from benchmarks.scene import FRAME_RATE, SHAPE

_CHUNK = 10_000
_START = 1_700_000_000.0


@dataclass(frozen=True)
class Week:
    """Frame numbers with drops, frame times with jitter."""

    chunks: int

    @property
    def frame_count(self) -> int:
        return self.chunks * _CHUNK

    @property
    def name(self) -> str:
        return f"{self.frame_count / 1e6:.2f} M frames"

    @cached_property
    def frame_number(self) -> NDArray[np.int64]:
        steps = np.ones(self.frame_count, np.int64)
        steps[np.random.default_rng(3).integers(0, self.frame_count, self.chunks)] = 2
        return np.cumsum(steps)

    @cached_property
    def frame_time(self) -> NDArray[np.float64]:
        jitter = np.random.default_rng(4).normal(0, 2e-4, self.frame_count)
        times: NDArray[np.float64] = _START + self.frame_number / FRAME_RATE + jitter
        return times


def write_zarr(path: Path, week: Week) -> None:
    """Make a recording of one frame and let zarr-python lengthen its arrays."""
    with imgstore_zarr.create(path, "raw/zarr", SHAPE) as writer:
        writer.add_image(np.zeros(SHAPE, np.uint8), 0, 0.0)
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    for name, values in (("frame_number", week.frame_number), ("frame_time", week.frame_time)):
        column: Any = group[name]
        column.resize(values.shape)
        column[:] = values
    image: Any = group["image"]
    image.resize((week.frame_count, *SHAPE))
    with warnings.catch_warnings():
        # It finds metadata.yaml beside the arrays, and is unsure of its own consolidation.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(group.store)


def write_imgstore(path: Path, week: Week) -> None:
    """Write the files that imgstore reads when it opens a directory store of .npy files."""
    path.mkdir()
    store = {
        "imgshape": list(SHAPE),
        "imgdtype": "uint8",
        "chunksize": _CHUNK,
        "format": "npy",
        "class": "DirectoryImgStore",
        "version": 2,
        "encoding": None,
        "created_utc": "2023-11-14T22:13:20",
        "timezone_local": "UTC",
        "uuid": "0" * 32,
    }
    (path / "metadata.yaml").write_text(yaml.safe_dump({"__store": store}))
    for chunk in range(week.chunks):
        directory = path / f"{chunk:06d}"
        directory.mkdir()
        part = slice(chunk * _CHUNK, (chunk + 1) * _CHUNK)
        np.savez(
            directory / "index.npz",
            frame_number=week.frame_number[part],
            frame_time=week.frame_time[part],
        )


def link_video_week(path: Path, week: Week) -> None:
    """Make a week of a Motif recording that has one chunk, which all others are links to."""
    for chunk in range(week.chunks):
        video = path / f"{chunk:06d}.mp4"
        if chunk:
            video.hardlink_to(path / f"{0:06d}.mp4")
        part = slice(chunk * _CHUNK, (chunk + 1) * _CHUNK)
        np.savez(
            path / f"{chunk:06d}.npz",
            frame_number=week.frame_number[part],
            frame_time=week.frame_time[part],
        )

"""Flipped bits, anywhere: each is detected, or changes nothing.

IMGSTORE_CAMPAIGN=50 flips 25,000 bits.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import imgstore_zarr
from tests.campaign import rounds

SHAPE = (5, 6)
COUNT = 21
IMAGES = np.random.default_rng(21).integers(0, 2**16, (COUNT, *SHAPE), np.uint16)
METADATA = {"who": "somebody", "where": {"lab": 7, "rig": 2.5}}
FLIPS = rounds(250)

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.timeout(3600)


def write(path: Path, format: str, count: int = COUNT) -> imgstore_zarr.ImgStoreWriter:
    writer = imgstore_zarr.create(
        path, format, SHAPE, np.uint16, chunksize=8, metadata=METADATA, encoding="cv_bayerrg"
    )
    for i in range(count):
        writer.add_image(IMAGES[i], 10 + i, i / 8)
        writer.add_extra_data(value=i, text=f"record {i}")
    return writer


@dataclass
class Content:
    """Everything that a recording says."""

    info: tuple[Any, ...]
    number: list[int]
    time: list[float]
    images: NDArray[np.uint16]
    records: list[dict[Any, Any]]

    @classmethod
    def of(cls, path: Path) -> Content:
        with imgstore_zarr.open(path) as store:
            info = store.info
            facts = (info.format, info.encoding, info.imgshape, info.imgdtype, info.chunksize)
            more = (info.created, str(info.timezone), info.uuid, info.user_metadata)
            store.disable_decoding()
            table = store.get_extra_data()
            return cls(
                facts + more,
                store.index.frame_number.tolist(),
                store.index.frame_time.tolist(),
                store.frames[...],
                [] if table is None else [dict(row) for row in table.to_dict("records")],
            )

    def is_same(self, other: Content) -> bool:
        return (
            (self.info, self.number, self.time) == (other.info, other.number, other.time)
            and np.array_equal(self.images, other.images)
            and self.records == other.records
        )


def flip(path: Path, draw: random.Random) -> str:
    """Flip one bit of one file, every byte of a recording as likely as another."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    sizes = [file.stat().st_size for file in files]
    (file,) = draw.choices(files, weights=sizes)
    data = bytearray(file.read_bytes())
    at, bit = draw.randrange(len(data)), draw.randrange(8)
    data[at] ^= 1 << bit
    file.write_bytes(data)
    return f"{file.relative_to(path)}, byte {at}, bit {bit}"


def campaign(
    source: Path, tmp_path: Path, seed: int, fate: Callable[[Path], str]
) -> tuple[Counter[str], list[str]]:
    """Flip bits of copies; what became of them, and which made a difference that nobody noticed."""
    draw, fates, undetected = random.Random(seed), Counter[str](), []
    for _ in range(FLIPS):
        path = tmp_path / "copy"
        shutil.copytree(source, path)
        what = flip(path, draw)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = fate(path)
        fates[found] += 1
        if found == "undetected":
            undetected.append(what)
        shutil.rmtree(path)
    return fates, undetected


@pytest.mark.parametrize("format", ["raw/zarr", "zstd/zarr"])
def test_a_recording(tmp_path: Path, format: str) -> None:
    source = tmp_path / "recording"
    write(source, format).close()
    truth = Content.of(source)
    assert truth.images.shape == (COUNT, *SHAPE)

    def fate(path: Path) -> str:
        try:
            same = Content.of(path).is_same(truth)
        except imgstore_zarr.ImgStoreError:
            return "detected when read"
        if not imgstore_zarr.verify(path).ok:
            return "detected by verify"
        return "harmless" if same else "undetected"

    fates, undetected = campaign(source, tmp_path, 1, fate)
    print(format, dict(fates))
    assert undetected == []
    # Most of a small recording are metadata; the only file that nobody reads is metadata.yaml.
    assert fates["detected when read"] > FLIPS // 4
    assert fates["detected by verify"] > 0


@pytest.mark.parametrize("format", ["raw/zarr", "zstd/zarr"])
def test_what_a_crash_left(tmp_path: Path, format: str) -> None:
    source = tmp_path / "recording"
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.test_zarr_flips import COUNT, IMAGES, write\n"
        "writer = write(Path(sys.argv[1]), sys.argv[2], COUNT - 2)\n"
        "writer.flush()\n"
        "for i in (COUNT - 2, COUNT - 1):\n"
        "    writer.add_image(IMAGES[i], 10 + i, i / 8)\n"
        "    writer.add_extra_data(value=i, text=f'record {i}')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script, str(source), format]
    subprocess.run(command, check=False, cwd=ROOT)
    assert (source / ".inflight" / "2.journal").stat().st_size > 8 + 4 * 36
    shutil.copytree(source, tmp_path / "repaired")
    assert imgstore_zarr.repair(tmp_path / "repaired").ok
    truth = Content.of(tmp_path / "repaired")
    assert len(truth.images) == len(truth.records) == COUNT

    def fate(path: Path) -> str:
        try:
            report = imgstore_zarr.repair(path)
            after = Content.of(path)
        except imgstore_zarr.ImgStoreError:
            return "detected when repaired or read"
        count = len(after.images)
        prefix = np.array_equal(after.images, truth.images[:count])
        if not (prefix and after.info == truth.info and count >= COUNT - 2):
            # Whatever is damaged: no wrong frame, and none that was flushed is lost without a word.
            return "told" if prefix and not report.ok else "undetected"
        if not report.ok:
            return "told by the repair"
        return "harmless" if after.is_same(truth) else "undetected"

    fates, undetected = campaign(source, tmp_path, 2, fate)
    print(format, dict(fates))
    assert undetected == []
    assert fates["told by the repair"] > 0
    assert fates["detected when repaired or read"] > FLIPS // 4

"""Writers that are killed at random moments, and repairs that are killed, too.

IMGSTORE_CAMPAIGN=20 makes 600 kills of it.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import imgstore_zarr
from tests.campaign import rounds

ROOT = Path(__file__).parents[1]
SEEDS = range(rounds(30))


@dataclass(frozen=True)
class Plan:
    """What a writer does until it is killed."""

    format: str
    shape: tuple[int, ...]
    chunksize: int
    group: int
    flush_every: int
    extra: bool
    durable: bool
    before: int
    """Frames of a recording that is there already, to which it appends."""

    @classmethod
    def drawn(cls, draw: random.Random) -> Plan:
        size = draw.choice([(24, 32), (24, 32), (400, 600)])
        group = draw.choice([1, 1, 1, 4])
        return cls(
            format=draw.choice(["raw/zarr", "lz4/zarr", "zstd/zarr"]),
            shape=draw.choice([size, (*size, 3)]),
            chunksize=group * draw.choice([1, 2, 8, 250]),
            group=group,
            flush_every=draw.choice([0, 1, 3, 10, 40]),
            extra=draw.random() < 0.5,
            durable=draw.random() < 0.2,
            before=draw.choice([0, 0, 0, 5, 17]),
        )

    def image(self, i: int) -> NDArray[np.uint8]:
        ground = np.arange(np.prod(self.shape), dtype=np.uint32).reshape(self.shape)
        return ((ground * 2654435761 >> 13) + 37 * i).astype(np.uint8)

    def write(self, path: Path, start: int, stop: int) -> None:
        """Write frames, and print how many are flushed."""
        inner = (self.group, *self.shape)
        with imgstore_zarr.create(
            path,
            self.format,
            self.shape,
            chunksize=self.chunksize,
            inner_chunks=inner,
            durable=self.durable,
            mode="a",
        ) as writer:
            for i in range(start, stop):
                writer.add_image(self.image(i), 1000 + 2 * i, i / 8)
                if self.extra:
                    writer.add_extra_data(value=i, text="x" * (i % 5))
                if self.flush_every and i % self.flush_every == self.flush_every - 1:
                    writer.flush()
                    os.write(1, b"%d\n" % (i + 1))

    def check(self, path: Path, least: int, flushed: int) -> int:
        """Assert that a recording is a prefix of what was written; return its length."""
        with imgstore_zarr.open(path) as store:
            count = len(store)
            assert count >= least
            assert store.index.frame_number.tolist() == [1000 + 2 * i for i in range(count)]
            assert store.index.frame_time.tolist() == [i / 8 for i in range(count)]
            for i, image in enumerate(store.frames):
                np.testing.assert_array_equal(image, self.image(i))
            table = store.get_extra_data()
            values = [] if table is None else table["value"].tolist()
            assert values == [*range(len(values))]
            # A record follows its frame, so that the last frame may lack it.
            assert max(flushed, count - 1) * self.extra <= len(values) <= count * self.extra
        array = zarr.open_group(path, mode="r")["image"]
        assert isinstance(array, zarr.Array)
        assert array.shape == (count, *self.shape)
        if count:
            np.testing.assert_array_equal(array[count - 1], self.image(count - 1))
            np.testing.assert_array_equal(array[count // 2], self.image(count // 2))
        return count


def killed(code: str, path: Path, plan: Plan, after: float) -> tuple[list[str], bool]:
    """Run Python, and kill it some time after it has printed something; what it printed, and whether."""
    command = [sys.executable, "-c", code, str(path), json.dumps(asdict(plan))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, bufsize=0) as process:
        assert process.stdout is not None
        select.select([process.stdout], [], [], 60)
        time.sleep(after)
        process.kill()
        printed = process.stdout.read().decode()
    # A line that is cut off was not said.
    return printed.split("\n")[:-1], process.returncode == -signal.SIGKILL


_PREPARE = """
import json, os, sys
from pathlib import Path
import imgstore_zarr, imgstore_zarr.native, numcodecs
from tests.test_zarr_kills import Plan
path, facts = Path(sys.argv[1]), json.loads(sys.argv[2])
plan = Plan(**{**facts, "shape": tuple(facts["shape"])})
os.write(1, b"0\\n")
"""
WRITE = _PREPARE + "plan.write(path, plan.before, 100_000)"
REPAIR = _PREPARE + "imgstore_zarr.repair(path)"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_writer_and_a_killed_repair(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    plan, path = Plan.drawn(draw), tmp_path / "recording"
    if plan.before:
        plan.write(path, 0, plan.before)
    printed, was_killed = killed(WRITE, path, plan, draw.uniform(0, 0.4))
    assert was_killed
    flushed = max(plan.before, int(printed[-1]))
    if not (path / "zarr.json").exists():
        assert flushed == 0
        return
    before = committed(plan, path, flushed)
    for _ in range(draw.randrange(3)):
        killed(REPAIR, path, plan, draw.uniform(0, 0.02))
        committed(plan, path, before)
    report = imgstore_zarr.repair(path)
    assert report.ok, report.problems
    count = plan.check(path, before, flushed)
    assert not (path / ".inflight").exists()
    found = imgstore_zarr.verify(path)
    assert (found.ok, found.frame_count) == (True, count), found.problems
    # And it can go on.
    plan.write(path, count, count + 3)
    with imgstore_zarr.open(path) as store:
        assert len(store) == count + 3


def committed(plan: Plan, path: Path, least: int) -> int:
    """Before a repair, everything that was flushed is there, and right."""
    with imgstore_zarr.open(path) as store:
        count = len(store)
        assert count >= least
        assert store.index.frame_number.tolist() == [1000 + 2 * i for i in range(count)]
        for i in {*range(max(0, count - 3), count), *range(0, count, 7)}:
            np.testing.assert_array_equal(store.frames[i], plan.image(i))
    return count

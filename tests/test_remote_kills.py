"""Writers to stores that are killed, at every step and at random moments, and so are their repairs.

IMGSTORE_CAMPAIGN=10 makes hundreds of kills of it.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import zarr

import imgstore_zarr
from imgstore_zarr.lock import StoreLock
from imgstore_zarr.native.spool_folder import SpoolFolder
from imgstore_zarr.storage import Directory, ZarrStore
from tests import servers
from tests.campaign import rounds
from tests.remote_places import Remote, add, in_s3, read_by_zarr
from tests.test_zarr_interruptions import KilledAt, in_child

pytestmark = pytest.mark.timeout(3600)

ROOT = Path(__file__).parents[1]

# A journal is a head and one record a frame.
_HEAD, _RECORD = 20, 36
CHUNKSIZE = 4


def on_disk(path: Path) -> Remote:
    """A store that outlives a process, and is no directory for this project."""
    store = zarr.storage.LoggingStore(zarr.storage.LocalStore(path), log_level="ERROR")
    return Remote(store, store)


def frames_in(spools: Path) -> int:
    """How many frames the only spool has whole, counted by its files."""
    most = 0
    for journal in spools.glob("*/recording/.inflight/*.journal"):
        frames = max(0, journal.stat().st_size - _HEAD) // _RECORD
        most = max(most, int(journal.stem) * CHUNKSIZE + frames)
    for group in spools.glob("*/recording/zarr.json"):
        arrays = json.loads(group.read_text())["consolidated_metadata"]["metadata"]
        most = max(most, arrays["image"]["shape"][0])
    return most


def session(remote: Remote, acknowledged: Path) -> None:
    def note(count: int) -> None:
        acknowledged.write_text(str(count))

    with remote.create("a") as writer:
        note(0)
        add(writer, 0, 6, extra=True)
        writer.flush()
        note(6)
        add(writer, 6, 11, extra=True)
        writer.flush()
        note(11)
        add(writer, 11, 14)
    note(14)
    with remote.create("a") as writer:
        add(writer, 14, 19, extra=True)
    note(19)


def steps_of(at: int) -> None:
    """Kill this process before the n-th of all steps that change a store, or a spool."""
    steps = KilledAt(at)
    for owner in (ZarrStore, Directory):
        for name in ("write", "delete"):
            steps.wrap(owner, name)
    steps.wrap(Directory, "take")
    steps.wrap(StoreLock, "take")
    for name in ("finish", "remove"):
        steps.wrap(SpoolFolder, name)


@pytest.fixture
def spools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "imgstore-zarr" / "spool"


def check(remote: Remote, least: int) -> int:
    """Assert that a recording is some first frames, and not fewer than that; return how many."""
    found = remote.numbers
    assert found == [*range(len(found))]
    assert len(found) >= least
    return len(found)


def test_a_kill_at_every_step(tmp_path: Path, spools: Path) -> None:
    """And a kill in the repair after it; then nothing is lost that was flushed, or is in the spool."""
    path, acknowledged = tmp_path / "r", tmp_path / "acknowledged"
    draw = random.Random(5)

    def write(at: int) -> None:
        steps_of(at)
        session(on_disk(path), acknowledged)

    def repair(at: int) -> None:
        steps_of(at)
        on_disk(path).repair()

    seen: set[int] = set()
    for at in range(1, 1000, max(1, 13 // rounds(1))):
        acknowledged.write_text("-1")
        was_killed = in_child(partial(write, at))
        flushed = int(acknowledged.read_text())
        if not (path / "zarr.json").exists():
            assert flushed == -1
        else:
            whole = max(flushed, frames_in(spools))
            before = check(on_disk(path), flushed)
            if draw.random() < 0.5:
                in_child(partial(repair, draw.randrange(1, 40)))
                before = check(on_disk(path), before)
            report = on_disk(path).repair()
            assert report.ok, report.problems
            count = check(on_disk(path), whole)
            seen.add(count)
            assert imgstore_zarr.verify(on_disk(path).target).ok
            extra = on_disk(path).extra() or []
            expected = [i for i in range(count) if not 11 <= i < 14]
            # A record follows its frame.
            assert extra in (expected, expected[:-1])
            with on_disk(path).create("a") as writer:
                add(writer, count, count + 2)
            assert check(on_disk(path), count + 2) == count + 2
        shutil.rmtree(path, ignore_errors=True)
        if not was_killed:
            break
    assert not was_killed
    assert len(seen) > 5
    assert 19 in seen


WRITE = """
import json, os, sys
from tests.remote_places import Remote, add
url, options = sys.argv[1], json.loads(sys.argv[2])
remote = Remote(url, None, options)
with remote.create("a") as writer:
    os.write(1, b"0\\n")
    for i in range(0, 3000):
        add(writer, i, i + 1)
        if i % 50 == 20:
            writer.flush()
            os.write(1, b"%d\\n" % (i + 1))
"""
REPAIR = """
import json, sys
import imgstore_zarr
print("begun", flush=True)
imgstore_zarr.repair(sys.argv[1], storage_options=json.loads(sys.argv[2]))
"""


def killed(code: str, remote: Remote, after: float) -> list[str]:
    """Run a script, and kill it some time after it has printed something; return what it printed."""
    command = [sys.executable, "-c", code, remote.target, json.dumps(dict(remote.options))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        first = process.stdout.readline().decode()
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        printed = first + process.stdout.read().decode()
    return printed.split("\n")[:-1]


@pytest.mark.parametrize("seed", range(rounds(6)))
def test_kills_at_random_moments(spools: Path, seed: int) -> None:
    """With a real server, whose objects outlive the writer."""
    remote, draw = in_s3(servers.s3()), random.Random(seed)
    flushed = int(killed(WRITE, remote, draw.uniform(0, 1.5))[-1])
    before = check(remote, flushed)
    whole = frames_in(spools)
    for _ in range(draw.randrange(2)):
        killed(REPAIR, remote, draw.uniform(0, 0.3))
        before = check(remote, before)
    assert remote.repair().ok
    assert check(remote, max(before, whole)) == max(before, whole)
    assert not [key for key in remote.listed() if ".inflight" in key]
    assert not spools.exists()


CONVERT = """
import json, os, signal, sys
import imgstore_zarr
from imgstore_zarr.conversion_claim import Claim
from tests.servers import Place
place = Place(sys.argv[2], json.loads(sys.argv[3]))
note, left = Claim.note, int(sys.argv[4])
def noting(claim, chunk):
    global left
    note(claim, chunk)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
Claim.note = noting
imgstore_zarr.convert(sys.argv[1], place.store, "zstd/zarr", chunksize=4)
"""


@pytest.mark.parametrize("chunks", [1, 3])
def test_a_conversion_that_is_killed(tmp_path: Path, chunks: int) -> None:
    source, place = tmp_path / "source", servers.s3()
    with imgstore_zarr.create(source, "raw/zarr", (8, 8), chunksize=5) as writer:
        add(writer, 0, 22, extra=True)
    words = [str(source), place.url, json.dumps(dict(place.options)), str(chunks)]
    done = subprocess.run([sys.executable, "-c", CONVERT, *words], check=False, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    # Its lock counts as long as its process lives.
    report = imgstore_zarr.convert(source, place.store, "zstd/zarr", chunksize=4, verify=True)
    assert (report.resumed, report.chunk_count, report.verified) == (chunks, 6, True)
    assert read_by_zarr(zarr.storage.ObjectStore(place.store)) == [*range(22)]
    assert not [key for key in place.contents() if ".conversion" in key or ".inflight" in key]

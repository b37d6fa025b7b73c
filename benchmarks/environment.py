"""The interpreter of imgstore 0.4.0, and all contenders in their processes."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import Timed
from benchmarks.scene import FRAMES, make_scene
from benchmarks.worker import Worker

IMGSTORE = ("imgstore==0.4.0", "opencv-python-headless", "decord==0.6.0")
_OURS = ("ours", "cluster", "far", "zarr_python", "tensorstore_zarr", "limits", "pyav")
_THEIRS = ("imgstore", "opencv", "decord_reader")
_WRITERS = ("ours", "imgstore", "zarr_python", "tensorstore_zarr")


def imgstore_python(workdir: Path) -> str:
    """Return an interpreter that has imgstore, made in the work directory unless it is there."""
    home = workdir / "imgstore-0.4.0"
    interpreter = home / "bin" / "python"
    made_of = "\n".join(IMGSTORE)
    complete = home / "complete"
    if not complete.exists() or complete.read_text() != made_of:
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", *IMGSTORE], check=True)
        complete.write_text(made_of)
    return str(interpreter)


@dataclass(frozen=True)
class Bench:
    """What every work needs.

    Attributes
    ----------
    workers
        The contenders, by the names of their modules.
    interpreters
        The Python of each.
    data
        Where recordings may be made.
    scene
        The file of the scene's frames.
    """

    workers: dict[str, Worker]
    interpreters: dict[str, str]
    data: Path
    scene: Path

    def path(self, name: str) -> str:
        return str(self.data / name)

    def timed(self, peer: str, do: str, **arguments: object) -> Timed:
        """Return a repetition of one contender's work."""
        return partial(self.workers[peer].call, do, **arguments)

    def append(
        self, peer: str, format: str, count: int, *, chunksize: int, keep: str | None = None
    ) -> Timed:
        """Return a repetition of writing; `keep` names the recording that is left."""
        return self.timed(
            peer,
            "append",
            scene=str(self.scene),
            path=self.path(keep or f"written-by-{peer}"),
            format=format,
            count=count,
            chunksize=chunksize,
            keep=keep is not None,
        )

    def must_agree(self, path: dict[str, str], positions: list[int]) -> None:
        """Refuse to measure contenders that do not read the same pixels."""
        digests = {
            peer: self.workers[peer].call("digest", path=where, positions=positions)
            for peer, where in path.items()
        }
        if len(set(digests.values())) != 1:
            raise RuntimeError(f"the contenders read different frames: {digests}")

    def peak(self, peer: str, do: str, **arguments: object) -> float:
        """Return the growth of peak memory in a fresh process that has loaded the scene."""
        with Worker(peer, self.interpreters[peer]) as worker:
            if do == "append":
                worker.call("prepare", scene=str(self.scene))
            return worker.call_and_peak(do, **arguments)[1]

    def versions(self) -> dict[str, dict[str, str]]:
        """Return the versions in use, for our environment and that of imgstore."""
        found: dict[str, dict[str, str]] = {"ours": {}, "imgstore": {}}
        for peer, worker in self.workers.items():
            found["imgstore" if peer in _THEIRS else "ours"] |= worker.call("versions")
        return found


@contextmanager
def bench(data: Path, imgstore: str) -> Iterator[Bench]:
    """Save the scene and start the contenders."""
    scene = data / "scene.npy"
    np.save(scene, make_scene(FRAMES))
    interpreters = dict.fromkeys(_OURS, sys.executable) | dict.fromkeys(_THEIRS, imgstore)
    with ExitStack() as stack:
        workers = {
            peer: stack.enter_context(Worker(peer, interpreter))
            for peer, interpreter in interpreters.items()
        }
        for peer in _WRITERS:
            workers[peer].call("prepare", scene=str(scene))
        yield Bench(workers, interpreters, data, scene)

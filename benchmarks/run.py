"""Measure imgstore_zarr against its peers: ``python -m benchmarks.run --help``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import far, machine, video, week, works
from benchmarks.environment import bench, imgstore_python
from benchmarks.measure import Row, run
from benchmarks.table import insert, markdown

GROUPS = {
    "writing": works.writing,
    "reading": works.reading,
    "opening": works.opening,
    "memory": works.memory,
    "video": video.video,
    "week": week.week,
    "far": far.far,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("benchmarks/.work"))
    parser.add_argument("--imgstore-python", help="an interpreter that has imgstore 0.4.0")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--update", type=Path, help="a page with the markers of a table")
    options = parser.parse_args()

    options.workdir = options.workdir.resolve()
    options.workdir.mkdir(parents=True, exist_ok=True)
    interpreter = options.imgstore_python or imgstore_python(options.workdir)
    facts = machine.facts(options.workdir)
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(dir=options.workdir) as data,
        bench(Path(data), interpreter) as contenders,
    ):
        for name in options.only:
            print(name, file=sys.stderr)
            for work in GROUPS[name](contenders):
                print(f"  {work.name}", file=sys.stderr)
                rows += run(work, options.repetitions)
        versions = contenders.versions()
    command = "python -m benchmarks.run"
    if options.only != list(GROUPS):
        command += " --only " + " ".join(options.only)
    text = markdown(command, rows, versions, facts, options.repetitions)
    print(text)
    if options.update:
        insert(options.update, text)


if __name__ == "__main__":
    main()

"""Run the test suite of imgstore 0.4.0, as it is, against this project.

``python -m tests.imgstore_suite [WHEEL]``. Without a wheel, that of imgstore is downloaded by pip.
Only its tests are unpacked: nothing of its code is there to be imported.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree

REQUIREMENT = "imgstore==0.4.0"
# With test_all[bpk], which imgstore leaves out where bloscpack cannot be imported.
TESTS = 115
# It looks at private attributes of a store: the index object itself, and a list of chunk paths.
MAY_FAIL = frozenset({"test_index[2]", "test_index[100]"})

# In a process of its own: that the names are imgstore's lasts as long as the process.
PYTEST = """
import sys
import imgstore_compat
imgstore_compat.install_as_imgstore()
import imgstore
import pytest
imgstore.__path__.append(sys.argv[1])
sys.exit(pytest.main(sys.argv[2:]))
"""


def download(directory: Path) -> Path:
    """Download the wheel of imgstore."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", REQUIREMENT]
    subprocess.run([*command, "--dest", directory], check=True)
    (wheel,) = directory.glob("imgstore-*.whl")
    return wheel


def unpack(wheel: Path, directory: Path) -> None:
    """Unpack the tests of a wheel, and no other part of it."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("imgstore/tests/")]
        archive.extractall(directory, names)


def run(directory: Path) -> Path:
    """Run the unpacked tests; return the report, which is JUnit's XML."""
    package, report, settings = (
        directory / name for name in ("imgstore", "report.xml", "pytest.ini")
    )
    settings.write_text("[pytest]\n")
    arguments = ["-q", "-p", "no:cacheprovider", "-c", str(settings), "--rootdir", str(directory)]
    arguments += ["--basetemp", str(directory / "tmp")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    subprocess.run(
        [sys.executable, "-c", PYTEST, package, *arguments, "--junitxml", report, package],
        cwd=directory,
        env=environment,
        check=False,
    )
    return report


def outcomes(report: Path) -> dict[str, str]:
    """Return what became of each test: passed, failed, skipped or xfailed."""
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        result = "passed"
        for element in case:
            if element.tag in ("failure", "error"):
                result = "failed"
            elif element.tag == "skipped":
                result = "xfailed" if element.get("type") == "pytest.xfail" else "skipped"
        found[case.attrib["name"]] = result
    return found


def judge(results: dict[str, str]) -> list[str]:
    """Return what is wrong with the results; nothing where they are as they should be."""
    wrong = [f"{name} {result}" for name, result in results.items() if result == "skipped"]
    wrong += [n for n, result in results.items() if result == "failed" and n not in MAY_FAIL]
    if len(results) != TESTS:
        wrong.append(f"{len(results)} tests ran, not {TESTS}")
    return wrong


def main() -> int:
    """Run the tests; return the exit status."""
    parser = argparse.ArgumentParser(description="run imgstore's own tests against this project")
    parser.add_argument("wheel", nargs="?", type=Path, help="a wheel of imgstore 0.4.0")
    wheel: Path | None = parser.parse_args().wheel
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        unpack(wheel or download(directory), directory)
        results = outcomes(run(directory))
    counts = {kind: [*results.values()].count(kind) for kind in sorted({*results.values()})}
    print(f"imgstore's own tests, {len(results)} of them:", counts)
    wrong = judge(results)
    for line in wrong:
        print("not as it should be:", line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

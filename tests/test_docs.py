"""The documentation: its Python runs, its links lead somewhere, it builds."""

import contextlib
import importlib.util
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import google_crc32c
import numpy as np
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

import imgstore_zarr

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

UPDATE = "IMGSTORE_UPDATE_PICTURES"
"""With this set to 1, pictures that the pages make take the place of those beside them."""

SCREENSHOTS = "viewer-"
"""Begins the names of pictures of the viewer's page, which tests/test_viewer_page.py makes."""

ALIKE = 3.0
"""How far pixels of two pictures may differ, on the average: fonts are not the same everywhere."""


def pages() -> list[Path]:
    found = [page for page in DOCS.rglob("*.md") if "_build" not in page.parts]
    return [*sorted(found), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def tokens(page: Path) -> Iterator[Token]:
    for token in MarkdownIt("commonmark").parse(page.read_text()):
        yield token
        yield from token.children or ()


class Block(NamedTuple):
    line: int
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [
        Block(token.map[0] + 1, (token.info.split() or [""])[0], token.content)
        for token in tokens(page)
        if token.type == "fence" and token.map
    ]


def run(page: Path, directory: Path) -> None:
    """Run the Python of a page from top to bottom; an ``output`` block is what was printed since."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()
    for block in blocks(page):
        where = f"{name_of(page)}:{block.line}"
        if block.language == "python":
            printed = io.StringIO()
            code = "\n" * block.line + block.text
            try:
                with contextlib.chdir(directory), contextlib.redirect_stdout(printed):
                    exec(compile(code, str(page), "exec"), namespace)
            except Exception:  # noqa: BLE001 - a page may raise anything; it is shown
                pytest.fail(f"{where}\n\n{block.text}\n{traceback.format_exc()}", pytrace=False)
        elif block.language == "output":
            assert printed.getvalue().rstrip() == block.text.rstrip(), f"{where} is not printed"


def pictures(page: Path) -> list[Path]:
    """The PNGs beside a page that it shows; its code makes each, under the same name."""
    shown = [str(token.attrs["src"]) for token in tokens(page) if token.type == "image"]
    return [
        page.parent / name
        for name in shown
        if re.fullmatch(r"[\w-]+\.png", name) and not name.startswith(SCREENSHOTS)
    ]


def check_picture(made: Path, committed: Path) -> None:
    """Compare what a page has drawn with what is beside it, by content."""
    assert made.exists(), f"the page does not make {made.name}"
    if os.environ.get(UPDATE) == "1":
        shutil.copy(made, committed)
    again = f"to take the new one: {UPDATE}=1 python -m pytest tests/test_docs.py -k runs"
    assert committed.exists(), f"{name_of(committed)} is not there; {again}"
    new, old = (cv2.imread(str(path)) for path in (made, committed))
    assert new is not None
    assert old is not None
    assert new.shape == old.shape, f"{name_of(committed)} has another size; {again}"
    difference = float(cv2.absdiff(new, old).mean())
    assert difference < ALIKE, f"{name_of(committed)} differs by {difference:.1f}; {again}"


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_python_runs(page: Path, tmp_path: Path) -> None:
    """And draws the pictures that are beside the page."""
    run(page, tmp_path)
    for picture in pictures(page):
        check_picture(tmp_path / picture.name, picture)


def test_every_picture_is_shown_and_small() -> None:
    shown = {picture for page in pages() for picture in pictures(page)}
    made_elsewhere = {*DOCS.glob(f"{SCREENSHOTS}*.png")}
    there = {path for path in DOCS.rglob("*.png") if "_build" not in path.parts} - made_elsewhere
    assert shown == there
    assert all(path.stat().st_size < 60_000 for path in there)


def test_a_picture_that_differs_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    monkeypatch.delenv(UPDATE, raising=False)
    made, committed = tmp_path / "made.png", tmp_path / "docs.png"
    image = np.full((40, 60, 3), 255, np.uint8)
    image[10:30, 20:40] = 0
    cv2.imwrite(str(made), image)
    with pytest.raises(AssertionError, match=f"is not there; to take the new one: {UPDATE}=1"):
        check_picture(made, committed)
    cv2.imwrite(str(committed), image[:, :50])
    with pytest.raises(AssertionError, match="another size"):
        check_picture(made, committed)
    cv2.imwrite(str(committed), np.roll(image, 6, axis=1))
    with pytest.raises(AssertionError, match="differs by"):
        check_picture(made, committed)
    monkeypatch.setenv(UPDATE, "1")
    check_picture(made, committed)
    monkeypatch.delenv(UPDATE)
    image[0, ::2] = 200  # a font is not the same everywhere
    cv2.imwrite(str(made), image)
    check_picture(made, committed)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_no_python_is_hidden(page: Path) -> None:
    fences = re.findall(r"^\s*[`~]{3,} *\{?(?:code-block\}? *)?py", page.read_text(), re.MULTILINE)
    assert len(fences) == sum(block.language == "python" for block in blocks(page))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", "page.md:5\n\nassert x == 2"),
        ("```python\nprint(1)\n```\n\n```output\n2\n```\n", "page.md:5 is not printed"),
    ],
)
def test_a_failing_block_is_shown(
    text: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises((pytest.fail.Exception, AssertionError), match=re.escape(shown)):
        run(page, tmp_path)


def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as GitHub and MyST make them."""
    listed = list(tokens(page))
    headings = [b.content for a, b in itertools.pairwise(listed) if a.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_internal_links(page: Path) -> None:
    links = {
        str(token.attrs.get("href") or token.attrs.get("src"))
        for token in tokens(page)
        if token.type in ("link_open", "image")
    }
    for link in links:
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{name_of(page)} links to {link}"
        if anchor:
            assert anchor in anchors(path), f"{name_of(page)} links to {link}"


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_toctree_targets(page: Path) -> None:
    for block in blocks(page):
        if block.language == "{toctree}":
            entries = [line.strip() for line in block.text.splitlines()]
            for entry in filter(lambda line: line and not line.startswith(":"), entries):
                assert (page.parent / f"{entry}.md").exists(), f"{name_of(page)}: {entry}"


def test_every_page_is_in_a_toctree() -> None:
    listed = {
        (page.parent / f"{line.strip()}.md").resolve()
        for page in pages()
        for block in blocks(page)
        if block.language == "{toctree}"
        for line in block.text.splitlines()
    }
    assert {page for page in pages() if DOCS in page.parents} - listed == {DOCS / "index.md"}


def test_the_api_page_has_every_public_name() -> None:
    documented = re.findall(
        r"^\.\. auto\w+:: imgstore_zarr\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE
    )
    assert sorted(documented) == sorted(imgstore_zarr.__all__)


def test_the_errors_page_has_every_error() -> None:
    """In the order of the tree, each with a message that is made there, its cause and its cure."""
    leaves = [error.__name__ for error in imgstore_zarr.ImgStoreError.__subclasses__()]
    text = (DOCS / "errors.md").read_text()
    sections = dict(re.findall(r"^## (\w+Error)$(.+?)(?=^## )", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == sorted(sections, key=leaves.index)
    assert set(sections) == set(leaves)
    for name, section in sections.items():
        assert "```python" in section
        assert "```output" in section
        assert f"imgstore_zarr.{name} as" in section or f"\n{name}: " in section
        assert "**Usual cause.** " in section
        assert "**Cure.** " in section
        builtins = [base.__name__ for base in getattr(imgstore_zarr, name).__bases__[1:]]
        assert f"| [{name}](#{name.lower()}) | {', '.join(builtins)} |" in text


def test_the_formats_page_has_every_format() -> None:
    known = {
        name
        for line in (DOCS / "formats.md").read_text().splitlines()
        if line.startswith("|")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }
    assert known == set(imgstore_zarr.get_supported_formats())


def checksums(document: dict[str, Any], own: dict[str, Any]) -> dict[str, str]:
    """As the page says."""
    attributes = document["attributes"]
    parts = {
        "recording": [own, attributes["coordinates"]],
        "arrays": document["consolidated_metadata"],
        "user_metadata": attributes["user_metadata"],
    }
    texts = {k: json.dumps(v, sort_keys=True, separators=(",", ":")) for k, v in parts.items()}
    return {k: f"{google_crc32c.value(text.encode()):08x}" for k, text in texts.items()}


def test_the_example_of_the_format_specification(tmp_path: Path) -> None:
    example = next(
        json.loads(block.text)
        for block in blocks(DOCS / "format.md")
        if block.language == "json" and "consolidated_metadata" in block.text
    )
    with imgstore_zarr.create(
        tmp_path / "bees.zarr",
        "zstd/zarr",
        (48, 64),
        np.uint16,
        chunksize=4,
        metadata={"subject": "hive 7"},
    ) as writer:
        for i in range(6):
            writer.add_image(np.zeros((48, 64), np.uint16), 1000 + i, 1.7e9 + i / 25)
            writer.add_extra_data(humidity=40.5, **({"lamp": "on"} if i else {}))
    written = json.loads((tmp_path / "bees.zarr/zarr.json").read_text())
    ours, theirs = (d["attributes"]["imgstore_zarr"] for d in (written, example))
    for own, document in ((ours, written), (theirs, example)):
        assert own.pop("checksums") == checksums(document, own)
    for name in ("uuid", "created_utc", "timezone_local", "writer"):
        assert type(theirs.pop(name)) is type(ours.pop(name))
    assert example == written
    assert list(example["consolidated_metadata"]["metadata"]) == list(
        written["consolidated_metadata"]["metadata"]
    )


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="Sphinx is not installed")
def test_the_documentation_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-E"]
    built = subprocess.run(
        [*command, "-d", tmp_path / "doctrees", DOCS, tmp_path / "html"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "html/api.html").exists()

"""Which module may know which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "imgstore_zarr"
COMPAT = ROOT / "compat" / "imgstore_compat"
MODULES = sorted(STORE.rglob("*.py"))

LONGEST = 500

# A package is one floor; it has no floors within.
FLOORS = {
    "_version": 0,
    "errors": 1,
    "cached": 1,
    "cores": 1,
    "interruption": 1,
    "bells": 1,
    "bounded_cache": 1,
    "image_integrity": 1,
    "recording": 1,
    "index": 1,
    "pixels": 1,
    "storage": 2,
    "frames": 2,
    "extra": 2,
    "shared_sources": 2,
    "layouts": 2,
    "lock": 2,
    "sqlite_index": 2,
    "video": 2,
    "native": 3,
    "dataarray": 3,
    "datatree": 3,
    "sampled": 3,
    "lookup": 3,
    "clock": 2,
    "matching": 2,
    "corrected_extra": 2,
    "joining": 3,
    "backend_array": 3,
    "unsorted_index": 3,
    "aligned_array": 3,
    "report": 3,
    "report_figure": 3,
    "report_table": 3,
    "timeline": 2,
    "thumbnails": 3,
    "described": 3,
    "virtual_zarr": 3,
    "analysed": 3,
    "store": 4,
    "writer": 4,
    "formats": 4,
    "imgstore_names": 4,
    "plain_video": 4,
    "xarray_engine": 5,
    "capture": 5,
    "cataloguing": 5,
    "installation": 5,
    "alignment": 5,
    "conversion": 5,
    "conversion_claim": 5,
    "conversion_damage": 5,
    "conversion_samples": 5,
    "conversion_job": 5,
    "conversion_source": 5,
    "comparison": 5,
    "repair": 5,
    "verification": 5,
    "public": 5,
    "": 5,  # imgstore_zarr itself, which hands out the names of the floors below
    "cli": 6,
    "__main__": 6,
    "serving": 6,
    "testing": 6,
    "viewer": 6,
}


def unit(module: str) -> str:
    """The entry of the table for a dotted name, whose first part is imgstore_zarr."""
    return [*module.split("."), ""][1]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, at whatever depth."""
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inner = ROOT.joinpath(*source.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                yield node.lineno, f"{source}.{alias.name}" if is_module else source


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_import_only_from_below(path: Path) -> None:
    floor = FLOORS[unit(name_of(path))]
    upward = [
        f"line {line}: {module}"
        for line, module in imported(path)
        if module.split(".")[0] == "imgstore_zarr" and FLOORS[unit(module)] > floor
    ]
    assert upward == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_store_knows_nothing_of_compat(path: Path) -> None:
    assert [m for _, m in imported(path) if m.split(".")[0] == "imgstore_compat"] == []
    strings = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant))
    assert not any(
        isinstance(s.value, str) and s.value.startswith("imgstore_compat") for s in strings
    )


@pytest.mark.parametrize("path", [*MODULES, *sorted(COMPAT.rglob("*.py"))], ids=name_of)
def test_no_module_is_long(path: Path) -> None:
    with path.open(encoding="utf-8") as lines:
        assert sum(1 for _ in lines) <= LONGEST


@pytest.mark.parametrize("path", [*MODULES, *sorted(COMPAT.rglob("*.py"))], ids=name_of)
def test_no_property_holds_a_lock_that_a_fork_inherits(path: Path) -> None:
    if path.name != "cached.py":
        assert "functools.cached_property" not in {
            f"{node.module}.{name.name}"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
            for name in node.names
        }


def test_the_reader_of_imports_sees_them_all() -> None:
    path = STORE / "native" / "reader.py"
    found = {module for _, module in imported(path)}
    assert {"numpy", "math", "imgstore_zarr.errors", "imgstore_zarr.storage"} <= found
    # Those inside of functions too.
    assert "imgstore_zarr.backend_array" in {m for _, m in imported(STORE / "dataarray.py")}
    assert unit("imgstore_zarr.native.reader") == "native"
    assert unit("imgstore_zarr") == ""

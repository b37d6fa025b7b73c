"""catalogue and ls: recordings are found wherever they lie, and nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr

import imgstore_zarr
from imgstore_zarr import RecordingAccessError, RecordingNotFoundError, catalogue
from tests import servers

SHAPE = (16, 24)


def record(path: Path, format: str, count: int, **options: Any) -> Path:
    rng = np.random.default_rng(count)
    with imgstore_zarr.create(path, format, SHAPE, chunksize=4, **options) as writer:
        for i in range(count):
            writer.add_image(rng.integers(0, 256, SHAPE, np.uint8), 10 + i, 1e9 + i / 5)
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of each layout; and folders that only look like one."""
    root = tmp_path_factory.mktemp("tree")
    record(root / "rig1" / "bees.zarr", "zstd/zarr", 9)
    record(root / "rig1" / "deep" / "er" / "ants", "avc1/mp4", 10)
    record(root / "rig2" / "flies", "png/dir", 5)
    record(root / "rig2" / "empty", "raw/zarr", 0)
    broken = record(root / "rig2" / "broken", "raw/zarr", 3)
    (broken / "zarr.json").write_text("{")
    # A group and an array of somebody else; a recording lies in the group.
    group = zarr.open_group(root / "others.zarr", mode="w")
    group.create_array("numbers", shape=(3,), dtype="i4")
    record(root / "others.zarr" / "inside", "raw/zarr", 2)
    (root / "notes").mkdir()
    (root / "notes" / "zarr.txt").write_text("nothing")
    return root


FACTS = {
    "others.zarr/inside": ("zarr", 2, 0.2),
    "rig1/bees.zarr": ("zarr", 9, 1.6),
    "rig1/deep/er/ants": ("video", 10, 1.8),
    "rig2/empty": ("zarr", 0, 0.0),
    "rig2/flies": ("directory", 5, 0.8),
}


def check(table: pd.DataFrame) -> pd.DataFrame:
    """Compare with what was recorded; return the table by names."""
    assert [*table["name"]] == sorted([*FACTS, "rig2/broken"])
    named = table.set_index("name")
    for name, (layout, count, duration) in FACTS.items():
        row = named.loc[name]
        assert (row["layout"], row["frame_count"]) == (layout, count)
        assert row["duration"] == pytest.approx(duration, abs=1e-6)
        assert row["problem"] == ""
    broken: Any = named.loc["rig2/broken"]
    assert "zarr.json" in broken["problem"]
    assert pd.isna(broken["frame_count"])
    return named


def sizes(root: Path) -> dict[str, int]:
    return {
        name: sum(p.stat().st_size for p in (root / name).rglob("*") if p.is_file())
        for name in [*FACTS, "rig2/broken"]
    }


def test_a_directory(tree: Path) -> None:
    found = check(catalogue(tree))
    assert found["size"].to_dict() == sizes(tree)
    assert found.loc["rig1/bees.zarr", "location"] == str(tree / "rig1" / "bees.zarr")
    with imgstore_zarr.open(tree / "rig1" / "bees.zarr") as store:
        assert found.loc["rig1/bees.zarr", "created"] == pd.Timestamp(store.created[0])


def test_a_recording_is_found_where_one_points_to_it(tree: Path) -> None:
    table = catalogue(tree / "rig1" / "bees.zarr")
    assert [*table["name"]] == ["bees.zarr"]
    assert [*table["frame_count"]] == [9]


def test_nothing_there(tmp_path: Path) -> None:
    table = catalogue(tmp_path)
    assert len(table) == 0
    assert [*table.columns] == [
        "name",
        "layout",
        "format",
        "frame_count",
        "duration",
        "created",
        "size",
        "location",
        "problem",
    ]
    with pytest.raises(RecordingNotFoundError, match="no directory"):
        catalogue(tmp_path / "nowhere")


def test_links(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree / "rig1")
    (tmp_path / "again").symlink_to(tmp_path)
    assert {*catalogue(tmp_path)["name"]} == {"link/bees.zarr", "link/deep/er/ants"}


def test_no_media_is_opened(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = os.open

    def watched(path: Any, *arguments: Any, **options: Any) -> int:
        opened.append(str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", watched)
    catalogue(tree / "rig1")
    assert not [path for path in opened if path.endswith(".mp4") or "/image/c/" in path]


def test_a_bucket_is_listed_once(tree: Path) -> None:
    place = servers.s3()
    place.fill(tree)
    proxy = servers.proxy_of(place.server)
    proxy.forget()
    there = place.at(proxy.url)
    found = check(catalogue(there.url, storage_options=there.options))
    requests = proxy.requests()
    proxy.forget()
    assert found["size"].to_dict() == sizes(tree)
    listings = [request for request in requests if "list-type" in request.query]
    # One of everything, and one each of the two recordings that have no list of their chunks.
    assert len([one for one in listings if "delimiter" not in one.query]) == 1
    assert not [one for one in requests if one.key.endswith(".mp4") or "/image/c/" in one.key]


def test_a_bucket_by_its_folder(tree: Path) -> None:
    place = servers.s3().below("some/folder")
    place.fill(tree)
    check(catalogue(place.url, storage_options=place.options))
    table = catalogue(f"{place.url}/rig1", storage_options=place.options)
    assert [*table["name"]] == ["bees.zarr", "deep/er/ants"]


def test_a_zarr_store(tree: Path) -> None:
    store = zarr.storage.MemoryStore()
    for file in tree.rglob("*"):
        if file.is_file() and "ants" not in file.parts:
            data = zarr.core.buffer.cpu.Buffer.from_bytes(file.read_bytes())
            zarr.core.sync.sync(store.set(file.relative_to(tree).as_posix(), data))
    table = catalogue(store)
    assert {*table["name"]} == {*FACTS, "rig2/broken"} - {"rig1/deep/er/ants"}
    assert table["size"].isna().all()


def test_a_web_server(tree: Path) -> None:
    place = servers.web(tree)
    found = check(catalogue(place.url))
    assert found["size"].isna().all()
    hidden = servers.web(tree, listings=False)
    with pytest.raises(RecordingAccessError, match="listing"):
        catalogue(hidden.url)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imgstore_zarr", "ls", *arguments]
    wide = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env=wide
    )


def test_the_command(tree: Path) -> None:
    done = run(str(tree), "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {name: row["frame_count"] for name, row in rows.items()} == {
        **{name: count for name, (_, count, _) in FACTS.items()},
        "rig2/broken": None,
    }
    assert rows["rig1/bees.zarr"]["created"].startswith("20")
    done = run(str(tree))
    assert done.returncode == 0
    assert "rig1/deep/er/ants" in done.stdout
    assert "avc1/mp4" in done.stdout
    done = run(str(tree / "nowhere"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "nowhere is no directory" in done.stderr


def test_the_command_with_a_bucket(tree: Path) -> None:
    place = servers.s3()
    place.fill(tree / "rig1" / "bees.zarr")
    words = [f"--storage-option={name}={value}" for name, value in place.options.items()]
    done = run(place.url, "--json", *words)
    assert [row["frame_count"] for row in json.loads(done.stdout)] == [9]
    done = run(place.url, "--storage-option", "endpoint")
    assert "NAME=VALUE" in done.stderr

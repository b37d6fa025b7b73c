"""The command line, run as its users run it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
import zarr

import imgstore_zarr
from imgstore_zarr.cli.scene import DROPPED, FIRST_NUMBER, RATE, moments

Finished = subprocess.CompletedProcess[str]


def run(command: Sequence[str], cwd: Path | None = None) -> Finished:
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "FORCE_COLOR")}
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment | {"PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )


def cli(*arguments: object, cwd: Path | None = None) -> Finished:
    return run([sys.executable, "-m", "imgstore_zarr", *map(str, arguments)], cwd)


def one_line_error(finished: Finished) -> str:
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1
    return finished.stderr


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """35 frames at 25 Hz, 5 lost after number 27, made in Tokyo."""
    path = tmp_path_factory.mktemp("cli") / "recording"
    metadata = {"animal": "[red]ü[/red]", "rig": {"lamp": 3}}
    with imgstore_zarr.create(
        path, "raw/zarr", (32, 48), chunksize=10, metadata=metadata
    ) as writer:
        for i in range(35):
            lost = 5 * (i > 20)
            time = 1_700_000_000 + (i + lost) / 25
            writer.add_image(np.full((32, 48), i, np.uint8), 7 + i + lost, time)
        writer.add_extra_data(temperature=21.5)
    group = path / "zarr.json"
    document = json.loads(group.read_text())
    del document["attributes"]["imgstore_zarr"]["checksums"]  # as who edits it should do
    document["attributes"]["imgstore_zarr"] |= {
        "timezone_local": "Asia/Tokyo",
        "created_utc": "2024-03-01T12:00:00+00:00",
    }
    group.write_text(json.dumps(document))
    return path


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_installed_script_helps_and_has_a_version() -> None:
    script = str(Path(sys.executable).with_name("imgstore-zarr"))
    helped = run([script, "--help"])
    assert helped.returncode == 0
    assert "info" in helped.stdout
    assert "demo" in helped.stdout
    version = run([script, "--version"])
    assert version.stdout == f"imgstore-zarr {imgstore_zarr.__version__}\n"


def test_commands_explain_themselves() -> None:
    assert "--json" in cli("info", "--help").stdout
    demo = cli("demo", "--help").stdout
    assert "--frames" in demo
    assert "--size" in demo


def test_help_imports_only_what_it_needs() -> None:
    finished = run([sys.executable, "-X", "importtime", "-m", "imgstore_zarr", "--help"])
    assert finished.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in finished.stderr.splitlines()}
    assert "typer" in imported
    heavy = {"xarray", "cv2", "dask", "pandas", "matplotlib", "zarr", "av", "h5py", "numcodecs"}
    assert imported.isdisjoint(heavy)


def test_unknown_command_is_a_usage_error() -> None:
    finished = cli("inform")
    assert finished.returncode == 2
    assert "inform" in finished.stderr


def test_info_table(recording: Path) -> None:
    finished = cli("info", recording)
    assert finished.returncode == 0
    assert finished.stderr == ""
    for text in (
        str(recording),
        "raw/zarr (zarr layout, lossless)",
        "32 x 48 uint8",
        "7 .. 46",
        "2023-11-15 07:13:20.000 JST",
        "1.560 s",
        "25.00 frames/s",
        "4 of up to 10 frames",
        "of 52.5 KiB uncompressed",
        "2024-03-01 21:00:00 JST (Asia/Tokyo)",
        "animal: [red]ü[/red]",
        'rig: {"lamp": 3}',
        "5 frames missing after number 27 (0.240 s)",
    ):
        assert text in finished.stdout
    assert finished.stdout.splitlines()[-2].split() == ["│", "problems", "│", "none", "│"]


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")


def load(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return document


def test_info_json(recording: Path) -> None:
    document = load(cli("info", recording / "zarr.json", "--json").stdout)
    expected = {
        "filename": str(recording),
        "layout": "zarr",
        "format": "raw/zarr",
        "encoding": None,
        "lossless": True,
        "created_local": "2024-03-01T21:00:00+09:00",
        "timezone_local": "Asia/Tokyo",
        "frame_count": 35,
        "image_shape": [32, 48],
        "dtype": "uint8",
        "frame_min": 7,
        "frame_max": 46,
        "frame_time_min": 1.7e9,
        "chunks": [0, 1, 2, 3],
        "size_on_disk": size_of(recording),
        "extra_data": [str(recording / "extra")],
        "user_metadata": {"animal": "[red]ü[/red]", "rig": {"lamp": 3}},
    }
    assert {key: document[key] for key in expected} == expected
    assert [(gap["after"], gap["missing"]) for gap in document["report"]["gaps"]] == [(27, 5)]
    assert document["report"]["ok"] is True


def test_info_json_of_an_empty_recording_has_no_nan(tmp_path: Path) -> None:
    imgstore_zarr.create(tmp_path / "empty", "raw/zarr", (4, 4)).close()
    document = load(cli("info", "empty", "--json", cwd=tmp_path).stdout)
    assert document["frame_count"] == 0
    assert document["frame_min"] is None
    assert document["report"]["interval"] is None
    assert cli("info", "empty", cwd=tmp_path).returncode == 0


def test_info_marks_a_date_that_is_that_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "old"
    with imgstore_zarr.create(path, "npy/dir", (4, 4)) as writer:
        writer.add_image(np.zeros((4, 4), np.uint8), 0, 0.0)
        writer.add_image(np.zeros((4, 4), np.uint8), 2, 0.5)
        writer.add_image(np.zeros((4, 4), np.uint8), 2, 0.5)
    mark = "when metadata.yaml was last changed"
    finished = cli("info", path)
    assert mark not in finished.stdout
    assert "1 frame missing after number 0" in finished.stdout
    assert "1 frame number repeated" in finished.stdout
    assert load(cli("info", path, "--json").stdout)["created_known"] is True
    file = path / "metadata.yaml"
    kept = [line for line in file.read_text().splitlines() if "created_utc" not in line]
    file.write_text("\n".join(kept))
    os.utime(file, (1.7e9, 1.7e9 + 0.25))
    assert mark in cli("info", path).stdout
    document = load(cli("info", path, "--json").stdout)
    assert document["created_known"] is False
    assert document["created_utc"] == "2023-11-14T22:13:20.250000+00:00"
    # The name of the directory can be the date.
    dated = path.rename(tmp_path / "mouse.20240229_101112")
    assert mark not in cli("info", dated).stdout


def test_info_lists_problems(recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    with imgstore_zarr.create(path, "avc1/mp4", (32, 48), chunksize=5, fps=25) as writer:
        for i in range(10):
            writer.add_image(np.full((32, 48), i, np.uint8), i, i / 25)
    (path / "000001.mp4").unlink()
    finished = cli("info", path)
    assert finished.returncode == 0
    assert "chunk 1 has an index of 5 frames, but no video" in " ".join(
        line.strip("│ ") for line in finished.stdout.splitlines()
    )
    # Once, though opening logs it.
    assert finished.stderr == ""
    assert cli("info", path, "--json").stderr == ""
    assert load(cli("info", path, "--json").stdout)["report"]["ok"] is False


def test_errors_are_one_line(recording: Path, tmp_path: Path) -> None:
    assert "nowhere does not exist" in one_line_error(cli("info", tmp_path / "nowhere"))
    assert "is no recording" in one_line_error(cli("info", tmp_path))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    whole = (recording / "zarr.json").read_bytes()
    (damaged / "zarr.json").write_bytes(whole[: len(whole) // 2])
    assert str(damaged) in one_line_error(cli("info", damaged))


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    finished = cli("--debug", "info", tmp_path / "nowhere")
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr
    assert "RecordingNotFoundError" in finished.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    directory = tmp_path_factory.mktemp("demo") / "a demo"
    finished = cli("demo", directory, "--frames", 40, "--size", 96)
    assert finished.returncode == 0, finished.stderr
    return directory, finished


def test_demo_records_the_same_scene_twice(demo: tuple[Path, Finished]) -> None:
    directory, _ = demo
    group = zarr.open_group(directory / "zstd-zarr", mode="r")
    arrays = {name: np.asarray(group[name]) for name in ("image", "frame_number", "frame_time")}
    scene = list(moments(40, (96, 128), animals=5, seed=7))
    np.testing.assert_array_equal(arrays["image"], [moment.image for moment in scene])
    np.testing.assert_array_equal(arrays["frame_number"], [moment.frame_number for moment in scene])
    steps = np.diff(arrays["frame_time"])
    assert np.flatnonzero(steps > 1.4).tolist() == [25]

    video = cv2.VideoCapture(str(directory / "motif-mp4" / "000000.mp4"))
    decoded = list(itertools.takewhile(lambda got: got[0], iter(video.read, None)))
    video.release()
    assert len(decoded) == 40
    difference = np.abs(decoded[30][1][..., 0].astype(int) - scene[30].image)
    assert difference.mean() < 6

    for name in ("motif-mp4", "zstd-zarr"):
        with imgstore_zarr.open(directory / name) as store:
            np.testing.assert_array_equal(store.index.frame_number, arrays["frame_number"])
            np.testing.assert_array_equal(store.index.frame_time, arrays["frame_time"])
            assert store.user_metadata["experiment"] == "imgstore-zarr demo"
            extra = store.get_extra_data()
            assert extra is not None
            expected = [round(moment.temperature, 3) for moment in scene[::5]]
            np.testing.assert_allclose(extra["temperature"], expected)


def test_demo_compares_and_says_what_next(demo: tuple[Path, Finished]) -> None:
    directory, finished = demo
    rows = {
        cells[0]: cells[1:]
        for line in finished.stdout.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("│┃").split("│")]) == 3
    }
    assert rows["format"] == ["avc1/mp4", "zstd/zarr"]
    assert rows["frames"] == ["40", "40"]
    assert rows["pixels"] == ["lossy", "exact"]
    assert all(text.startswith(f"{DROPPED} frames dropped, 1.5") for text in rows["gaps"])
    ratio = size_of(directory / "zstd-zarr") / (40 * 96 * 128)
    assert rows["of the raw size"][1].startswith(f"{ratio:.1%} of ")
    assert "motif-mp4" in finished.stdout
    assert str(directory / "demo.png") in finished.stdout

    after = finished.stdout.partition("Next")[2].splitlines()
    typed = [line.strip() for line in after if line.startswith("    ")]
    assert typed[0] == f"imgstore-zarr info '{directory / 'zstd-zarr'}'"
    snippet = run([sys.executable, "-c", "\n".join(typed[1:])])
    assert snippet.returncode == 0, snippet.stderr
    assert "xarray.DataArray" in snippet.stdout


def test_demo_leaves_a_figure(demo: tuple[Path, Finished]) -> None:
    figure = cv2.imread(str(demo[0] / "demo.png"))
    assert figure is not None
    height, width = figure.shape[:2]
    assert width > height > 600
    # The strip of frames is gray and dark, the curves are coloured, the paper is white.
    saturation = figure.max(axis=2).astype(int) - figure.min(axis=2)
    strip, curves = figure[: int(height * 0.36)], saturation[int(height * 0.42) :]
    assert np.mean((strip > 40) & (strip < 200)) > 0.2
    assert np.count_nonzero(curves > 60) > 1000
    assert np.median(figure) == 255


def test_demo_overwrites_nothing(demo: tuple[Path, Finished]) -> None:
    directory, _ = demo
    before = {file: file.stat().st_mtime_ns for file in directory.rglob("*")}
    error = one_line_error(cli("demo", directory, "--frames", 40, "--size", 96))
    assert str(directory / "motif-mp4") in error
    assert {file: file.stat().st_mtime_ns for file in directory.rglob("*")} == before


@pytest.mark.parametrize("package", ["matplotlib", "dask"])
def test_demo_names_what_is_not_installed(package: str, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None; from imgstore_zarr.cli import main; "
        "sys.argv = ['imgstore-zarr', 'demo', 'here']; main()"
    )
    error = one_line_error(run([sys.executable, "-c", code], tmp_path))
    assert f"needs {package}: pip install 'imgstore-zarr[dask,plot]'" in error
    assert list(tmp_path.iterdir()) == []


def test_motion_energy_is_that_of_numpy(tmp_path: Path) -> None:
    from rich.progress import Progress

    from imgstore_zarr.cli.demo import motion_energy

    images = np.random.default_rng(3).integers(0, 256, (230, 6, 8), dtype=np.uint8)
    with imgstore_zarr.create(tmp_path / "noise", "raw/zarr", (6, 8), chunksize=100) as writer:
        for i, image in enumerate(images):
            writer.add_image(image, 10 + i, i / 25)
    energy = motion_energy(tmp_path / "noise", Progress(disable=True))
    expected = np.abs(np.diff(images.astype(float), axis=0)).mean(axis=(1, 2))
    np.testing.assert_allclose(energy, expected)
    np.testing.assert_array_equal(energy["frame_number"], np.arange(11, 240))


def test_scene_is_determined_by_its_seed_and_moves() -> None:
    first, again, other = (
        list(moments(60, (96, 128), start=100.0, seed=seed)) for seed in (1, 1, 2)
    )
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        assert (one.frame_time, one.temperature) == (two.frame_time, two.temperature)
    assert any((one.image != two.image).any() for one, two in zip(first, other, strict=True))

    numbers = np.array([moment.frame_number for moment in first])
    assert numbers[0] == FIRST_NUMBER
    assert sorted(set(np.diff(numbers))) == [1, DROPPED + 1]
    times = np.array([moment.frame_time for moment in first])
    np.testing.assert_allclose(times, 100 + (numbers - FIRST_NUMBER) / RATE, atol=5e-3)
    assert all(m.image.shape == (96, 128) and m.image.dtype == np.uint8 for m in first)

    # Where an animal was and is no more, the change is far above the noise of the sensor.
    change = np.abs(first[-1].image.astype(int) - first[0].image)
    assert np.mean(change > 30) > 0.01


# verify and repair


@pytest.fixture
def flies(tmp_path: Path) -> Path:
    path = tmp_path / "flies.zarr"
    with imgstore_zarr.create(path, "zstd/zarr", (32, 48), chunksize=10) as writer:
        for i in range(35):
            writer.add_image(np.full((32, 48), i, np.uint8), i, i / 25)
    return path


def test_verify_a_sound_recording(flies: Path) -> None:
    for options in ((), ("--quick",)):
        done = cli("verify", flies, *options)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{flies}: zstd/zarr (zarr layout)\n  35 frames in 4 chunks")
        assert done.stdout.endswith("\nsound\n")
    document = load(cli("verify", flies / "zarr.json", "--json").stdout)
    assert (document["ok"], document["problems"], document["frame_count"]) == (True, [], 35)


def test_verify_finds_damage(flies: Path) -> None:
    shard = flies / "image/c/2/0/0"
    data = bytearray(shard.read_bytes())
    data[30] ^= 4
    shard.write_bytes(data)
    done = cli("verify", flies)
    assert (done.returncode, done.stderr) == (1, "")
    assert f"problem: {flies}: the frame at position 20 in chunk 2 (image/c/2/0/0)" in done.stdout
    assert done.stdout.endswith("\n1 problem\n")
    done = cli("verify", flies, "--json")
    assert done.returncode == 1
    assert [p["kind"] for p in load(done.stdout)["problems"]] == ["frames-damaged"]
    assert cli("verify", flies, "--quick").returncode == 0


def test_verify_what_cannot_be_checked(flies: Path, tmp_path: Path) -> None:
    done = cli("verify", tmp_path / "nothing")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'nothing'} does not exist\n"
    (flies / "zarr.json").write_text("{")
    done = cli("verify", flies, "--json")
    assert done.returncode == 1
    assert [p["kind"] for p in load(done.stdout)["problems"]] == ["recording-damaged"]
    assert "Traceback" in cli("--debug", "verify", tmp_path / "nothing").stderr


def test_repair(flies: Path, tmp_path: Path) -> None:
    assert cli("repair", flies).stdout.endswith("\nwhole\n")
    script = (
        "import os, sys, numpy as np, imgstore_zarr\n"
        "writer = imgstore_zarr.create(sys.argv[1], 'raw/zarr', (4, 6), chunksize=8)\n"
        "for i in range(13):\n"
        "    writer.add_image(np.full((4, 6), i, np.uint8), i, i / 25)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = tmp_path / "killed"
    subprocess.run([sys.executable, "-c", script, str(killed)], check=False)
    assert cli("verify", killed).returncode == 1
    done = cli("repair", killed, "--json")
    assert done.returncode == 0
    assert (load(done.stdout)["ok"], load(done.stdout)["frame_count"]) == (True, 13)
    assert cli("verify", killed).returncode == 0
    (killed / "image/c/0/0/0").unlink()
    assert cli("repair", killed).returncode == 1
    with imgstore_zarr.create(tmp_path / "open", "raw/zarr", (4, 6)):
        done = cli("repair", tmp_path / "open")
    assert done.returncode == 2
    assert "is being written to by process" in done.stderr

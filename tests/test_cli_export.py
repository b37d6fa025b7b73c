"""report, export and timecodes, run as their users run them."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

import imgstore_zarr
from tests import ffmpeg, servers
from tests.ffmpeg import needs_ffmpeg
from tests.test_cli import cli, load, one_line_error, run
from tests.videos import read_barcode, scene

START, RATE, COUNT, CHUNK = 1_700_000_000.0, 25, 75, 30
SCENE = scene(COUNT)


def time_of(position: int) -> float:
    return START + (position + 10 * (position >= 40)) / RATE


def record(path: Path, format: str, images: Any = SCENE, **options: Any) -> Path:
    """Ten frames are lost before position 40; every fifth frame has a record."""
    metadata = {"chunksize": CHUNK, **options}
    with imgstore_zarr.create(path, format, images.shape[1:], images.dtype, **metadata) as writer:
        for i, image in enumerate(images):
            writer.add_image(image, 100 + i + 10 * (i >= 40), time_of(i))
            if i % 5 == 0:
                writer.add_extra_data(temperature=20 + i / 10, tags=["a", str(i)])
    return path


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("export") / "native", "zstd/zarr")


@pytest.fixture(scope="module")
def motif(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("export") / "motif", "avc1/mp4", fps=RATE, gop=10)


def exported(*arguments: object, cwd: Path | None = None) -> dict[str, Any]:
    finished = cli("export", *arguments, "--json", cwd=cwd)
    assert (finished.returncode, finished.stderr) == (0, "")
    return load(finished.stdout)


# Images.


def test_images_in_a_folder(native: Path, tmp_path: Path) -> None:
    finished = cli("export", native, "pictures", "--frames", "8:12", cwd=tmp_path)
    assert (finished.returncode, finished.stdout) == (0, "pictures: 4 images\n")
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == [f"{i:06d}.png" for i in range(8, 12)]
    for i in range(8, 12):
        image = cv2.imread(str(tmp_path / f"pictures/{i:06d}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image, SCENE[i])


@pytest.mark.parametrize(
    ("kind", "dtype", "shape"),
    [
        ("png", "uint16", (20, 24)),
        ("png", "uint8", (20, 24, 3)),
        ("tif", "uint16", (20, 24, 3)),
        ("tif", "int16", (20, 24)),
        ("tif", "float32", (20, 24)),
        ("tif", "float64", (20, 24)),
        ("tif", ">u2", (20, 24)),
    ],
)
def test_images_of_every_kind(
    kind: str, dtype: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    images = (rng.random((3, *shape)) * 30000).astype(dtype)
    record(tmp_path / "r", "raw/zarr", images)
    document = exported("r", "mouse.2024", "--to", kind, cwd=tmp_path)
    assert document == {
        "destination": "mouse.2024",
        "kind": "images",
        "count": 3,
        "how": None,
        "why": None,
        "rate": None,
    }
    for i, expected in enumerate(images):
        path = tmp_path / "mouse.2024" / f"{i:06d}.{kind}"
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert image is not None
        np.testing.assert_array_equal(image, expected)


def test_one_image_as_a_file(native: Path, tmp_path: Path) -> None:
    assert exported(native, tmp_path / "one.tiff", "--frames", "-1:")["count"] == 1
    image = cv2.imread(str(tmp_path / "one.tiff"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(image, SCENE[-1])
    error = one_line_error(cli("export", native, tmp_path / "two.png", "--frames", "3:5"))
    assert "two.png is the name of one image, and 2 frames are selected" in error


def test_images_that_no_file_holds(tmp_path: Path) -> None:
    images = np.zeros((2, 4, 6), np.float64)
    record(tmp_path / "r", "raw/zarr", images)
    error = one_line_error(cli("export", "r", "images", cwd=tmp_path))
    assert "png files hold gray and colour images of uint8, uint16, not float64 (4, 6)" in error
    error = one_line_error(cli("export", "r", "movie.mp4", cwd=tmp_path))
    assert "mp4 files hold gray and colour images of uint8, not float64 (4, 6)" in error
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_frames_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    record(tmp_path / "r", "raw/zarr")
    shard = tmp_path / "r/image/c/1/0/0"
    data = bytearray(shard.read_bytes())
    data[5 * SCENE[0].nbytes] ^= 4
    shard.write_bytes(data)
    error = one_line_error(cli("export", "r", "images", cwd=tmp_path))
    assert "the frame at position 34 in chunk 1" in error
    whole = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert whole == [f"{i:06d}.png" for i in range(len(whole))]
    assert len(whole) <= 34
    for i, name in enumerate(whole):
        np.testing.assert_array_equal(
            cv2.imread(str(tmp_path / "images" / name), cv2.IMREAD_UNCHANGED), SCENE[i]
        )
    assert "chunk 1" in one_line_error(cli("export", "r", "movie.mp4", cwd=tmp_path))
    assert not list(tmp_path.glob("*movie*"))


# Video.


@needs_ffmpeg
@pytest.mark.parametrize("format", ["avc1/mp4", "h264/mkv"])
def test_a_range_is_copied_where_nothing_needs_encoding(format: str, tmp_path: Path) -> None:
    record(tmp_path / "r", format, fps=RATE, gop=10)
    ending = format.split("/")[1]
    stored = np.concatenate([ffmpeg.decode(tmp_path / f"r/00000{i}.{ending}") for i in range(3)])
    # All of it; three chunks, from the start of a GOP; to the middle of one; a single frame.
    for start, stop in ((0, 75), (20, 70), (10, 25), (60, 61)):
        name = f"{start}.mp4"
        finished = cli("export", "r", name, "--frames", f"{start}:{stop}", cwd=tmp_path)
        frames = "1 frame" if stop - start == 1 else f"{stop - start} frames"
        assert finished.stdout == f"{name}: {frames}, copied as they are encoded\n"
        np.testing.assert_array_equal(ffmpeg.decode(tmp_path / name), stored[start:stop])
        expected = np.arange(stop - start) / RATE
        np.testing.assert_allclose(ffmpeg.times(tmp_path / name), expected, atol=1.1e-3)
        listed = {path.name for path in tmp_path.iterdir()}
        assert not any("part" in name for name in listed)


@needs_ffmpeg
def test_b_frames_are_copied_and_a_cut_through_them_is_not(tmp_path: Path) -> None:
    """The chunk is one that another program encoded."""
    record(tmp_path / "r", "avc1/mp4", SCENE[:CHUNK], fps=RATE)
    made = ffmpeg.Made("b", ".mp4", "-c:v libx264 -pix_fmt yuv420p -bf 3 -b_strategy 0 -g 12")
    chunk = ffmpeg.make(tmp_path / "r/000000.mp4", SCENE[:CHUNK], made)
    stored = ffmpeg.decode(chunk)
    assert exported("r", "all.mp4", cwd=tmp_path)["how"] == "copied"
    np.testing.assert_array_equal(ffmpeg.decode(tmp_path / "all.mp4"), stored)
    np.testing.assert_allclose(
        ffmpeg.times(tmp_path / "all.mp4"), np.arange(CHUNK) / RATE, atol=1e-6
    )
    document = exported("r", "cut.mp4", "--frames", "0:10", cwd=tmp_path)
    assert document["how"] == "encoded"
    assert document["why"] == "position 9 is decoded from a frame that is shown later"
    assert [read_barcode(image[:48]) for image in ffmpeg.decode(tmp_path / "cut.mp4")] == list(
        range(10)
    )


@needs_ffmpeg
def test_a_cut_within_a_gop_is_encoded_anew(motif: Path, tmp_path: Path) -> None:
    document = exported(motif, tmp_path / "cut.mp4", "--frames", "25:45")
    assert (document["how"], document["count"]) == ("encoded", 20)
    assert "position 25 is decoded from position 20 on" in document["why"]
    numbers = [read_barcode(image[:48]) for image in ffmpeg.decode(tmp_path / "cut.mp4")]
    assert numbers == list(range(25, 45))
    assert document["rate"] == pytest.approx(RATE, rel=1e-5)
    np.testing.assert_allclose(ffmpeg.times(tmp_path / "cut.mp4"), np.arange(20) / RATE, atol=1e-3)


@needs_ffmpeg
def test_chunks_that_are_encoded_differently_are_encoded_anew(tmp_path: Path) -> None:
    record(tmp_path / "r", "avc1/mp4", fps=RATE)
    made = ffmpeg.Made("b", ".mp4", "-c:v libx264 -pix_fmt yuv420p -profile:v baseline")
    ffmpeg.make(tmp_path / "r/000001.mp4", SCENE[CHUNK : 2 * CHUNK], made)
    document = exported("r", "all.mp4", cwd=tmp_path)
    assert document["how"] == "encoded"
    assert "chunk 1 (000001.mp4) is encoded differently" in document["why"]
    numbers = [read_barcode(image[:48]) for image in ffmpeg.decode(tmp_path / "all.mp4")]
    assert numbers == list(range(COUNT))


@needs_ffmpeg
def test_what_is_no_video_is_encoded(native: Path, tmp_path: Path) -> None:
    finished = cli("export", native, tmp_path / "a.mp4", "--time", f"{START}:{START + 0.4}")
    text = (
        "10 frames, encoded anew at 25.00 frames/s: the recording is zstd/zarr, which is no video"
    )
    assert finished.stdout == f"{tmp_path / 'a.mp4'}: {text}\n"
    decoded = ffmpeg.decode(tmp_path / "a.mp4")
    assert [read_barcode(image[:48]) for image in decoded] == list(range(10))
    assert np.abs(decoded[..., 0].astype(int) - SCENE[:10]).mean() < 4
    record(tmp_path / "m", "mjpeg/avi")
    assert exported("m", "m.mp4", cwd=tmp_path)["why"].endswith("is a file of the kind avi")
    np.testing.assert_array_equal(
        [read_barcode(image[:48]) for image in ffmpeg.decode(tmp_path / "m.mp4")], range(COUNT)
    )


@needs_ffmpeg
def test_pixels_that_are_decoded_from_an_encoding_are_encoded_anew(tmp_path: Path) -> None:
    record(tmp_path / "r", "avc1/mp4", SCENE[:8], encoding="cv_bayerrg", fps=RATE)
    document = exported("r", "a.mp4", cwd=tmp_path)
    assert document["how"] == "encoded"
    assert "cv_bayerrg" in document["why"]
    with imgstore_zarr.open(tmp_path / "r") as store:
        expected = store.frames[:]
    difference = ffmpeg.decode(tmp_path / "a.mp4").astype(int) - expected
    assert np.abs(difference).mean() < 12


@needs_ffmpeg
def test_recordings_in_a_bucket(motif: Path, tmp_path: Path) -> None:
    place = servers.s3()
    for path in motif.iterdir():
        place.store.put(path.name, path)
    words = [f"--storage-option={name}={value}" for name, value in place.options.items()]
    document = exported(place.url, tmp_path / "a.mp4", "--frames", "40:70", *words)
    assert (document["how"], document["count"]) == ("copied", 30)
    stored = np.concatenate([ffmpeg.decode(motif / f"00000{i}.mp4") for i in range(1, 3)])
    np.testing.assert_array_equal(ffmpeg.decode(tmp_path / "a.mp4"), stored[10:40])
    assert exported(place.url, tmp_path / "a.csv", "--extra", *words)["count"] == 15
    assert cli("timecodes", place.url, *words).stdout == cli("timecodes", motif).stdout
    assert load(cli("report", place.url, "--json", *words).stdout)["dropped"] == 10


def test_a_damaged_chunk_gives_no_video(motif: Path, tmp_path: Path) -> None:
    record(tmp_path / "r", "avc1/mp4", fps=RATE)
    (tmp_path / "r/000001.mp4").unlink()
    finished = cli("export", "r", "a.mp4", cwd=tmp_path)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert "chunk 1 (000001.mp4) is missing" in finished.stderr
    assert not list(tmp_path.glob("*.mp4"))


# Tables.


def test_times_as_csv(native: Path, tmp_path: Path) -> None:
    document = exported(native, tmp_path / "deep/times.csv")
    assert (document["kind"], document["count"]) == ("table", COUNT)
    table = pd.read_csv(tmp_path / "deep/times.csv", dtype={"frame_time": str})
    assert list(table) == ["frame_index", "frame_number", "frame_time", "local_time"]
    assert table.frame_index.tolist() == list(range(COUNT))
    assert table.frame_number.tolist() == [*range(100, 140), *range(150, 185)]
    assert list(map(float, table.frame_time)) == [time_of(i) for i in range(COUNT)]
    moments = [dt.datetime.fromisoformat(text) for text in table.local_time]
    assert [round(m.timestamp() - START, 6) for m in moments] == [
        round(time_of(i) - START, 6) for i in range(COUNT)
    ]
    part = exported(native, tmp_path / "part.csv", "--frames", "70:", "--time", ":1700000003.3")
    assert part["count"] == len(pd.read_csv(tmp_path / "part.csv")) == 3


def test_local_times_are_those_of_the_recording(tmp_path: Path) -> None:
    """Two seconds around the end of summer time in Berlin, and times that are no Unix times."""
    end = dt.datetime(2024, 10, 27, 1, 0, 0, tzinfo=dt.UTC).timestamp()
    with imgstore_zarr.create(tmp_path / "r", "avc1/mp4", (16, 16)) as writer:
        for i, time in enumerate((end - 0.5, end + 0.5, 12.5, float("nan"))):
            writer.add_image(np.zeros((16, 16), np.uint8), i, time)
    metadata = tmp_path / "r/metadata.yaml"
    text = metadata.read_text()
    (line,) = (line for line in text.splitlines() if "timezone_local" in line)
    metadata.write_text(text.replace(line, "  timezone_local: Europe/Berlin"))
    exported("r", "times.csv", cwd=tmp_path)
    rows = (tmp_path / "times.csv").read_text().splitlines()[1:]
    assert [row.rpartition(",")[2] for row in rows] == [
        "2024-10-27T02:59:59.500000+02:00",
        "2024-10-27T02:00:00.500000+01:00",
        "",
        "",
    ]


def test_extra_data_as_csv(native: Path, motif: Path, tmp_path: Path) -> None:
    for path in (native, motif):
        name = f"{path.name}.csv"
        assert exported(path, name, "--extra", cwd=tmp_path)["count"] == 15
        table = pd.read_csv(tmp_path / name)
        assert table.frame_index.tolist() == list(range(0, COUNT, 5))
        np.testing.assert_allclose(table.temperature, 20 + np.arange(0, COUNT, 5) / 10)
        assert [json.loads(text) for text in table.tags] == [
            ["a", str(i)] for i in range(0, COUNT, 5)
        ]
        part = exported(path, f"part-{name}", "--extra", "--frames", "38:51", cwd=tmp_path)
        table = pd.read_csv(tmp_path / f"part-{name}")
        assert part["count"] == len(table) == 3
        assert table.frame_index.tolist() == [40, 45, 50]
        assert table.frame_number.tolist() == [150, 155, 160]
        assert table.temperature.tolist() == [24.0, 24.5, 25.0]


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet(native: Path, tmp_path: Path) -> None:
    exported(native, tmp_path / "times.parquet")
    table = pd.read_parquet(tmp_path / "times.parquet")
    assert table.frame_number.dtype == np.int64
    assert table.frame_time.tolist() == [time_of(i) for i in range(COUNT)]
    assert table.local_time[1].timestamp() == pytest.approx(time_of(1), abs=1e-6)
    exported(native, tmp_path / "extra.parquet", "--extra")
    extra = pd.read_parquet(tmp_path / "extra.parquet")
    assert extra.temperature.tolist() == [20 + i / 10 for i in range(0, COUNT, 5)]
    assert [list(tags) for tags in extra.tags] == [["a", str(i)] for i in range(0, COUNT, 5)]


def test_parquet_without_pyarrow(native: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None; from imgstore_zarr.cli import main; "
        f"sys.argv = ['imgstore-zarr', 'export', {str(native)!r}, 'a.parquet']; main()"
    )
    error = one_line_error(run([sys.executable, "-c", code], tmp_path))
    assert (
        error == "error: Parquet files need pyarrow: pip install pyarrow; CSV files need nothing\n"
    )
    assert list(tmp_path.iterdir()) == []


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.avi",), "a.avi could be anything: a name ends with .mp4, .csv, .parquet"),
        (("s3://bucket/a.csv",), "s3://bucket/a.csv is a URL; export writes files"),
        (
            ("a.mp4", "--extra"),
            "--extra makes a table: name a file that ends with .csv or .parquet",
        ),
        (("a.csv", "--frames", "3"), "--frames must be START:STOP, of which one may be left out"),
        (("a.csv", "--frames", "x:"), "--frames must be START:STOP, of which one may be left out"),
        (("a.csv", "--time", "now:"), "--time must be START:STOP, of which one may be left out"),
        (("a.csv", "--frames", "90:"), "no frame is selected; it has 75, with times from"),
        (("a.csv", "--storage-option", "x"), "--storage-option must be NAME=VALUE, not 'x'"),
    ],
)
def test_export_refuses(
    arguments: tuple[str, ...], message: str, native: Path, tmp_path: Path
) -> None:
    assert message in one_line_error(cli("export", native, *arguments, cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_export_overwrites_nothing(native: Path, tmp_path: Path) -> None:
    for name in ("a.csv", "a.mp4", "a.png"):
        (tmp_path / name).write_text("mine")
        assert "is not overwritten" in one_line_error(
            cli("export", native, name, "--frames", "0:1", cwd=tmp_path)
        )
        assert (tmp_path / name).read_text() == "mine"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine").touch()
    assert "is not empty" in one_line_error(cli("export", native, "folder", cwd=tmp_path))
    assert len(list((tmp_path / "folder").iterdir())) == 1


def test_an_empty_recording(tmp_path: Path) -> None:
    imgstore_zarr.create(tmp_path / "r", "raw/zarr", (4, 6)).close()
    for name in ("images", "a.mp4"):
        assert "has no frames" in one_line_error(cli("export", "r", name, cwd=tmp_path))
    assert "has no frames" in one_line_error(cli("timecodes", "r", cwd=tmp_path))
    assert "has no extra data" in one_line_error(
        cli("export", "r", "a.csv", "--extra", cwd=tmp_path)
    )
    assert exported("r", "a.csv", cwd=tmp_path)["count"] == 0
    header = "frame_index,frame_number,frame_time,local_time\n"
    assert (tmp_path / "a.csv").read_text() == header
    assert cli("report", "r", cwd=tmp_path).returncode == 0


# Timecodes.


def test_timecodes(native: Path) -> None:
    finished = cli("timecodes", native)
    assert (finished.returncode, finished.stderr) == (0, "")
    header, *lines = finished.stdout.splitlines()
    assert header == "# timecode format v2"
    assert lines == [f"{(i + 10 * (i >= 40)) * 40:.3f}" for i in range(COUNT)]
    part = cli("timecodes", native, "--frames", "38:42").stdout.splitlines()
    assert part[1:] == ["0.000", "40.000", "480.000", "520.000"]


def test_timecodes_as_a_table(native: Path, tmp_path: Path) -> None:
    finished = cli("timecodes", native, "--table", "--time", f"{time_of(39)}:{time_of(41)}")
    (tmp_path / "t.txt").write_text(finished.stdout)
    table = pd.read_csv(tmp_path / "t.txt", sep="\t", dtype={"frame_time": str})
    assert table.frame_index.tolist() == [39, 40]
    assert table.frame_number.tolist() == [139, 150]
    assert list(map(float, table.frame_time)) == [time_of(39), time_of(40)]


def test_timecodes_that_go_back(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "raw/zarr", (4, 6)) as writer:
        for i, time in enumerate((1.0, 1.5, 1.25, 2.0)):
            writer.add_image(np.zeros((4, 6), np.uint8), i, time)
    error = one_line_error(cli("timecodes", tmp_path / "r"))
    assert "the frame time at position 2 is 1.25, and timecodes cannot go back" in error
    kept = cli("timecodes", tmp_path / "r", "--frames", "2:").stdout
    assert kept == "# timecode format v2\n0.000\n750.000\n"
    assert len(cli("timecodes", tmp_path / "r", "--table").stdout.splitlines()) == 5


# Reports.


def test_report(native: Path) -> None:
    finished = cli("report", native)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith(f"{native}: zstd/zarr (zarr layout)\n  75 frames in 3 chunks")
    assert "1 gap with 10 frames dropped" in finished.stdout
    document = load(cli("report", native, "--json").stdout)
    assert (document["frame_count"], document["dropped"], document["ok"]) == (75, 10, True)
    assert [gap["position"] for gap in document["gaps"]] == [40]


def test_report_of_damage_is_still_a_report(tmp_path: Path) -> None:
    record(tmp_path / "r", "avc1/mp4", fps=RATE)
    (tmp_path / "r/000001.mp4").unlink()
    finished = cli("report", "r", cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "problem: " in finished.stdout
    assert load(cli("report", "r", "--json", cwd=tmp_path).stdout)["ok"] is False
    (tmp_path / "r/000000.extra.json").write_text("no JSON")
    pytest.importorskip("matplotlib")
    finished = cli("report", "r", "--png", "r.png", cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "000000.extra.json of chunk 0 are damaged" in finished.stdout


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is missing")
def test_report_as_a_picture(native: Path, tmp_path: Path) -> None:
    finished = cli("report", native, "--png", "new/report.png", cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    picture = cv2.imread(str(tmp_path / "new/report.png"))
    assert picture is not None
    assert min(picture.shape[:2]) > 150
    # White paper, with something that is drawn.
    assert np.median(picture) == 255
    assert 0.001 < (picture < 128).mean() < 0.5
    error = one_line_error(cli("report", native, "--png", "new/report.png", cwd=tmp_path))
    assert "is not overwritten" in error
    error = one_line_error(cli("report", native, "--png", "report.pdf", cwd=tmp_path))
    assert "report.pdf does not end with .png" in error


def test_report_without_matplotlib(native: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; from imgstore_zarr.cli import main; "
        f"sys.argv = ['imgstore-zarr', 'report', {str(native)!r}, '--png', 'a.png']; main()"
    )
    assert "pip install" in one_line_error(run([sys.executable, "-c", code], tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_interrupted_is_gone(native: Path, tmp_path: Path) -> None:
    """Ctrl-C comes with the second image that is encoded."""
    code = (
        "import sys; import imgstore_zarr.cli.export as export\n"
        "class Stops(export.VideoEncoder):\n"
        "    def write(self, image):\n"
        "        if self._count == 1: raise KeyboardInterrupt\n"
        "        super().write(image)\n"
        "export.VideoEncoder = Stops\n"
        f"sys.argv = ['imgstore-zarr', 'export', {str(native)!r}, 'a.mp4']\n"
        "from imgstore_zarr.cli import main; main()"
    )
    finished = run([sys.executable, "-c", code], tmp_path)
    assert finished.returncode == 130
    assert finished.stderr.startswith("interrupted")
    assert "Traceback" not in finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_installed_script_exports(native: Path, tmp_path: Path) -> None:
    script = str(Path(sys.executable).with_name("imgstore-zarr"))
    done = subprocess.run(
        [script, "export", native, "a.csv"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "a.csv: 75 rows\n"

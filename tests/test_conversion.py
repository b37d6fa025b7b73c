"""convert: every frame comes along, whatever happens on the way."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zarr
from imgstore_compat.video.layout import VideoLayout
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr import ConversionReport, convert
from imgstore_zarr.comparison import compare
from imgstore_zarr.conversion_job import Job, SourceFrames
from imgstore_zarr.conversion_source import Source
from imgstore_zarr.native.layout import ZarrLayout
from imgstore_zarr.shared_sources import SharedSource
from imgstore_zarr.storage import locate
from tests import ffmpeg
from tests.campaign import rounds

ROOT = Path(__file__).parents[1]
COUNT = 50
SHAPE = (34, 48)
NUMBERS = [100 + i + 7 * (i > 20) for i in range(COUNT)]
TIMES = [1.7e9 + i / 8 for i in range(COUNT)]

Images = NDArray[Any]


def images(dtype: Any = np.uint8, shape: tuple[int, ...] = SHAPE) -> Images:
    noise = np.random.default_rng(1).integers(0, 200, (COUNT, *shape))
    return noise.astype(dtype)


def recorded(
    path: Path, format: str = "raw/zarr", stack: Images | None = None, **options: Any
) -> Path:
    stack = images() if stack is None else stack
    given: dict[str, Any] = {
        "chunksize": 16,
        "metadata": {"animal": "ant", "rig": [1, 2]},
        **options,
    }
    with imgstore_zarr.create(path, format, stack.shape[1:], stack.dtype, **given) as writer:
        for i, image in enumerate(stack):
            writer.add_image(image, NUMBERS[i], TIMES[i])
            if i % 3 == 0:
                writer.add_extra_data(value=i, text=f"at {i}")
    return path


def pixels(path: object) -> Images:
    with imgstore_zarr.open(path) as store:
        return store.frames[...]


TARGETS = ["raw/zarr", "zstd/zarr", "png/dir", "npy/dir", "avc1/mp4", "h264/mkv", "mjpeg/avi"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("format", ["zstd/zarr", "png/dir", "h264/mkv"])
@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)], ids=["gray", "color"])
def test_every_format_to_every_format(
    tmp_path: Path, format: str, target: str, shape: tuple[int, ...]
) -> None:
    source = recorded(tmp_path / "source", format, images(shape=shape))
    report = convert(source, tmp_path / "copy", target, chunksize=20, verify=True)
    assert (report.frame_count, report.chunk_count, report.resumed) == (COUNT, 3, 0)
    assert report.verified
    with imgstore_zarr.open(source) as before, imgstore_zarr.open(tmp_path / "copy") as after:
        assert after.format == target.removesuffix("/dir")
        assert after.index.frame_number.tolist() == NUMBERS
        assert after.index.frame_time.tolist() == TIMES
        assert after.index.chunk_starts.tolist() == [0, 20, 40]
        assert after.created == before.created
        assert after.uuid not in (None, before.uuid)
        metadata = after.user_metadata
        assert metadata.pop("converted_from")["uuid"] == before.uuid
        assert metadata == before.user_metadata
        old, new = before.get_extra_data(), after.get_extra_data()
        assert old is not None
        assert new is not None
        assert new[old.columns].equals(old)
        if after.lossless:
            assert report.worst_psnr is None
            np.testing.assert_array_equal(after.frames[...], before.frames[...])
        else:
            assert report.worst_psnr is not None
            assert report.worst_psnr > 10  # noise is hard to compress
    assert not (tmp_path / "copy" / ".conversion").exists()
    problems = imgstore_zarr.verify(tmp_path / "copy").problems
    assert problems == ()


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", "float64"])
def test_every_dtype(tmp_path: Path, dtype: str) -> None:
    stack = images(dtype) * 3
    if stack.dtype.kind == "f":
        stack[3, 2, 1] = np.nan
    source = recorded(tmp_path / "source", stack=stack)
    report = convert(source, tmp_path / "copy", "zstd/zarr", verify=True)
    assert report.worst_psnr is None
    np.testing.assert_array_equal(pixels(tmp_path / "copy"), stack)


@pytest.mark.parametrize("target", ["raw/zarr", "png/dir", "png+color", "h264/mkv"])
def test_encodings(tmp_path: Path, target: str) -> None:
    source = recorded(tmp_path / "source", encoding="cv_bayerrg")
    options: dict[str, Any] = {"crf": 0} if "264" in target else {}
    convert(source, tmp_path / "copy", target, verify=True, **options)
    with imgstore_zarr.open(tmp_path / "copy") as copy, imgstore_zarr.open(source) as original:
        assert copy.encoding == ("cv_bayerrg" if target in ("raw/zarr", "png/dir") else None)
        assert copy.image_shape == (*SHAPE, 3)
        if copy.lossless:
            np.testing.assert_array_equal(copy.frames[...], original.frames[...])
    convert(source, tmp_path / "cut", "raw/zarr", roi=(slice(3, 20), slice(1, 9)), verify=True)
    np.testing.assert_array_equal(pixels(tmp_path / "cut"), pixels(source)[:, 3:20, 1:9])


SELECTIONS: list[tuple[dict[str, Any], Any]] = [
    ({"frames": slice(10, 30)}, np.s_[10:30]),
    ({"frames": slice(None, None, -7)}, np.s_[::-7]),
    ({"frames": range(3, 40, 9)}, np.s_[3:40:9]),
    ({"frames": [7, 3, 3, 49]}, [7, 3, 3, 49]),
    ({"time": (TIMES[5], TIMES[17])}, np.s_[5:17]),
    ({"stride": 4}, np.s_[::4]),
    ({"frames": [-1, -3]}, [-1, -3]),
    ({"frames": np.arange(COUNT) % 5 == 2}, np.s_[2::5]),
    ({"time": (None, TIMES[9])}, np.s_[:9]),
    ({"time": (TIMES[40], None), "stride": np.int64(2)}, np.s_[40::2]),
    ({"frames": slice(8, 40), "time": (0, TIMES[30]), "stride": 3}, np.s_[8:30:3]),
]


@pytest.mark.parametrize(("options", "key"), SELECTIONS, ids=str)
@pytest.mark.parametrize("format", ["raw/zarr", "h264/mkv"])
def test_selections(tmp_path: Path, format: str, options: dict[str, Any], key: Any) -> None:
    source = recorded(tmp_path / "source", format)
    roi = (slice(2, 20), slice(None, 30))
    convert(source, tmp_path / "copy", "zstd/zarr", roi=roi, chunksize=5, verify=True, **options)
    with imgstore_zarr.open(tmp_path / "copy") as copy:
        np.testing.assert_array_equal(copy.frames[...], pixels(source)[key][:, 2:20, :30])
        assert copy.index.frame_number.tolist() == np.array(NUMBERS)[key].tolist()
        assert copy.index.frame_time.tolist() == np.array(TIMES)[key].tolist()
        positions = np.arange(COUNT)[key].tolist()
        table = copy.get_extra_data()
        expected = [p for i, p in enumerate(positions) if p % 3 == 0 and p not in positions[:i]]
        assert (table is None) == (not expected)
        if table is not None:
            assert table["value"].tolist() == expected
            assert [positions[i] for i in table["frame_index"]] == expected
            assert (table["frame_number"] == copy.index.frame_number[table["frame_index"]]).all()


def test_numbers_of_extra_data_count_where_positions_do_not_fit(tmp_path: Path) -> None:
    """Some programs write positions within chunks."""
    source = recorded(tmp_path / "source", "png/dir")
    file = source / "000002" / "index.extra.json"
    records = json.loads(file.read_text())
    for record in records:
        record["frame_index"] -= 32
    file.write_text(json.dumps(records))
    convert(source, tmp_path / "copy", "raw/zarr")
    table = imgstore_zarr.open(tmp_path / "copy").get_extra_data()
    assert table is not None
    assert table["frame_index"].tolist() == table["value"].tolist() == [*range(0, COUNT, 3)]


# Video files that are no recordings


@ffmpeg.needs_ffmpeg
@pytest.mark.shared_data
@pytest.mark.parametrize(
    "name",
    ["sleap_flies_small.mp4", "lp_mirror_mouse.mp4", "tc_av1_video.mkv", "pims_bulk_water.mov"],
)
def test_a_video_file(tmp_path: Path, shared_data: Path, name: str) -> None:
    path = shared_data / name
    frames = slice(5, 70)
    report = convert(path, tmp_path / "copy", "zstd/zarr", frames=frames, verify=True)
    assert (report.frame_count, report.worst_psnr) == (65, None)
    with imgstore_zarr.open(tmp_path / "copy") as copy:
        assert copy.index.frame_number.tolist() == [*range(5, 70)]
        np.testing.assert_allclose(copy.index.frame_time, ffmpeg.times(path)[frames], atol=1e-6)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["loopbio_store_mp4"])
def test_recordings_of_others(tmp_path: Path, shared_data: Path, name: str) -> None:
    report = convert(shared_data / name, tmp_path / "copy", "zstd/zarr", verify=True)
    assert report.worst_psnr is None
    assert imgstore_zarr.verify(tmp_path / "copy").ok


def test_a_file_that_is_no_video_of_8_bits(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "deep.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray16le"
        frame = av.VideoFrame.from_ndarray(np.full((48, 64), 700, np.uint16), format="gray16le")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(imgstore_zarr.UnsupportedFormatError, match=r"16 bits .*8 would be kept"):
        convert(tmp_path / "deep.mkv", tmp_path / "copy", "zstd/zarr")
    assert not (tmp_path / "copy").exists()


@ffmpeg.needs_ffmpeg
def test_times_of_a_video_with_a_rate_that_varies(tmp_path: Path) -> None:
    import av

    path, pts = tmp_path / "vfr.mkv", [0, 40, 45, 200, 1000, 1001]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        for i, stamp in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64), i, np.uint8), format="gray")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    convert(path, tmp_path / "copy", "raw/zarr")
    with imgstore_zarr.open(tmp_path / "copy") as copy:
        np.testing.assert_allclose(copy.index.frame_time, ffmpeg.times(path), atol=1e-9)
        assert len({*np.diff(copy.index.frame_time).round(3).tolist()}) > 2
        assert copy.frames[:, 0, 0].tolist() == [*range(6)]


def test_a_chunk_of_a_recording_is_no_video_by_itself(tmp_path: Path) -> None:
    source = recorded(tmp_path / "source", "h264/mkv")
    with pytest.raises(imgstore_zarr.RecordingNotFoundError, match="lies in the recording"):
        convert(source / "000001.mkv", tmp_path / "copy", "raw/zarr")


def test_another_file_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(tmp_path / "one", "mjpeg/avi", chunksize=COUNT)
    recorded(tmp_path / "two", "mjpeg/avi", images() + 50, chunksize=COUNT)
    video = tmp_path / "video.avi"
    shutil.copy(tmp_path / "one/000000.avi", video)
    with monkeypatch.context() as patch:
        stopping(patch, ZarrLayout, 2)
        with pytest.raises(StopError):
            convert(video, tmp_path / "copy", "raw/zarr", chunksize=8)
    shutil.copy(tmp_path / "two/000000.avi", video)
    os.utime(video, (0, 0))
    with pytest.raises(imgstore_zarr.RecordingExistsError, match=r"differs in .*source_file"):
        convert(video, tmp_path / "copy", "raw/zarr", chunksize=8)


# What comes along, and what cannot


def test_records_before_the_first_frame(tmp_path: Path) -> None:
    for format in ("raw/zarr", "png/dir", "h264/mkv"):
        source = tmp_path / format / "source"
        with imgstore_zarr.create(source, format, SHAPE, chunksize=16) as writer:
            writer.add_extra_data(x=-1)
            for i, image in enumerate(images()):
                writer.add_image(image, i, i / 8)
                writer.add_extra_data(x=i)
        for target in ("zstd/zarr", "png/dir", "avc1/mp4"):
            convert(source, tmp_path / format / target, target, chunksize=20)
            table = imgstore_zarr.open(tmp_path / format / target).get_extra_data()
            assert table is not None
            assert table["x"].tolist() == [*range(-1, COUNT)]
            assert table["frame_index"].tolist() == [*range(-1, COUNT)]


def test_records_of_frames_that_are_not_there(tmp_path: Path) -> None:
    source = recorded(tmp_path / "source", "png/dir")
    file = source / "000001" / "index.extra.json"
    records = json.loads(file.read_text())
    file.write_text(
        json.dumps([*records, {**records[0], "frame_number": 5000, "frame_index": 900}])
    )
    report = convert(source, tmp_path / "copy", "raw/zarr")
    (left_out,) = report.left_out
    assert left_out == "1 record of extra data of frames that are not there"
    assert left_out in str(report)


def test_metadata_that_json_cannot_hold(tmp_path: Path) -> None:
    metadata = {1: "one", "limit": float("inf"), "deep": [{2.5: None}], "day": dt.date(2026, 1, 2)}
    source = recorded(tmp_path / "source", "png/dir", metadata=metadata)
    report = convert(source, tmp_path / "copy", "zstd/zarr")
    assert len(report.left_out) == 3
    found = imgstore_zarr.open(tmp_path / "copy").user_metadata
    found.pop("converted_from")
    assert found == {"1": "one", "limit": "inf", "deep": [{"2.5": None}], "day": "2026-01-02"}


def test_odd_images_in_video(tmp_path: Path) -> None:
    source = recorded(tmp_path / "source", stack=images(shape=(33, 47)))
    report = convert(source, tmp_path / "copy", "avc1/mp4", verify=True)
    assert report.left_out == ("images of 33 x 47 are cut to even sizes, 32 x 46",)
    assert "bit-exact" not in str(report)


def test_gray(tmp_path: Path) -> None:
    source = recorded(tmp_path / "source", stack=images(shape=(*SHAPE, 3)))
    convert(source, tmp_path / "gray", "raw/zarr", gray=True, verify=True)
    expected = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in images(shape=(*SHAPE, 3))]
    np.testing.assert_array_equal(pixels(tmp_path / "gray"), expected)


def test_provenance(tmp_path: Path) -> None:
    source = imgstore_zarr.open(recorded(tmp_path / "source"))
    view = source.with_clock(imgstore_zarr.ClockCorrection(offset=2.0))
    roi = (slice(0, 20), slice(2, 40))
    convert(view, tmp_path / "one", "raw/zarr", frames=slice(3, 40), stride=2, roi=roi)
    convert(tmp_path / "one", tmp_path / "two", "zstd/zarr", frames=[4, 5, 1], time=(None, 2e9))
    with imgstore_zarr.open(tmp_path / "two") as store:
        second = store.user_metadata["converted_from"]
    first = second.pop("converted_from")
    assert second["frames"] == "3 of a list"
    assert second["time"] == [None, 2e9]
    assert second["frame_count"] == 19
    assert first["uuid"] == source.uuid
    assert (first["frames"], first["stride"]) == ([3, 40, None], 2)
    assert first["roi"] == [[0, 20], [2, 40]]
    assert "offset=2.0" in first["clock"][0]


def test_an_empty_recording(tmp_path: Path) -> None:
    imgstore_zarr.create(tmp_path / "source", "raw/zarr", SHAPE).close()
    for target in ("zstd/zarr", "png/dir", "avc1/mp4"):
        assert convert(tmp_path / "source", tmp_path / target, target, verify=True).frame_count == 0
        assert len(imgstore_zarr.open(tmp_path / target)) == 0


def test_inner_chunks_and_options(tmp_path: Path) -> None:
    source = recorded(tmp_path / "source")
    convert(source, tmp_path / "tiles", "zstd/zarr", chunksize=8, inner_chunks=(4, 17, 24))
    group = zarr.open_group(tmp_path / "tiles", mode="r", use_consolidated=False)
    image = group["image"]
    assert isinstance(image, zarr.Array)
    assert (image.shards, image.chunks) == ((8, *SHAPE), (4, 17, 24))
    for crf in (1, 45):
        convert(source, tmp_path / f"video{crf}", "avc1/mp4", crf=crf)
    sizes = [(tmp_path / f"video{crf}/000000.mp4").stat().st_size for crf in (1, 45)]
    assert sizes[0] > 3 * sizes[1]


# What is refused


@pytest.mark.parametrize("target", ["zstd/zarr", "png/dir"])
def test_into_the_source_or_a_folder_of_others(tmp_path: Path, target: str) -> None:
    source = recorded(tmp_path / "source")
    with pytest.raises(imgstore_zarr.RecordingExistsError, match="in the recording that is to be"):
        convert(source, source / "copy", target)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(imgstore_zarr.RecordingExistsError, match=r"is not empty \(notes\.txt\)"):
        convert(source, tmp_path / "mine", target)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_first_chunk_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    source = recorded(tmp_path / "source")
    (source / "image/c/0/0/0").unlink()
    with pytest.raises(imgstore_zarr.ChunkMissingError):
        convert(source, tmp_path / "copy", "zstd/zarr")
    assert not (tmp_path / "copy").exists()


def test_extra_data_that_are_damaged_are_told_of_first(tmp_path: Path) -> None:
    source = recorded(tmp_path / "source", "png/dir")
    (source / "000001" / "index.extra.json").write_text('[{"x": nonsense}]')
    with pytest.raises(imgstore_zarr.CorruptChunkError, match="extra data"):
        convert(source, tmp_path / "copy", "zstd/zarr")
    assert not (tmp_path / "copy").exists()


def test_what_is_there_is_never_touched(tmp_path: Path) -> None:
    source, other = recorded(tmp_path / "source"), recorded(tmp_path / "other", "png/dir")
    before = {path: path.stat().st_mtime_ns for path in other.rglob("*")}
    for target in ("raw/zarr", "png/dir", "avc1/mp4"):
        with pytest.raises(imgstore_zarr.RecordingExistsError, match="is in the recording that is"):
            convert(source, source, target)
        for place in (recorded(tmp_path / f"third-{target[:3]}"), other):
            with pytest.raises(
                imgstore_zarr.RecordingExistsError, match="already holds a recording"
            ):
                convert(source, place, target)
    assert {path: path.stat().st_mtime_ns for path in other.rglob("*")} == before


@pytest.mark.parametrize(
    ("stack", "target", "options", "said"),
    [
        (images(np.uint16), "avc1/mp4", {}, "holds uint8 images"),
        (images(np.float32), "png/dir", {}, "float32"),
        (images(), "foo/bar", {}, "unknown format"),
        (images(), "avc1/mp4", {"crf": 70}, "crf"),
        (images(), "zstd/zarr", {"crf": 20}, "no option crf"),
        (images(), "zstd/zarr", {"roi": (slice(40, 50), slice(0, 4))}, "roi must be"),
        (images(), "zstd/zarr", {"roi": (slice(0, 9, 2), slice(0, 4))}, "without a step"),
        (images(), "zstd/zarr", {"stride": 0}, "stride must be"),
        (images(), "zstd/zarr", {"frames": [3, COUNT]}, f"no position {COUNT}"),
        (images(), "zstd/zarr", {"time": (0, 1)}, r"no frame is selected.* times from 17000"),
        (images(), "zstd/zarr", {"metadata": {1: 2}}, "key 1"),
        (images(), "zstd/zarr", {"frames": [1.5, 2.5]}, "frames must be"),
        (images(), "zstd/zarr", {"frames": np.ones(3, bool)}, "frames must be .* mask of 50"),
        (images(), "zstd/zarr", {"frames": 5}, "frames must be"),
        (images(), "zstd/zarr", {"frames": "0:10"}, "frames must be"),
        (images(), "zstd/zarr", {"time": 5.0}, r"time must be \(start, stop\)"),
        (images(), "zstd/zarr", {"time": ("2020", "x")}, "time must be"),
        (images(), "zstd/zarr", {"stride": 2.0}, "stride must be an integer"),
        (images(), "zstd/zarr", {"roi": (0, 0, 10, 10)}, "roi must be two slices"),
        (images(), "mp4", {}, "did you mean avc1/mp4"),
    ],
    ids=str,
)
def test_what_cannot_be_leaves_nothing_behind(
    tmp_path: Path, stack: Images, target: str, options: dict[str, Any], said: str
) -> None:
    source = recorded(tmp_path / "source", stack=stack)
    (tmp_path / "mine").mkdir()
    for place in ("copy", "a/b/c", "mine"):
        with pytest.raises(imgstore_zarr.ImgStoreError, match=said):
            convert(source, tmp_path / place, target, **options)
    assert {path.name for path in tmp_path.iterdir()} == {"source", "mine"}
    assert not [*(tmp_path / "mine").iterdir()]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(imgstore_zarr.RecordingNotFoundError):
        convert(tmp_path / "none", tmp_path / "copy", "zstd/zarr")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(imgstore_zarr.CorruptChunkError, match=r"text\.mp4"):
        convert(tmp_path / "text.mp4", tmp_path / "copy", "zstd/zarr")
    assert not (tmp_path / "copy").exists()


# Interruptions


class StopError(Exception):
    pass


def stopping(monkeypatch: pytest.MonkeyPatch, layout: type[Any], chunk: int) -> list[int]:
    """Let a conversion stop before it takes a chunk; return the chunks that are taken."""
    take = layout.take_chunk
    taken: list[int] = []

    def counted(self: Any, location: Any, spec: Any, part: Path, number: int) -> None:
        if number == chunk:
            raise StopError
        taken.append(number)
        take(self, location, spec, part, number)

    monkeypatch.setattr(layout, "take_chunk", counted)
    return taken


@pytest.mark.parametrize("target", ["zstd/zarr", "h264/mkv"])
def test_an_interrupted_conversion_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    layout = ZarrLayout if "zarr" in target else VideoLayout
    source, copy = recorded(tmp_path / "source"), tmp_path / "copy"
    with monkeypatch.context() as patch:
        assert stopping(patch, layout, 2) == []
        with pytest.raises(StopError):
            convert(source, copy, target, chunksize=8)
    with pytest.raises(
        imgstore_zarr.RecordingNotFoundError, match="conversion to it is not finished"
    ):
        imgstore_zarr.open(copy)
    with pytest.raises(imgstore_zarr.RecordingExistsError, match="conversion that is not finished"):
        imgstore_zarr.create(copy, target, SHAPE)
    others: list[dict[str, Any]] = [{"chunksize": 9}, {"chunksize": 8, "stride": 2}]
    for other in others:
        with pytest.raises(imgstore_zarr.RecordingExistsError, match=r"conversion of .*source"):
            convert(source, copy, target, **other)
    with monkeypatch.context() as patch:
        taken = stopping(patch, layout, -1)
        seen: list[tuple[int, int]] = []
        report = convert(
            source, copy, target, chunksize=8, verify=True, progress=lambda *now: seen.append(now)
        )
        assert taken == [2, 3, 4, 5, 6]
    assert report.resumed == 2
    assert seen[0] == (16, COUNT)
    assert seen[-1] == (COUNT, COUNT)
    assert imgstore_zarr.verify(copy).ok
    fresh = convert(source, tmp_path / "fresh", target, chunksize=8)
    assert fresh.checksum == report.checksum
    assert not (copy / ".conversion").exists()


def test_a_source_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgstore_zarr.conversion_job.BLOCK_BYTES", 8 * SHAPE[0] * SHAPE[1])
    source = recorded(tmp_path / "source")
    shard = source / "image/c/2/0/0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + b"!" + whole[101:])
    with pytest.raises(imgstore_zarr.CorruptChunkError, match="position 32"):
        convert(source, tmp_path / "copy", "zstd/zarr", chunksize=16)
    shard.write_bytes(whole)
    assert convert(source, tmp_path / "copy", "zstd/zarr", chunksize=16, verify=True).resumed == 2


def test_between_the_end_and_the_very_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = recorded(tmp_path / "source")
    with monkeypatch.context() as patch:
        patch.setattr("imgstore_zarr.conversion_claim.Claim.finished", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert(source, tmp_path / "copy", "zstd/zarr")
    np.testing.assert_array_equal(pixels(tmp_path / "copy"), images())
    assert convert(source, tmp_path / "copy", "zstd/zarr", verify=True).resumed == 1
    assert imgstore_zarr.verify(tmp_path / "copy").ok


def test_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, reached, go_on = recorded(tmp_path / "source"), threading.Event(), threading.Event()
    write = Job.write

    def slow(self: Job, frames: SourceFrames) -> Any:
        reached.set()
        assert go_on.wait(60)
        return write(self, frames)

    monkeypatch.setattr(Job, "write", slow)
    thread = threading.Thread(target=convert, args=(source, tmp_path / "copy", "zstd/zarr"))
    thread.start()
    assert reached.wait(60)
    try:
        with pytest.raises(imgstore_zarr.RecordingLockedError):
            convert(source, tmp_path / "copy", "zstd/zarr")
    finally:
        go_on.set()
        thread.join()
    np.testing.assert_array_equal(pixels(tmp_path / "copy"), images())


KILLED = """
import sys
import imgstore_zarr
print("ready", flush=True)
imgstore_zarr.convert(sys.argv[1], sys.argv[2], sys.argv[3], chunksize=32)
"""


@pytest.mark.parametrize("seed", range(rounds(6)))
def test_kills(tmp_path: Path, seed: int) -> None:
    """After SIGKILL at random moments the same call comes to the same recording."""
    draw = random.Random(seed)
    target = draw.choice(["zstd/zarr", "raw/zarr", "png/dir", "h264/mkv"])
    stack = np.random.default_rng(seed).integers(0, 256, (400, 120, 160), np.uint8)
    source, copy = tmp_path / "source", tmp_path / "copy"
    with imgstore_zarr.create(source, "raw/zarr", stack.shape[1:]) as writer:
        for i, image in enumerate(stack):
            writer.add_image(image, i, i / 30)
    done: dict[str, int] = {}
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(source), str(copy), target],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(draw.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
        log = copy / ".conversion" / "done.jsonl"
        if log.exists():
            # What was noted as done is never done again.
            for name, inode in done.items():
                assert (copy / name).stat().st_ino == inode
            lines = [line for line in log.read_text().splitlines(keepends=True) if line[-1] == "\n"]
            files = [_file(target, json.loads(line)["number"]) for line in lines]
            done = {name: (copy / name).stat().st_ino for name in files}
    if not (copy / "metadata.yaml").exists() or (copy / ".conversion").exists():
        report = convert(source, copy, target, chunksize=32, verify=True)
        assert report.resumed >= len(done)
    assert imgstore_zarr.verify(copy).ok
    found = pixels(copy)
    assert found.shape == stack.shape
    if target != "h264/mkv":
        np.testing.assert_array_equal(found, stack)


def _file(target: str, chunk: int) -> str:
    if target.endswith("zarr"):
        return f"image/c/{chunk}/0/0"
    return f"{chunk:06d}/index.npz" if target == "png/dir" else f"{chunk:06d}.npz"


# Clusters and other stores


def test_on_a_cluster(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    source = recorded(tmp_path / "source", "h264/mkv", gop=8, fps=8)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        for target in ("zstd/zarr", "png/dir"):
            report: ConversionReport = convert(
                source, tmp_path / target, target, chunksize=4, client=client, verify=True
            )
            assert report.chunk_count == 13
            assert report.worst_psnr is None
            np.testing.assert_array_equal(pixels(tmp_path / target), pixels(source))
            assert imgstore_zarr.verify(tmp_path / target).ok


def test_to_another_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, store = recorded(tmp_path / "source"), zarr.storage.MemoryStore()
    with monkeypatch.context() as patch:
        stopping(patch, ZarrLayout, 2)
        with pytest.raises(StopError):
            convert(source, store, "zstd/zarr", chunksize=8)
    assert convert(source, store, "zstd/zarr", chunksize=8, verify=True).resumed == 2
    np.testing.assert_array_equal(pixels(store), images())
    assert imgstore_zarr.verify(store).ok
    with pytest.raises(imgstore_zarr.UnsupportedFormatError, match="only with recordings in local"):
        convert(source, zarr.storage.MemoryStore(), "avc1/mp4")
    convert(store, tmp_path / "back", "raw/zarr", verify=True)
    np.testing.assert_array_equal(pixels(tmp_path / "back"), images())


def test_to_a_store_from_which_nothing_is_removed(tmp_path: Path) -> None:
    source = recorded(tmp_path / "source")
    with zarr.storage.ZipStore(tmp_path / "copy.zip", mode="w") as store:
        convert(source, store, "zstd/zarr", chunksize=8)
    with zarr.storage.ZipStore(tmp_path / "copy.zip", mode="r") as store:
        np.testing.assert_array_equal(pixels(store), images())


@pytest.mark.parametrize("target", ["zstd/zarr", "png/dir", "h264/mkv"])
def test_killed_before_anything_was_written(tmp_path: Path, target: str) -> None:
    (tmp_path / "copy" / ".conversion").mkdir(parents=True)
    (tmp_path / "copy" / ".conversion" / "lock").touch()
    convert(recorded(tmp_path / "source"), tmp_path / "copy", target, verify=True)
    assert not (tmp_path / "copy" / ".conversion").exists()
    assert imgstore_zarr.verify(tmp_path / "copy").ok


def test_a_store_that_is_open_already(tmp_path: Path) -> None:
    """With the index that it was given, and stored images where decoding is off."""
    source = imgstore_zarr.open(recorded(tmp_path / "source", encoding="cv_bayerrg"))
    source.disable_decoding()
    convert(source, tmp_path / "copy", "raw/zarr", verify=True)
    with imgstore_zarr.open(tmp_path / "copy") as copy:
        assert copy.encoding is None
        np.testing.assert_array_equal(copy.frames[...], images())


def silent(done: int, total: int) -> None:
    """Tell nobody."""


def test_comparing_finds_what_differs(tmp_path: Path) -> None:
    source, stack = Source.of(recorded(tmp_path / "source")), images()
    wanted = SourceFrames(0, np.arange(COUNT), np.array(NUMBERS), np.array(TIMES))
    assert compare(locate(tmp_path / "source"), source, wanted, None, silent) is None
    stack[33, 4, 5] ^= 1
    recorded(tmp_path / "other", stack=stack)
    with pytest.raises(imgstore_zarr.CorruptChunkError, match=r"position 33 \(number 140\)"):
        compare(locate(tmp_path / "other"), source, wanted, None, silent)
    fewer = SourceFrames(0, np.arange(COUNT - 1), np.array(NUMBERS[1:]), np.array(TIMES[1:]))
    with pytest.raises(imgstore_zarr.CorruptChunkError, match="frame_numbers are not those"):
        compare(locate(tmp_path / "source"), source, fewer, None, silent)


def test_an_error_on_a_cluster(tmp_path: Path) -> None:
    """Nobody writes any more when the call returns, and what was done is noted."""
    distributed = pytest.importorskip("distributed")
    source = recorded(tmp_path / "source", chunksize=4)
    shard = source / "image/c/6/0/0"
    whole = shard.read_bytes()
    shard.write_bytes(b"!" + whole[1:])
    copy = tmp_path / "copy"
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        with pytest.raises(imgstore_zarr.CorruptChunkError, match="position 24"):
            convert(source, copy, "zstd/zarr", chunksize=1, client=client)
        there = sorted(path.name for path in (copy / "image/c").iterdir())
        lines = (copy / ".conversion/done.jsonl").read_text().splitlines()
        noted = [json.loads(line)["number"] for line in lines]
        assert sorted(map(str, noted)) == there
        time.sleep(0.5)
        assert sorted(path.name for path in (copy / "image/c").iterdir()) == there
        shard.write_bytes(whole)
        report = convert(source, copy, "zstd/zarr", chunksize=1, client=client, verify=True)
        assert report.resumed == len(there)
    assert imgstore_zarr.verify(copy).ok


def test_what_a_worker_gets_is_small(tmp_path: Path) -> None:
    import pickle

    with imgstore_zarr.open(recorded(tmp_path / "source")) as store:
        job = Job(
            SharedSource(store.frames.source),
            None,
            ZarrLayout(),
            locate(tmp_path / "copy"),
            imgstore_zarr.formats.planned("zstd/zarr", SHAPE, np.uint8)[1],
            tmp_path,
            8,
        )
    assert len(pickle.dumps(job)) < 4000


# The command


def cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "imgstore_zarr", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )


def test_the_command(tmp_path: Path) -> None:
    source = recorded(tmp_path / "source")
    cut = ("--frames", "10:", "--time", f":{TIMES[40]}", "--stride", 2, "--roi", "2:20,:30")
    done = cli("convert", source, tmp_path / "copy", *cut, "--chunksize", 4, "--verify")
    assert done.returncode == 0, done.stderr
    assert "15 frames in 4 chunks" in done.stdout
    assert "verified, bit-exact" in done.stdout
    np.testing.assert_array_equal(pixels(tmp_path / "copy"), images()[10:40:2, 2:20, :30])
    as_json = cli("convert", source, tmp_path / "video", "-f", "avc1/mp4", "--json")
    report = json.loads(as_json.stdout)
    assert (report["frame_count"], report["verified"]) == (COUNT, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--frames", "a:b"), "--frames must be START:STOP"),
        (("--roi", "1:2"), "--roi must be TOP:BOTTOM,LEFT:RIGHT"),
        (("--format", "foo"), "unknown format 'foo'"),
        (("--time", "5"), "--time must be START:STOP"),
    ],
)
def test_the_command_on_bad_input(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = cli("convert", recorded(tmp_path / "source"), tmp_path / "copy", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "copy").exists()

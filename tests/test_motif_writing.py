"""Recordings in video chunks, as they are written."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml
from imgstore_compat.video.sink import VideoSink

import imgstore_zarr
from imgstore_zarr import (
    ChunkMissingError,
    CorruptChunkError,
    FrameMismatchError,
    InvalidMetadataError,
    RecordingExistsError,
    UnsupportedFormatError,
)
from imgstore_zarr.storage import Directory
from imgstore_zarr.video import EncoderOptions, VideoEncoder
from tests.test_motif import SHAPE, gray, motif
from tests.videos import KINDS, Kind, encode, opencv_frames, read_barcode, scene

FAST_START = Kind("fast-start", "libx264", options={"bf": "0", "g": "12", "movflags": "faststart"})


@pytest.mark.parametrize("format", ["avc1/mp4", "h264/mkv", "mjpeg/avi", "mjpeg"])
@pytest.mark.parametrize("color", [False, True], ids=["gray", "color"])
def test_what_is_written_is_read(tmp_path: Path, format: str, color: bool) -> None:
    images = scene(25)
    if color:
        images = np.repeat(images[..., None], 3, axis=3)
    root = tmp_path / "recording"
    with imgstore_zarr.create(
        root, format, images.shape[1:], metadata={"animal": "fly"}, chunksize=10
    ) as writer:
        assert (root / ".lock").exists()
        for i, image in enumerate(images):
            writer.add_image(image, 7 + 2 * i, 100 + i / 50)
            writer.add_extra_data(step=i)
    assert not (root / ".lock").exists()
    store = imgstore_zarr.open(root)
    suffix = "." + ("avi" if format == "mjpeg" else format.split("/")[1])
    videos = [opencv_frames(root / f"{chunk:06d}{suffix}") for chunk in range(3)]
    expected = np.concatenate(videos)
    np.testing.assert_array_equal(store.frames[...], expected if color else gray(expected))
    assert [read_barcode(image[:48]) for image, _ in store] == list(range(25))
    assert store.index.frame_number.tolist() == list(range(7, 57, 2))
    assert store.index.frame_time.tolist() == [100 + i / 50 for i in range(25)]
    assert store.user_metadata == {"animal": "fly"}
    assert store.uuid == writer.uuid
    assert store.created == writer.created
    table = store.get_extra_data()
    assert table is not None
    assert table["step"].tolist() == list(range(25))
    document = yaml.safe_load((root / "metadata.yaml").read_text())["__store"]
    assert document["class"] == "VideoImgStore"
    assert document["extension"] == suffix


def test_odd_sizes_lose_a_row_and_a_column(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "avc1/mp4", (97, 129)) as writer:
        writer.add_image(np.full((97, 129), 99, np.uint8), 0, 0.0)
    store = imgstore_zarr.open(tmp_path / "r")
    assert store.image_shape == (96, 128)
    assert np.abs(store.frames[0].astype(int) - 99).max() <= 1


def test_flush_makes_frames_visible(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "avc1/mp4", SHAPE) as writer:
        for number, image in enumerate(scene(12)):
            writer.add_image(image, number, number / 25)
            if number == 7:
                writer.flush()
                assert imgstore_zarr.open(tmp_path / "r").frame_count == 8
    store = imgstore_zarr.open(tmp_path / "r")
    assert [read_barcode(image[:48]) for image, _ in store] == list(range(12))


def test_empty_begins_anew(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "avc1/mp4", SHAPE, chunksize=5) as writer:
        for number, image in enumerate(scene(12)):
            writer.add_image(image, number, 0.0)
            writer.add_extra_data(a=1)
        writer.empty()
        assert writer.frame_count == 0
        writer.add_image(scene(1)[0], 5, 0.0)
    store = imgstore_zarr.open(tmp_path / "r")
    assert store.get_frame_metadata()["frame_number"] == [5]
    assert not store.has_extra_data


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"imgdtype": "uint16"}, "uint8"),
        ({"imgshape": (96, 128, 4)}, "uint8"),
        ({"imgshape": (1, 1)}, "cannot hold"),
        ({"quality": 3}, "quality"),
        ({"crf": 99}, "crf"),
        ({"format": "mjpeg/avi", "fps": 2000}, "at most 1000"),
        ({"format": "mjpeg/avi", "crf": 20}, "crf"),
        ({"durable": True}, "durable"),
        ({"inner_chunks": (1, 96, 128)}, "inner_chunks"),
    ],
    ids=str,
)
def test_what_video_cannot_hold(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    arguments = {"format": "avc1/mp4", "imgshape": SHAPE, "imgdtype": "uint8"} | arguments
    with pytest.raises(UnsupportedFormatError, match=message):
        imgstore_zarr.create(tmp_path / "r", **arguments)
    assert not (tmp_path / "r").exists()


def test_an_existing_recording_is_never_overwritten(tmp_path: Path) -> None:
    example = motif(tmp_path / "r")
    with pytest.raises(RecordingExistsError, match="never overwritten"):
        imgstore_zarr.create(tmp_path / "r", "avc1/mp4", SHAPE)
    assert imgstore_zarr.open(tmp_path / "r").frame_count == len(example)


CHUNK_FILES = [
    "000000.mp4",
    "000003.mkv",
    "000003.npz",
    "000001.yaml",
    "000000.extra.json",
    "000002.extra_data.h5",
    "000000.index.journal",
]


@pytest.mark.parametrize("format", ["avc1/mp4", "mjpeg/avi", "png/dir"])
@pytest.mark.parametrize("name", CHUNK_FILES)
def test_files_of_chunks_are_neither_overwritten_nor_taken_in(
    tmp_path: Path, name: str, format: str
) -> None:
    (tmp_path / name).write_bytes(b"somebody's")
    with pytest.raises(RecordingExistsError, match=f"holds files of chunks .{name}."):
        imgstore_zarr.create(tmp_path, format, SHAPE)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"somebody's"


def test_other_files_may_be_there(tmp_path: Path) -> None:
    names = ["notes.txt", "preview.mp4", "000000.png", ".hidden"]
    for name in names:
        (tmp_path / name).touch()
    with imgstore_zarr.create(tmp_path, "avc1/mp4", SHAPE) as writer:
        writer.add_image(scene(1)[0], 0, 0.0)
        writer.empty()
    assert {path.name for path in tmp_path.iterdir()} == {*names, "metadata.yaml"}


def test_empty_leaves_what_the_writer_did_not_make(tmp_path: Path) -> None:
    root = tmp_path / "r"
    names = ["000007.mp4", "000007.npz", "000009.extra.json", "000000.extra_data.h5", "000000.png"]
    with imgstore_zarr.create(root, "avc1/mp4", SHAPE, chunksize=2) as writer:
        for name in names:
            (root / name).write_bytes(b"somebody's")
        for number, image in enumerate(scene(5)):
            writer.add_image(image, number, 0.0)
            writer.add_extra_data(a=1)
        writer.empty()
        assert {path.name for path in root.iterdir()} == {*names, "metadata.yaml", ".lock"}


# Extra data


def extra_steps(root: Path) -> list[int]:
    table = imgstore_zarr.open(root).get_extra_data()
    assert table is not None
    return table["step"].tolist()


@pytest.mark.parametrize("flushed", [False, True])
def test_extra_data_lie_beside_the_chunk_of_their_frame(tmp_path: Path, flushed: bool) -> None:
    root = tmp_path / "r"
    with imgstore_zarr.create(root, "avc1/mp4", SHAPE, chunksize=5) as writer:
        for i, image in enumerate(scene(10)):
            writer.add_image(image, i, float(i))
            writer.add_extra_data(step=2 * i)
            if flushed and i % 5 == 4:
                writer.flush()
            writer.add_extra_data(step=2 * i + 1)
    assert extra_steps(root) == list(range(20))
    for chunk in range(2):
        records = json.loads((root / f"{chunk:06d}.extra.json").read_text())
        assert [record["frame_index"] for record in records] == [
            chunk * 5 + i // 2 for i in range(10)
        ]
    assert not (root / "000002.extra.json").exists()


def test_extra_data_around_no_frames(tmp_path: Path) -> None:
    root = tmp_path / "r"
    with imgstore_zarr.create(root, "avc1/mp4", SHAPE) as writer:
        writer.add_extra_data(step=0)
        writer.flush()
        writer.add_extra_data(step=1)
        writer.flush()
        assert extra_steps(root) == [0, 1]
        writer.add_image(scene(1)[0], 0, 0.0)
        writer.add_extra_data(step=2)
    assert extra_steps(root) == [0, 1, 2]


def test_chunks_are_complete_once_their_index_is_there(tmp_path: Path) -> None:
    root = tmp_path / "r"
    with imgstore_zarr.create(root, "mjpeg/avi", SHAPE, chunksize=3) as writer:
        for i, image in enumerate(scene(8)):
            writer.add_image(image, i, float(i))
            assert writer.chunks == list(range(i // 3))
            assert len([*root.glob("*.npz")]) == i // 3
        writer.flush()
        writer.flush()
        assert writer.chunks == [0, 1, 2]


# The rate


@pytest.mark.parametrize(
    ("metadata", "options", "times", "rate"),
    [
        ({}, {}, [i / 50 for i in range(20)], 50),
        ({}, {}, [0.0, 0.02, 0.04, 0.3, 0.32, 0.34, 0.36, 0.38], 50),
        ({}, {}, [0.0, 0.02, 0.02, 0.01, 0.03, 0.05, 0.07, 0.09], 50),
        ({}, {}, [0.0, 0.5, 1.0], 2),
        ({}, {}, [0.0, 1.0, 2.0], 1),
        ({}, {}, [0.0, 2.0, 4.0], 25),
        ({}, {}, [1e12 + 40.0 * i for i in range(12)], 25),
        ({"hwframerate": 0.5}, {}, [0.0, 2.0, 4.0], 0.5),
        ({}, {"fps": 0.5}, [0.0, 2.0, 4.0], 0.5),
        ({}, {"fps": np.float32(30)}, [0.0, 1.0, 2.0], 30),
        ({}, {"fps": np.int64(30)}, [0.0, 1.0, 2.0], 30),
        ({}, {"fps": None}, [0.0, 0.02], 50),
        ({}, {}, [0.0, 0.01], 100),
        ({}, {}, [7.0], 25),
        ({}, {}, [7.0] * 12, 25),
        ({}, {}, [9.0 - i for i in range(12)], 25),
        ({}, {}, [i * 1e-9 for i in range(12)], 25),
        ({}, {"fps": 30}, [0.0, 1.0, 2.0], 30),
        ({"hwframerate": 40.0, "motifptpframerate": 10.0}, {}, [0.0, 1.0], 40),
        ({"motifptpframerate": 10}, {}, [0.0, 1.0], 10),
        ({"hwframerate": 0, "motifptpframerate": 10.0}, {}, [0.0, 1.0], 10),
        ({"hwframerate": "fast"}, {}, [0.0, 1.0], 1),
        ({"hwframerate": True}, {}, [0.0, 0.5], 2),
        ({"acquisitionframerate": 60.5}, {}, [0.0, 1.0], 1),
        ({"acquisitionframerate": 60.5, "acquisitionframerateenable": False}, {}, [0.0, 1.0], 1),
        ({"acquisitionframerate": 60.5, "acquisitionframerateenable": True}, {}, [0.0], 60.5),
        ({"hwframerate": 40.0}, {"fps": 30}, [0.0, 1.0], 30),
    ],
)
@pytest.mark.parametrize("format", ["avc1/mp4", "mjpeg/avi"])
def test_players_show_the_rate_of_the_recording(
    tmp_path: Path,
    format: str,
    metadata: dict[str, Any],
    options: dict[str, Any],
    times: list[float],
    rate: float,
) -> None:
    root = tmp_path / "r"
    images = scene(len(times))
    with imgstore_zarr.create(root, format, SHAPE, metadata=metadata, **options) as writer:
        for number, (image, seconds) in enumerate(zip(images, times, strict=True)):
            writer.add_image(image, number, seconds)
            # What was given belongs to the caller again.
            image[:] = 0
    with av.open(str(root / f"000000.{format.split('/')[1]}")) as container:
        shown = container.streams.video[0].average_rate
    assert shown is not None
    assert float(shown) == pytest.approx(rate, rel=1e-3)
    store = imgstore_zarr.open(root)
    assert store.index.frame_time.tolist() == times
    assert [read_barcode(image[:48]) for image, _ in store] == list(range(len(times)))


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_times_in_milliseconds_cost_nothing(tmp_path: Path, unit: float) -> None:
    # As in recordings of forks: every frame would be a key frame, and x264 spends more on slow video.
    frames = scene(60)
    root = tmp_path / "r"
    with imgstore_zarr.create(root, "avc1/mp4", SHAPE) as writer:
        for number, image in enumerate(frames):
            writer.add_image(image, number, number / 25 * unit)
    with av.open(str(root / "000000.mp4")) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert (len(keys), sum(keys)) == (60, 3)


@pytest.mark.parametrize(
    ("format", "name", "value"),
    [
        ("avc1/mp4", "crf", "18"),
        ("avc1/mp4", "crf", True),
        ("avc1/mp4", "crf", np.bool_(True)),
        ("avc1/mp4", "crf", float("nan")),
        ("avc1/mp4", "crf", [18]),
        ("avc1/mp4", "crf", 18j),
        ("avc1/mp4", "fps", "25"),
        ("mjpeg/avi", "fps", "25"),
        ("mjpeg/avi", "fps", float("inf")),
        ("mjpeg/avi", "fps", False),
        ("avc1/mp4", "fps", 0),
        ("avc1/mp4", "fps", 10**400),
        ("avc1/mp4", "gop", "12"),
        ("avc1/mp4", "gop", 12.0),
        ("avc1/mp4", "gop", True),
        ("avc1/mp4", "gop", 2**31),
        ("avc1/mp4", "gop", 0),
        ("avc1/mp4", "preset", 3),
        ("avc1/mp4", "preset", ["fast"]),
        ("avc1/mp4", "preset", "faster than light"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, format: str, name: str, value: object) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(UnsupportedFormatError, match=name):
        imgstore_zarr.create(tmp_path / "r", format, SHAPE, **options)
    assert not (tmp_path / "r").exists()


def test_options_as_numbers_of_numpy(tmp_path: Path) -> None:
    given: dict[str, Any] = {"crf": 30, "fps": 50.0, "gop": 4}
    of_numpy = {"crf": np.uint8(30), "fps": np.float32(50), "gop": np.int64(4)}
    for name, options in ("given", given), ("numpy", of_numpy):
        with imgstore_zarr.create(tmp_path / name, "avc1/mp4", SHAPE, **options) as writer:
            for number, image in enumerate(scene(12)):
                writer.add_image(image, number, number / 50)
    videos = [(tmp_path / name / "000000.mp4").read_bytes() for name in ("given", "numpy")]
    assert videos[0] == videos[1]


def test_a_chunk_keeps_the_rate_of_those_before_it_until_that_changes(tmp_path: Path) -> None:
    steps = [0.02] * 20 + [0.021] * 20 + [0.1] * 30
    times = np.cumsum([0.0, *steps])[:-1]
    with imgstore_zarr.create(tmp_path / "r", "avc1/mp4", SHAPE, chunksize=10) as writer:
        for number, (image, seconds) in enumerate(zip(scene(70), times, strict=True)):
            writer.add_image(image, number, float(seconds))
    rates = []
    for chunk in range(7):
        with av.open(str(tmp_path / "r" / f"{chunk:06d}.mp4")) as container:
            rate = container.streams.video[0].average_rate
            assert rate is not None
            rates.append(float(rate))
    assert rates == pytest.approx([50, 50, 50, 50, 50, 10, 10], rel=1e-3)


@pytest.mark.parametrize(
    ("format", "shown"), [("avc1/mp4", 2000), ("h264/mkv", 1000), ("mjpeg/avi", 1000)]
)
def test_containers_that_count_milliseconds(tmp_path: Path, format: str, shown: int) -> None:
    with imgstore_zarr.create(tmp_path / "r", format, SHAPE) as writer:
        for number, image in enumerate(scene(20)):
            writer.add_image(image, number, number / 2000)
    with av.open(str(tmp_path / "r" / f"000000.{format.split('/')[1]}")) as container:
        rate = container.streams.video[0].average_rate
        stamps = [frame.pts for frame in container.decode(video=0)]
    assert rate is not None
    assert float(rate) == pytest.approx(shown)
    assert len(set(stamps)) == 20


def test_a_key_frame_comes_about_every_second(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "avc1/mp4", SHAPE) as writer:
        for number, image in enumerate(scene(50)):
            writer.add_image(image, number, number / 12)
    with av.open(str(tmp_path / "r" / "000000.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == [0, 12, 24, 36, 48]


# Files as chunks


@pytest.mark.parametrize("move", [True, False])
@pytest.mark.parametrize("other_device", [True, False])
def test_a_file_becomes_the_next_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: bool, other_device: bool
) -> None:
    images = scene(40)
    file = encode(tmp_path / "made.mp4", images[5:25], KINDS[1])
    expected = gray(opencv_frames(file))
    content = file.read_bytes()
    root = tmp_path / "r"
    stat = Path.stat

    class OtherDevice:
        st_dev = -1
        st_ino = -1
        st_size = file.stat().st_size

    def elsewhere(path: Path, **more: Any) -> Any:
        return OtherDevice() if path == file else stat(path, **more)

    with imgstore_zarr.create(root, "avc1/mp4", SHAPE) as writer:
        for i in range(5):
            writer.add_image(images[i], i, float(i))
        with monkeypatch.context() as patch:
            if other_device:
                patch.setattr(Path, "stat", elsewhere)
            writer.insert_chunk(file, range(5, 25), map(float, range(5, 25)), move=move)
        assert writer.chunks == [0, 1]
        for i in range(25, 40):
            writer.add_image(images[i], i, float(i))
            writer.add_extra_data(step=i)
    assert file.exists() == (not move)
    assert (root / "000001.mp4").read_bytes() == content
    assert sorted(path.suffix for path in root.iterdir()) == sorted(
        [".mp4", ".npz"] * 3 + [".json", ".yaml"]
    )
    store = imgstore_zarr.open(root)
    assert store.index.frame_number.tolist() == list(range(40))
    assert store.index.frame_time.tolist() == list(range(40))
    np.testing.assert_array_equal(store.frames[5:25], expected)
    assert [read_barcode(image[:48]) for image, _ in store] == list(range(40))
    assert store.report().ok


@pytest.mark.parametrize(
    ("name", "count", "error", "message"),
    [
        ("made.mkv", 20, UnsupportedFormatError, r"does not end in \.mp4"),
        ("made.mp4", 19, InvalidMetadataError, "has 20 frames, but 19"),
        ("made.mp4", 21, InvalidMetadataError, "has 20 frames, but 21"),
        ("made.mp4", 0, InvalidMetadataError, "0 frame numbers"),
        ("small.mp4", 20, FrameMismatchError, r"\(64, 128\)"),
        ("cut.mp4", 20, CorruptChunkError, "is cut off"),
        ("none.mp4", 20, ChunkMissingError, "missing"),
        ("text.mp4", 20, CorruptChunkError, "cannot be opened as a video"),
        ("r/000000.mp4", 5, InvalidMetadataError, "is a chunk of this recording already"),
    ],
)
def test_a_file_that_cannot_become_a_chunk(
    tmp_path: Path, name: str, count: int, error: type[Exception], message: str
) -> None:
    images = scene(20)
    root = tmp_path / "r"
    encode(tmp_path / "made.mp4", images, KINDS[0])
    encode(tmp_path / "made.mkv", images, KINDS[0])
    encode(tmp_path / "small.mp4", images[:, :64], KINDS[0])
    (tmp_path / "text.mp4").write_text("no video")
    # Its list of frames comes before them.
    data = encode(tmp_path / "cut.mp4", images, FAST_START).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:-1000])
    with imgstore_zarr.create(root, "avc1/mp4", SHAPE, chunksize=5) as writer:
        for i in range(7):
            writer.add_image(images[i], i, float(i))
        before = {path: path.stat().st_size for path in tmp_path.rglob("*")}
        with pytest.raises(error, match=message):
            writer.insert_chunk(tmp_path / name, range(count), [0.0] * count)
        assert {path: path.stat().st_size for path in tmp_path.rglob("*")} == before
        writer.add_image(images[7], 7, 7.0)
    assert [read_barcode(image[:48]) for image, _ in imgstore_zarr.open(root)] == list(range(8))


def test_a_file_that_could_not_be_moved_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = encode(tmp_path / "made.mp4", scene(20), KINDS[0])
    with imgstore_zarr.create(tmp_path / "r", "avc1/mp4", SHAPE) as writer:
        writer.add_image(scene(1)[0], 0, 0.0)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", full)
            with pytest.raises(OSError, match="No space left"):
                writer.insert_chunk(file, range(20), [0.0] * 20)
        assert file.exists()
        writer.insert_chunk(file, range(1, 21), [0.0] * 20)
    store = imgstore_zarr.open(tmp_path / "r")
    assert store.index.frame_number.tolist() == list(range(21))
    assert store.report().ok


def test_a_killed_insertion_can_be_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = encode(tmp_path / "made.mp4", scene(60), KINDS[1])
    expected = gray(opencv_frames(file))
    root = tmp_path / "r"
    with imgstore_zarr.create(root, "avc1/mp4", SHAPE) as writer:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Directory, "write", full)
            with pytest.raises(OSError, match="No space left"):
                writer.insert_chunk(file, range(60), [0.0] * 60)
            shutil.copytree(root, tmp_path / "left")
        assert imgstore_zarr.repair(tmp_path / "left").ok
        # Here the index is written as soon as there is room.
        writer.flush()
    for path in (root, tmp_path / "left"):
        store = imgstore_zarr.open(path)
        np.testing.assert_array_equal(store.frames[...], expected)
        assert store.report().ok
        assert not [*path.glob("*.journal")]


# Failures


class BreakingContainer:
    """Fails once: after the packets were written, or before."""

    def __init__(self, container: Any, written: bool) -> None:
        self._container = container
        self._written = written
        self._failed = False

    def mux(self, packets: Any) -> None:
        if self._failed:
            self._container.mux(packets)
            return
        self._failed = True
        if self._written:
            self._container.mux(packets)
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        self._container.close()


def break_video(writer: imgstore_zarr.ImgStoreWriter, *, written: bool) -> None:
    sink = writer._sink
    assert isinstance(sink, VideoSink)
    encoder = sink._encoder
    assert encoder is not None
    encoder._container = BreakingContainer(encoder._container, written)  # type: ignore[assignment]


@pytest.mark.parametrize("format", ["avc1/mp4", "h264/mkv", "mjpeg/avi"])
@pytest.mark.parametrize("written", [True, False], ids=["after writing", "before writing"])
@pytest.mark.parametrize("how", ["close", "flush"])
def test_a_frame_that_could_not_be_written(
    tmp_path: Path, format: str, written: bool, how: str
) -> None:
    root = tmp_path / "r"
    images = scene(20)
    writer = imgstore_zarr.create(root, format, SHAPE, chunksize=8)
    for i in range(13):
        writer.add_image(images[i], 100 + i, float(i))
    break_video(writer, written=written)
    with pytest.raises(CorruptChunkError, match=r"chunk 1 .*frame 113.*No space left"):
        writer.add_image(images[13], 113, 13.0)
    with pytest.raises(CorruptChunkError, match=r"chunk 1 .*frame 113.*close\(\) keeps"):
        writer.add_image(images[14], 114, 14.0)
    if how == "flush":
        writer.flush()
        with pytest.raises(CorruptChunkError, match=r"chunk 1 .*frame 113"):
            writer.add_image(images[14], 114, 14.0)
    writer.close()
    assert not (root / ".lock").exists()
    store = imgstore_zarr.open(root)
    assert store.index.frame_number.tolist() == list(range(100, 113))
    assert [read_barcode(image[:48]) for image, _ in store] == list(range(13))
    assert store.report().ok


def test_the_first_frame_of_a_chunk_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "r"
    with imgstore_zarr.create(root, "avc1/mp4", SHAPE, chunksize=4) as writer:
        for i, image in enumerate(scene(4)):
            writer.add_image(image, i, float(i))

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(VideoEncoder, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                writer.add_image(scene(1)[0], 4, 4.0)
        with pytest.raises(CorruptChunkError, match=r"chunk 1 .*frame 4"):
            writer.add_image(scene(1)[0], 4, 4.0)
        writer.add_extra_data(step=3)
    assert sorted(path.name for path in root.iterdir()) == [
        "000000.extra.json",
        "000000.mp4",
        "000000.npz",
        "metadata.yaml",
    ]
    store = imgstore_zarr.open(root)
    assert [read_barcode(image[:48]) for image, _ in store] == list(range(4))


def test_a_frame_that_the_encoder_keeps_is_missed(tmp_path: Path) -> None:
    encoder = VideoEncoder(tmp_path / "v.mp4", "libx264", SHAPE, EncoderOptions())
    images = scene(12)
    encoder.write(images[0])

    class Keeping:
        codec_context = encoder._stream.codec_context

        def encode(self, frame: object) -> list[object]:
            return []

    encoder._stream = Keeping()  # type: ignore[assignment]
    for image in images[1:]:
        encoder.write(image)
    with pytest.raises(CorruptChunkError, match="of 12 frames the encoder gave 0"):
        encoder.close()


def test_after_a_failure_empty_begins_anew(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "avc1/mp4", SHAPE) as writer:
        writer.add_image(scene(1)[0], 0, 0.0)
        writer.add_image(scene(1)[0], 1, 1.0)
        break_video(writer, written=False)
        with pytest.raises(CorruptChunkError):
            writer.add_image(scene(1)[0], 2, 2.0)
        writer.empty()
        for i, image in enumerate(scene(3)):
            writer.add_image(image, i, float(i))
    store = imgstore_zarr.open(tmp_path / "r")
    assert [read_barcode(image[:48]) for image, _ in store] == list(range(3))


FULL_DISK = """
import resource, signal, sys
import numpy as np
import imgstore_zarr

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = imgstore_zarr.create(sys.argv[1], sys.argv[2], (96, 128))
noise = np.random.default_rng(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
try:
    for i in range(400):
        image = noise.integers(0, 60, (96, 128)) + i % 180
        writer.add_image(image.astype(np.uint8), i, float(i))
except imgstore_zarr.CorruptChunkError:
    pass
else:
    raise SystemExit("the file never became too large")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    writer.close()
except imgstore_zarr.CorruptChunkError as error:
    assert "are lost" in str(error), error
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="the size of files has no limit here")
@pytest.mark.parametrize("format", ["avc1/mp4", "h264/mkv", "mjpeg/avi"])
def test_no_frame_is_wrong_after_the_disk_was_full(tmp_path: Path, format: str) -> None:
    root = tmp_path / "r"
    subprocess.run([sys.executable, "-c", FULL_DISK, root, format], check=True)
    noise = np.random.default_rng(0)
    store = imgstore_zarr.open(root)
    assert store.frame_count > 30
    for position in range(store.frame_count):
        given = noise.integers(0, 60, (96, 128)) + position % 180
        image, (number, _) = store.get_image(frame_index=position)
        assert number == position
        # Its neighbours differ by about 20.
        assert np.abs(image.astype(int) - given).mean() < 8


# Metadata


@pytest.mark.parametrize(
    "value",
    [
        "\x00",
        "\x07",
        "a\x85b",
        "\ufffe",
        "x\u2028y",
        "\U0001f400 ä",
        "=",
        "2024-01-01",
        1e300,
        "~",
        "\r\n",
    ],
    ids=ascii,
)
def test_any_metadata_come_back(tmp_path: Path, value: object) -> None:
    metadata = {"a": value, str(value): [value]}
    imgstore_zarr.create(tmp_path / "r", "avc1/mp4", SHAPE, metadata=metadata).close()
    assert imgstore_zarr.open(tmp_path / "r").user_metadata == metadata
    # imgstore reads with the loader that is written in Python.
    document = yaml.load((tmp_path / "r" / "metadata.yaml").read_text(), yaml.SafeLoader)
    assert {k: v for k, v in document.items() if k != "__store"} == metadata


@pytest.mark.parametrize(
    ("metadata", "key"),
    [
        ({"good": 1, "bad": "\ud800"}, "bad"),
        ({"bad": {"deeper": ["\udfff"]}}, "bad"),
        ({"__store": "mine", "a": 1}, "__store"),
    ],
    ids=ascii,
)
def test_metadata_that_yaml_cannot_hold(tmp_path: Path, metadata: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidMetadataError, match=f"'{key}'"):
        imgstore_zarr.create(tmp_path / "r", "avc1/mp4", SHAPE, metadata=metadata)
    assert not (tmp_path / "r").exists()

"""What cannot be recorded or opened is refused with an error of ours, and leaves nothing behind."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import multiprocessing
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr.storage

import imgstore_zarr
from imgstore_zarr import (
    FrameMismatchError,
    ImgStoreError,
    InvalidMetadataError,
    RecordingAccessError,
    RecordingExistsError,
    RecordingNotFoundError,
    UnsupportedFormatError,
)
from imgstore_zarr.recording import local_timezone

SHAPE = (6, 8)
GOOD = np.random.default_rng(0).integers(0, 256, (12, *SHAPE), np.uint8)


def create(path: Any, format: str = "raw/zarr", **options: Any) -> imgstore_zarr.ImgStoreWriter:
    return imgstore_zarr.create(
        path, **{"format": format, "imgshape": SHAPE, "imgdtype": np.uint8, "chunksize": 4, **options}
    )  # fmt: skip


def nothing_in(directory: Path) -> bool:
    return not [*directory.iterdir()]


# Images, numbers and times.

BAD_IMAGES: dict[str, Any] = {
    "smaller": GOOD[0][1:],
    "transposed": GOOD[0].T,
    "colour": np.repeat(GOOD[0][..., None], 3, axis=2),
    "another dimension": GOOD[:1],
    "two channels": np.repeat(GOOD[0][..., None], 2, axis=2),
    "one channel of another size": GOOD[0].T[..., None],
    "no channel": GOOD[0][..., None][..., :0],
    "cut": GOOD[0][:, :6],
    "int8": GOOD[0].view(np.int8),
    "uint16": GOOD[0].astype(np.uint16),
    "float": GOOD[0].astype(float),
    "bool": GOOD[0] > 3,
    "objects": GOOD[0].astype(object),
    "list": GOOD[0].tolist(),
    "ragged list": [[1, 2], [3]],
    "number": 3,
    "None": None,
    "text": "image",
    "empty": np.empty(0, np.uint8),
}
BAD_NUMBERS: dict[str, Any] = {
    "float": 1.5,
    "NumPy float": np.float32(0.25),
    "inf": math.inf,
    "large float": 2.0**63,
    "NaN": math.nan,
    "text": "1",
    "None": None,
    "array": np.array([1, 2]),
    "too large": 2**63,
    "too small": -(2**63) - 1,
    "uint64": np.uint64(2**63),
    "time": dt.datetime(2020, 1, 1),
}
BAD_TIMES: dict[str, Any] = {
    "inf": math.inf,
    "-inf": -math.inf,
    "NumPy inf": np.float32("inf"),
    "text": "soon",
    "digits": "1.5",
    "too large": 10**400,
    "complex": 1j,
    "datetime": dt.datetime(2020, 1, 1),
    "list": [1.0],
    "signalling": decimal.Decimal("sNaN"),
}


@pytest.mark.parametrize("inner", [None, (4, 6, 8)], ids=["frames", "groups"])
@pytest.mark.parametrize(
    ("image", "number", "time", "error"),
    [pytest.param(bad, 7, 7.0, FrameMismatchError, id=f"image-{k}") for k, bad in BAD_IMAGES.items()]
    + [pytest.param(GOOD[0], n, 7.0, InvalidMetadataError, id=f"number-{k}")
       for k, n in BAD_NUMBERS.items()]
    + [pytest.param(GOOD[0], 7, t, InvalidMetadataError, id=f"time-{k}")
       for k, t in BAD_TIMES.items()],
)  # fmt: skip
def test_a_frame_that_cannot_be(
    tmp_path: Path, image: Any, number: Any, time: Any, error: type[ImgStoreError], inner: Any
) -> None:
    """It is refused, and the recording goes on and is right."""
    with create(tmp_path / "r", inner_chunks=inner) as writer:
        for i, good in enumerate(GOOD):
            with pytest.raises(error, match="was not written") as caught:
                writer.add_image(image, number, time)
            assert str(tmp_path / "r") in str(caught.value)
            assert len(writer) == i
            writer.add_image(good, i, float(i))
    with imgstore_zarr.open(tmp_path / "r") as store:
        np.testing.assert_array_equal(store.frames[...], GOOD)
        assert store.index.frame_number.tolist() == [*range(12)]
        assert store.index.frame_time.tolist() == [float(i) for i in range(12)]


def test_integers_and_times_of_any_type_are_taken(tmp_path: Path) -> None:
    numbers: list[Any] = [0, True, np.int8(2), np.uint64(3), 2**63 - 1, -(2**63)]
    numbers += [5.0, -0.0, np.float32(7), np.float64(-(2.0**63))]
    times: list[Any] = [0, 1.5, np.float32(2), np.int64(3), decimal.Decimal("4.5"), -1e300]
    times += [1.0, 2.0, 3.0, 4.0]
    with create(tmp_path / "r") as writer:
        for number, time in zip(numbers, times, strict=True):
            writer.add_image(GOOD[0], number, time)
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert store.index.frame_number.tolist() == [int(n) for n in numbers]
        assert store.index.frame_time.tolist() == [float(t) for t in times]


# Metadata and extra data.


def kind(value: object) -> str:
    """Name a test: the text of an object differs from process to process."""
    return type(value).__name__


@pytest.mark.parametrize(
    ("metadata", "where"),
    [
        ({"a": object()}, "metadata['a']"),
        ({"a": {"b": [0, {1, 2}]}}, "metadata['a']['b'][1]"),
        ({"a": math.nan}, "metadata['a']"),
        ({"a": [math.inf]}, "metadata['a'][0]"),
        ({"a": b"bytes"}, "metadata['a']"),
        ({"a": 1j}, "metadata['a']"),
        ({"a": np.zeros(2)}, "metadata['a']"),
        ({1: "a"}, "key 1"),
        ({"a": {(1, 2): "b"}}, "key (1, 2)"),
        ([("a", 1)], "mapping"),
        ("text", "mapping"),
    ],
)
def test_metadata_that_json_cannot_hold(tmp_path: Path, metadata: Any, where: str) -> None:
    with pytest.raises(InvalidMetadataError) as caught:
        create(tmp_path / "r", metadata=metadata)
    assert where in str(caught.value)
    assert nothing_in(tmp_path)


def test_metadata_that_contain_themselves(tmp_path: Path) -> None:
    metadata: dict[str, Any] = {}
    metadata["self"] = [metadata]
    with pytest.raises(InvalidMetadataError, match="contains itself"):
        create(tmp_path / "r", metadata=metadata)
    assert nothing_in(tmp_path)


@pytest.mark.parametrize("text", ["\ud800", "\0", "\x1b", "\U0001f41f", "---\n- a: [", "é" * 1000])
def test_any_text_can_be_metadata_and_extra_data(tmp_path: Path, text: str) -> None:
    with create(tmp_path / "r", metadata={"text": text, text: 1}) as writer:
        writer.add_image(GOOD[0], 0, 0.0)
        writer.add_extra_data(value=text, values={text: [text]})
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert store.user_metadata == {"text": text, text: 1}
        table = store.get_extra_data()
        assert table is not None
        assert table["value"][0] == text
        assert table["values"][0] == {text: [text]}
    json.loads((tmp_path / "r" / "zarr.json").read_bytes().decode())


@pytest.mark.parametrize(
    "value", [object(), {"a": object()}, [len], b"\xff", {(1, 2): 3}], ids=kind
)
def test_extra_data_that_json_cannot_hold(tmp_path: Path, value: Any) -> None:
    with create(tmp_path / "r") as writer:
        for i in range(3):
            writer.add_image(GOOD[i], i, float(i))
            with pytest.raises(InvalidMetadataError, match=r"'bad'.*not written"):
                writer.add_extra_data(good=1, bad=value)
            writer.add_extra_data(good=i)
    with imgstore_zarr.open(tmp_path / "r") as store:
        table = store.get_extra_data()
        assert table is not None
        assert table["good"].tolist() == [0, 1, 2]
        assert "bad" not in table
        np.testing.assert_array_equal(store.frames[...], GOOD[:3])


NAMES = ["", "a/b", "/a", ".a", "..", "__a", "a" * 250, "ä" * 300, "zarr.json", "a\0", "a_b", "a-b"]
NAMES += ["temp/C", "temp C", "°C", "%", "frame_index/x"]


@pytest.mark.parametrize("value", [1.5, "text"], ids=["column", "JSON"])
@pytest.mark.parametrize("format", ["raw/zarr", "npy/dir", "avc1/mp4"])
def test_names_of_fields_are_free(tmp_path: Path, format: str, value: Any) -> None:
    records = [dict.fromkeys(NAMES, value), dict.fromkeys(NAMES[::-1], value)]
    with create(tmp_path / "r", format) as writer:
        writer.add_image(GOOD[0], 7, 0.5)
        for record in records:
            writer.add_extra_data(**record)
    with imgstore_zarr.open(tmp_path / "r") as store:
        table = store.get_extra_data()
        assert table is not None
        assert table[NAMES].to_dict("records") == records
        assert table["frame_number"].tolist() == [7, 7]
        tree = store.to_datatree()["extra"]
        assert len(tree.data_vars) == len(NAMES) + 3
        assert tree["temp_C"].to_numpy().tolist() == [value, value]


def test_names_that_no_array_can_have_are_in_its_attributes(tmp_path: Path) -> None:
    with create(tmp_path / "r") as writer:
        writer.add_image(GOOD[0], 0, 0.0)
        writer.add_extra_data(**{name: i for i, name in enumerate(NAMES)})
    group = zarr.open_group(tmp_path / "r" / "extra", mode="r")
    found = {}
    for name, array in group.arrays():
        own: Any = array.attrs.get("imgstore_zarr", {})
        found[own.get("field", name)] = int(array[0])  # type: ignore[arg-type]
    assert {name: found[name] for name in NAMES} == {name: i for i, name in enumerate(NAMES)}
    assert len(found) == len(NAMES) + 3


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    with create(tmp_path / "r") as writer:
        writer.add_image(GOOD[0], 0, 0.0)
        with pytest.raises(InvalidMetadataError, match=r"cannot name a field.*not written"):
            writer.add_extra_data(**{"\ud800": 1})
        writer.add_extra_data(good=1)
    with imgstore_zarr.open(tmp_path / "r") as store:
        table = store.get_extra_data()
        assert table is not None
        assert table["good"].tolist() == [1]


@pytest.mark.parametrize("format", ["npy", "npy/dir", "avc1/mp4"])
def test_scripts_of_imgstore_go_on_without_extra_data_that_cannot_be(
    tmp_path: Path, format: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "r")
    with imgstore_zarr.new_for_format(format, path, imgshape=SHAPE, chunksize=4) as writer:
        assert isinstance(writer, imgstore_zarr.ImgStoreWriter)
        deep: Any = []
        for _ in range(100_000):
            deep = [deep]
        for i, value in enumerate((1, object(), b"\xff", {(1, 2): 3}, deep, 2)):
            writer.add_image(GOOD[i], i, float(i))
            writer.add_extra_data(value=value)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 4
    assert all(f"{path}: the extra data field 'value'" in line for line in caplog.messages)
    with imgstore_zarr.open(path) as store:
        table = store.get_extra_data()
        assert table is not None
        assert table["value"].tolist() == [1, 2]
        assert table["frame_number"].tolist() == [0, 5]


# Destinations.


@pytest.mark.parametrize("format", ["raw/zarr", "zstd/zarr", "npy", "png"])
@pytest.mark.parametrize("there", ["zarr.json", "metadata.yaml", ".inflight"])
def test_an_existing_recording_is_never_overwritten(
    tmp_path: Path, there: str, format: str
) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(RecordingExistsError, match=there.replace(".", r"\.")):
        create(tmp_path, format)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_other_files_are_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    create(tmp_path).close()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(imgstore_zarr.open(tmp_path)) == 0


def test_directories_above_are_made(tmp_path: Path) -> None:
    create(tmp_path / "a" / "b" / "c").close()
    assert len(imgstore_zarr.open(tmp_path / "a" / "b" / "c")) == 0


@pytest.mark.parametrize("below", ["", "r", "a/b"])
def test_a_file_where_a_directory_should_be(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ImgStoreError) as caught:
        create(tmp_path / "file" / below)
    assert str(tmp_path / "file") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(RecordingNotFoundError):
        imgstore_zarr.open(tmp_path / "file" / below)


def without_permission(work: Callable[[], None]) -> None:
    """Run in a process that may not do everything, as root may."""

    def child() -> None:
        if os.getuid() == 0:
            os.setuid(65534)
        work()

    # That process may not even read the interpreter's files, so what it needs is loaded here.
    local_timezone()
    process = multiprocessing.get_context("fork").Process(target=child)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of others
        process.start()
    process.join(60)
    assert process.exitcode == 0


def raises(error: type[BaseException], work: Callable[[], object], name: Path) -> None:
    try:
        work()
    except error as caught:
        assert str(name) in str(caught)  # noqa: PT017
    else:
        raise AssertionError(f"{error.__name__} was not raised")


@pytest.fixture
def everyone(tmp_path: Path) -> Path:
    """A directory that every user can reach."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    return tmp_path


def test_a_directory_that_must_not_be_written(everyone: Path) -> None:
    everyone.chmod(0o555)
    target = everyone / "r"
    without_permission(lambda: raises(RecordingAccessError, lambda: create(target), target))
    without_permission(lambda: raises(PermissionError, lambda: create(everyone), everyone))
    everyone.chmod(0o755)
    assert nothing_in(everyone)


def test_a_directory_that_must_not_be_read(everyone: Path) -> None:
    create(everyone / "r").close()
    (everyone / "r").chmod(0)

    def work() -> None:
        for place in (everyone / "r", everyone / "r" / "zarr.json"):
            raises(RecordingAccessError, partial(imgstore_zarr.open, place), everyone)
        raises(RecordingAccessError, lambda: create(everyone / "r"), everyone)

    without_permission(work)
    (everyone / "r").chmod(0o755)
    assert len(imgstore_zarr.open(everyone / "r")) == 0


@pytest.mark.parametrize("key", ["zarr.json", "frame_number/c/0", "image/c/0/0/0"])
def test_a_file_that_must_not_be_read(everyone: Path, key: str) -> None:
    with create(everyone / "r") as writer:
        writer.add_image(GOOD[0], 0, 0.0)
    (everyone / "r" / key).chmod(0)

    def work() -> None:
        read: Callable[[], object] = lambda: imgstore_zarr.open(everyone / "r").frames[0]  # noqa: E731
        raises(RecordingAccessError, read, everyone)

    without_permission(work)


def test_repair_of_what_must_not_be_written(everyone: Path) -> None:
    with create(everyone / "r") as writer:
        writer.add_image(GOOD[0], 0, 0.0)
        writer.flush()
        everyone.chmod(0o555)
        place = everyone / "r"
        without_permission(
            lambda: raises(RecordingAccessError, lambda: imgstore_zarr.repair(place), place)
        )
        everyone.chmod(0o755)


def test_a_recording_that_cannot_be_begun_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgstore_zarr.storage import Directory

    written = []

    def write(self: Directory, key: str, data: Any, *, durable: bool = False) -> None:
        written.append(key)
        if key == "zarr.json":
            raise OSError(28, "No space left on device")
        (self.root / key).parent.mkdir(parents=True, exist_ok=True)
        (self.root / key).write_bytes(data)

    (tmp_path / "r" / "image").mkdir(parents=True)
    (tmp_path / "r" / "image" / "notes.txt").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(Directory, "write", write)
        with pytest.raises(RecordingAccessError, match="No space left"):
            create(tmp_path / "r")
    assert len(written) > 1
    assert [*(tmp_path / "r").rglob("*")] == [
        tmp_path / "r" / "image", tmp_path / "r" / "image" / "notes.txt"
    ]  # fmt: skip
    create(tmp_path / "r").close()


def test_a_full_disk_while_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call says which frame did not fit; it is kept, and stored when there is room again."""
    real = os.pwritev

    def full(descriptor: int, buffers: Any, offset: int) -> int:
        raise OSError(28, "No space left on device")

    for inner in (None, (2, 6, 8)):
        path = tmp_path / str(inner)
        with create(path, "zstd/zarr", inner_chunks=inner) as writer:
            for i, image in enumerate(GOOD):
                if i % 2 == 0:
                    writer.add_image(image, i, float(i))
                    continue
                monkeypatch.setattr(os, "pwritev", full)
                writer.add_image(image, i, float(i))
                for _ in range(2):
                    with pytest.raises(
                        OSError, match=r"No space left.*position.*make room"
                    ) as caught:
                        writer.add_image(image, 99, 99.0)
                    assert caught.value.errno == 28
                    assert f"frame {i if inner is None else i - 1} (position" in str(caught.value)
                    assert len(writer) == i + 1
                monkeypatch.setattr(os, "pwritev", real)
        with imgstore_zarr.open(path) as store:
            np.testing.assert_array_equal(store.frames[...], GOOD)
            assert store.index.frame_number.tolist() == [*range(len(GOOD))]


# What create does not know.


@pytest.mark.parametrize("format", ["", "gif", "raw", "zarr", "RAW/ZARR", "avc1/zarr", None, 3])
def test_unknown_formats(tmp_path: Path, format: Any) -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        create(tmp_path / "r", format)
    assert repr(format) in str(caught.value)
    for known in imgstore_zarr.get_supported_formats():
        assert known in str(caught.value)
    assert nothing_in(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"crf": 3}, {"typo": None}, {"chunksize": 0}, {"chunksize": -4}, {"chunksize": 2**40},
        {"chunksize": "many"}, {"chunksize": 2.5}, {"imgshape": ()}, {"imgshape": (6,)},
        {"imgshape": (6, 0)}, {"imgshape": (6, -8)}, {"imgshape": (6, 8, 3, 1)},
        {"imgshape": ("6", "x")}, {"imgshape": (6.5, 8)}, {"imgshape": None}, {"imgshape": 6},
        {"imgdtype": "nonsense"}, {"imgdtype": object}, {"imgdtype": complex},
        {"imgdtype": "datetime64[s]"}, {"inner_chunks": ()}, {"inner_chunks": (1, 6)},
        {"inner_chunks": (1, 6, 8, 3)}, {"inner_chunks": (0, 6, 8)}, {"inner_chunks": (1, 6, -8)},
        {"inner_chunks": (3, 6, 8)}, {"inner_chunks": (8, 6, 8)}, {"inner_chunks": ("x", 6, 8)},
        {"inner_chunks": 4}, {"encoding": "cv_nonsense"},
        {"encoding": "cv_bayerrg", "imgdtype": np.float64}, {"encoding": 5},
        {"format": "pgm", "imgdtype": np.float32},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_created(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFormatError):
        create(tmp_path / "r", **options)
    assert nothing_in(tmp_path)


def test_an_inner_chunk_that_blosc_cannot_take(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="Blosc"):
        create(tmp_path / "r", "zstd/zarr", imgshape=(50_000, 50_000))
    assert nothing_in(tmp_path)


@pytest.mark.parametrize("location", [None, 3, object(), "", "gopher://x/y"], ids=kind)
def test_locations_that_are_none(location: Any) -> None:
    with pytest.raises(ImgStoreError):
        imgstore_zarr.open(location)
    with pytest.raises(ImgStoreError):
        create(location)


# What is no recording.


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(RecordingNotFoundError, match="does not exist"):
        imgstore_zarr.open(tmp_path / "r")
    with pytest.raises(FileNotFoundError):
        imgstore_zarr.open(zarr.storage.MemoryStore())
    assert nothing_in(tmp_path)


def test_a_directory_that_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for open_ in (imgstore_zarr.open, imgstore_zarr.repair):
        with pytest.raises(RecordingNotFoundError) as caught:
            open_(tmp_path)
        for word in (str(tmp_path), "metadata.yaml", "zarr.json"):
            assert word in str(caught.value)
    assert len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("kind", ["group", "array", "version 2"])
def test_zarr_that_is_no_recording(tmp_path: Path, kind: str) -> None:
    if kind == "array":
        zarr.create_array(tmp_path / "z", shape=(3,), dtype="u1")
    else:
        zarr.open_group(tmp_path / "z", mode="w", zarr_format=2 if kind == "version 2" else 3)
    with pytest.raises(RecordingNotFoundError, match="no recording"):
        imgstore_zarr.open(tmp_path / "z")


def test_zarr_json_that_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "r" / "zarr.json").mkdir(parents=True)
    with pytest.raises(ImgStoreError):
        imgstore_zarr.open(tmp_path / "r")


def test_a_writer_used_after_close(tmp_path: Path) -> None:
    with create(tmp_path / "r") as writer:
        writer.add_image(GOOD[0], 0, 0.0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    uses: list[Callable[[], object]] = [
        lambda: writer.add_image(GOOD[1], 1, 1.0),
        lambda: writer.add_extra_data(a=1),
        writer.flush,
        writer.empty,
    ]
    for use in uses:
        with pytest.raises(ImgStoreError, match="closed"):
            use()
    writer.close()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert len(writer) == 1


@pytest.mark.parametrize("format", ["mjpeg/avi", "png/dir", "raw/zarr"])
def test_a_file_inside_a_recording(tmp_path: Path, format: str) -> None:
    root = tmp_path / "r"
    with imgstore_zarr.create(root, format, (16, 16, 3), chunksize=2) as writer:
        for i in range(3):
            writer.add_image(np.zeros((16, 16, 3), np.uint8), i, float(i))
    files = [path for path in root.rglob("*") if path.is_file()]
    files = [path for path in files if path.name not in ("metadata.yaml", "zarr.json")]
    assert len(files) > 3
    for path in [*files, *root.glob("00000?")]:
        with pytest.raises(
            RecordingNotFoundError, match=f"lies in the recording {root}: open that"
        ):
            imgstore_zarr.open(path)


def test_a_video_by_itself(tmp_path: Path) -> None:
    video = tmp_path / "mouse.MP4"
    video.write_bytes(b"frames")
    with pytest.raises(RecordingNotFoundError, match=r"a video by itself .*convert"):
        imgstore_zarr.open(video)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RecordingNotFoundError, match="a recording is a directory"):
        imgstore_zarr.open(tmp_path / "notes.txt")


@pytest.mark.parametrize("format", ["mjpeg/avi", "png/dir"])
def test_chunks_without_metadata(tmp_path: Path, format: str) -> None:
    with imgstore_zarr.create(tmp_path / "r", format, (16, 16)) as writer:
        writer.add_image(np.zeros((16, 16), np.uint8), 0, 0.0)
    (tmp_path / "r" / "metadata.yaml").unlink()
    for call in (imgstore_zarr.open, imgstore_zarr.repair):
        with pytest.raises(RecordingNotFoundError, match=r"has chunks \(000000.* but no metadata"):
            call(tmp_path / "r")

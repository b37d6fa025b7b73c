"""What the real imgstore 0.4.0 reads, this project reads, and the same from it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr import FrameNotFoundError
from tests.reference import Reference, ours
from tests.test_motif import SHAPE, small, write_chunk, write_metadata
from tests.videos import KINDS, Kind, encode, scene

# The first test may have to make the reference's environment.
pytestmark = pytest.mark.timeout(600)

few = settings(
    max_examples=settings().max_examples // 10,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

Call = tuple[str, dict[str, Any]]
Outcome = dict[str, Any]


def agree(mine: Sequence[Outcome], theirs: Sequence[Outcome], calls: Sequence[Call]) -> None:
    """The same images and numbers; errors that the same ``except`` clause catches."""
    assert len(mine) == len(theirs) == len(calls)
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        where = f"after {calls[:i]}: {calls[i]}: {a} but imgstore {b}"
        assert ("raised" in a) == ("raised" in b), where
        if "raised" in a:
            assert b["raised"]["builtins"][0] in a["raised"]["builtins"], where
        else:
            assert a["got"] == b["got"], where
        assert a["at"] == b["at"], where


def to_table(columns: list[list[Any]] | None) -> pd.DataFrame:
    """The table that `extra_data` of the worker tells of; empty where there is none."""
    if columns is None:
        return pd.DataFrame()
    return pd.DataFrame(
        {
            name: pd.Series(values, dtype=dtype if dtype[0] in "iuf" else None)
            for name, dtype, values in columns
        }
    )


def same_recording(
    path: Path, reference: Reference, but: Sequence[str] = (), decode: bool = True
) -> None:
    """Everything that both say, and every image from the first to the last."""
    mine, theirs = ours("describe", path=path), reference("describe", path=path)
    for name in but:
        assert mine.pop(name) != theirs.pop(name), f"{name} differs no more"
    assert mine == theirs
    pd.testing.assert_frame_equal(
        to_table(ours("extra_data", path=path)), to_table(reference("extra_data", path=path))
    )
    calls: list[Call] = [("get_next_image", {})] * (theirs["frame_count"] + 1)
    agree(
        ours("perform", path=path, calls=calls, decode=decode),
        reference("perform", path=path, calls=calls, decode=decode),
        calls,
    )


def calls_on(numbers: Sequence[int], times: Sequence[float]) -> st.SearchStrategy[list[Call]]:
    """Calls on a store, most of which find a frame."""
    number = st.sampled_from(numbers) | st.integers(min(numbers) - 3, max(numbers) + 3)
    time = st.sampled_from(times) | st.floats(min(times) - 1, max(times) + 1)
    one = st.one_of(
        st.builds(lambda n: ("get_image", {"frame_number": n}), number),
        st.builds(lambda n: ("get_image", {"frame_number": n, "exact_only": False}), number),
        st.builds(
            lambda i: ("get_image", {"frame_number": None, "frame_index": i}),
            st.integers(-2, len(numbers) + 2),
        ),
        st.builds(lambda t: ("get_nearest_image", {"frame_time": t}), time),
        st.just(("get_next_image", {})),
        st.just(("get_next_image", {})),
        st.just(("get_next_framenumber", {})),
    )
    to_end: list[Call] = [
        ("get_image", {"frame_number": None, "frame_index": len(numbers) - 1}),
        ("get_next_framenumber", {}),
        ("get_next_image", {}),
    ]
    one_or_end = st.one_of(one.map(lambda call: [call]), st.just(to_end))
    return st.lists(one_or_end, min_size=1, max_size=12).map(
        lambda lists: list(chain.from_iterable(lists))
    )


# Directories of images, which imgstore writes.

ENCODINGS = ("cv_bayerrg", "cv_bayerbg", "cv_bayergr", "cv_bayergb")


@dataclass(frozen=True)
class Directory:
    """A recording that imgstore is asked for."""

    format: str
    imgshape: tuple[int, ...] = (7, 9)
    dtype: str = "uint8"
    encoding: str | None = None

    def __str__(self) -> str:
        shape = "x".join(map(str, self.imgshape))
        return "-".join(filter(None, (self.format, shape, self.dtype, self.encoding)))


DIRECTORIES = [
    *(
        Directory(format, shape)
        for format in ("npy", "png", "tif", "bmp", "ppm", "pgm", "jpg")
        for shape in ((12, 16), (7, 9), (12, 16, 3), (7, 9, 3))
    ),
    *(
        Directory(f"{image}+color", shape, encoding=encoding)
        for image in ("png", "tif", "bmp", "jpg")
        for shape, encoding in (
            ((12, 16), "cv_bayerrg"),
            ((7, 9), "cv_bayergb"),
            ((7, 9), None),
            ((7, 9, 3), None),
        )
    ),
    *(
        Directory(format, (8, 10), encoding=encoding)
        for format in ("npy", "png", "tif", "bmp", "pgm")
        for encoding in ENCODINGS
    ),
    *(
        Directory("npy", shape, dtype)
        for dtype in ("uint16", "int32", "float32", "float64")
        for shape in ((7, 9), (7, 9, 3))
    ),
]


def random_images(count: int, shape: tuple[int, ...], dtype: str = "uint8") -> NDArray[Any]:
    rng = np.random.default_rng(count)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=(count, *shape)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, (count, *shape), dtype, endpoint=True)


def steps_for(
    numbers: Sequence[int], times: Sequence[float], extra: Sequence[dict[str, Any]] = ()
) -> list[Call]:
    """Add an image for each number, and after it the extra data that belong to it."""
    steps: list[Call] = []
    for i, (number, time) in enumerate(zip(numbers, times, strict=True)):
        arguments = {"image": i, "frame_number": number, "frame_time": time}
        steps.append(("add_image", arguments))
        if i < len(extra) and extra[i]:
            steps.append(("add_extra_data", extra[i]))
    return steps


NUMBERS = [-3, -2, 0, 1, 5, 5, 6, 4, 5, 100, 101]
TIMES = [1.7e9 + n / 8 for n in (0, 1, 3, 4, 8, 9, 9, 10, 7, 200, 201)]
EXTRA: list[dict[str, Any]] = [
    {"temperature": 20 + i / 7, "label": f"at {i}", "list": [i, [i]], "on": i % 2 == 0, "n": i}
    if i % 3
    else {}
    for i in range(len(NUMBERS))
]
METADATA = {
    "animal": "fly ä",
    "gain": 3.5,
    "nested": {"a": [1, None, True]},
    "timezone": "Asia/Tokyo",
}


def write_directory(reference: Reference, root: Path, wanted: Directory) -> Path:
    images = root.with_suffix(".npy")
    np.save(images, random_images(len(NUMBERS), wanted.imgshape, wanted.dtype))
    reference(
        "record",
        path=root,
        format=wanted.format,
        images=images,
        steps=steps_for(NUMBERS, TIMES, EXTRA),
        chunksize=4,
        encoding=wanted.encoding,
        metadata=METADATA,
    )
    return root


def differing(format: str, imgshape: tuple[int, ...]) -> Sequence[str]:
    """What is said otherwise on purpose: pgm keeps the gray of colour, which imgstore calls lossless."""
    return ("lossless",) if format.startswith("pgm") and len(imgshape) == 3 else ()


@pytest.mark.parametrize("wanted", DIRECTORIES, ids=str)
def test_directories(reference: Reference, tmp_path: Path, wanted: Directory) -> None:
    root = write_directory(reference, tmp_path / "r", wanted)
    but = differing(wanted.format, wanted.imgshape)
    same_recording(root, reference, but)
    same_recording(root, reference, but, decode=False)
    positions = list(range(len(NUMBERS)))
    assert ours("only_frames", path=root, positions=positions) == reference(
        "only_frames", path=root, positions=positions
    )


@pytest.fixture(scope="module")
def directory(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("directory") / "r"
    return write_directory(reference, root, Directory("png", (7, 9, 3)))


@few
@given(calls=calls_on(NUMBERS, TIMES))
def test_calls_on_a_directory(reference: Reference, directory: Path, calls: list[Call]) -> None:
    agree(
        ours("perform", path=directory, calls=calls),
        reference("perform", path=directory, calls=calls),
        calls,
    )


frames_of_any_index = st.lists(
    st.tuples(
        st.integers(-(2**40), 2**40) | st.integers(-5, 5),
        st.floats(-1e3, 2e9, width=32),
        st.just({}) | st.dictionaries(st.sampled_from("abc"), st.integers() | st.text(max_size=3)),
    ),
    min_size=1,
    max_size=9,
)


@few
@given(data=st.data(), frames=frames_of_any_index, chunksize=st.integers(1, 5))
def test_any_index(
    reference: Reference,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    frames: list[tuple[int, float, dict[str, Any]]],
    chunksize: int,
) -> None:
    numbers, times, extra = (list(column) for column in zip(*frames, strict=True))
    root = tmp_path_factory.mktemp("any") / "r"
    images = root.with_suffix(".npy")
    np.save(images, random_images(len(frames), (3, 4)))
    reference(
        "record",
        path=root,
        format="npy",
        images=images,
        steps=steps_for(numbers, times, extra),
        chunksize=chunksize,
    )
    same_recording(root, reference)
    calls = data.draw(calls_on(numbers, times))
    agree(
        ours("perform", path=root, calls=calls), reference("perform", path=root, calls=calls), calls
    )
    shutil.rmtree(root.parent)


# Video

COUNT = 40


def write_video(root: Path, kind: Kind, color: bool, **store: Any) -> tuple[list[int], list[float]]:
    """Two chunks as Motif writes them, with numbers that start above 0 and skip."""
    write_metadata(
        root,
        METADATA,
        imgshape=[*SHAPE, 3] if color else list(SHAPE),
        extension=kind.suffix,
        chunksize=COUNT // 2,
        **store,
    )
    numbers = [*range(100, 125), *range(137, 137 + COUNT - 25)]
    times = [1.7e9 + number / 25 for number in numbers]
    images = scene(COUNT)
    for chunk, start in enumerate(range(0, COUNT, COUNT // 2)):
        span = slice(start, start + COUNT // 2)
        write_chunk(root, chunk, images[span], numbers[span], times[span], kind)
        records = [
            {"v": i / 3, "frame_time": times[i], "frame_number": numbers[i], "frame_index": i}
            for i in range(start, start + COUNT // 2, 3)
        ]
        (root / f"{chunk:06d}.extra.json").write_text(json.dumps(records))
    return numbers, times


VIDEOS = {
    kind.name: kind
    for kind in KINDS
    if kind.name
    in {
        "plain",
        "b-frames",
        "open-gop",
        "one-gop",
        "key-frames",
        "intra-refresh",
        "yuv444p",
        "ten-bit",
        "variable-rate",
        "late-start",
        "b-frames-avi",
        "ffv1",
        "hevc",
        "gray",
        "mkv",
        "mjpeg",
        "mpeg4",
        "plain-avi",
    }
}


@pytest.mark.parametrize("color", [False, True], ids=["gray", "color"])
@pytest.mark.parametrize("kind", VIDEOS.values(), ids=VIDEOS)
def test_videos(reference: Reference, tmp_path: Path, kind: Kind, color: bool) -> None:
    write_video(tmp_path / "r", kind, color)
    same_recording(tmp_path / "r", reference)


@pytest.mark.parametrize("shape", [(48, 64), (47, 65), (48, 64, 3), (47, 65, 3)], ids=str)
@pytest.mark.parametrize(("format", "count"), [("mjpeg", 11), ("mjpeg/avi", 8)])
def test_videos_by_imgstore(
    reference: Reference, tmp_path: Path, format: str, count: int, shape: tuple[int, ...]
) -> None:
    root, images = tmp_path / "r", tmp_path / "images.npy"
    # OpenCV's encoder takes no odd sizes, which imgstore leaves to its user.
    even = (shape[0] & -2, shape[1] & -2, *shape[2:])
    np.save(images, random_images(len(NUMBERS), even))
    reference(
        "record",
        path=root,
        format=format,
        images=images,
        imgshape=even,
        steps=steps_for(NUMBERS[:count], TIMES[:count], EXTRA),
        chunksize=4,
        metadata=METADATA,
    )
    metadata = yaml.safe_load((root / "metadata.yaml").read_text())
    metadata["__store"]["imgshape"] = list(shape)
    (root / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    same_recording(root, reference)


@pytest.fixture(scope="module", params=["b-frames", "open-gop", "one-gop", "mkv", "mjpeg"])
def video(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[int], list[float]]:
    root = tmp_path_factory.mktemp("video") / "r"
    return root, *write_video(root, VIDEOS[request.param], color=False)


@few
@given(data=st.data())
def test_calls_on_videos(
    reference: Reference, video: tuple[Path, list[int], list[float]], data: st.DataObject
) -> None:
    path, numbers, times = video
    calls = data.draw(calls_on(numbers, times))
    # Whether it seeks, or decodes from the start of the chunk.
    theirs = reference("perform", path=path, calls=calls, seek=data.draw(st.booleans()))
    agree(ours("perform", path=path, calls=calls), theirs, calls)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_videos_of_raw_cameras(reference: Reference, tmp_path: Path, encoding: str) -> None:
    write_video(tmp_path / "r", VIDEOS["b-frames"], color=False, encoding=encoding)
    same_recording(tmp_path / "r", reference)
    same_recording(tmp_path / "r", reference, decode=False)


# Metadata

VARIANTS: dict[str, dict[str, Any]] = {
    "chunksize as float": {"chunksize": 4500.0},
    "encoding null": {"encoding": None},
    "no uuid": {"uuid": None},
    "no extension": {"extension": None, "format": "libx264"},
    "no extension, any format": {"extension": None, "format": "mp4v/mp4"},
    "imgstore's": {"class": "VideoImgStore", "format": "avc1/mp4"},
    "nvenc": {"format": "nvenc-h264"},
    "odd, cut": {"imgshape": [97, 129], "format": "nvenc-h264"},
    "odd, cut, class of imgstore": {
        "imgshape": [97, 129],
        "class": "VideoImgStore",
        "format": "avc1/mp4",
    },
    "of a fork": {"framerate": 15, "roi": [0, 0, 4, 4], "format": "h264/avi"},
    "aware date": {"created_utc": "2024-03-01T10:20:30+02:00"},
    "date without fraction": {"created_utc": "2024-03-01T10:20:30"},
    "date with a space": {"created_utc": "2024-03-01 10:20:30.5"},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_variants_of_metadata(
    reference: Reference, tmp_path: Path, variant: dict[str, Any]
) -> None:
    root = small(tmp_path / "recording")
    write_metadata(root, METADATA, **variant)
    if variant.get("encoding", "") is None:
        document = yaml.safe_load((root / "metadata.yaml").read_text())
        document["__store"]["encoding"] = None
        (root / "metadata.yaml").write_text(yaml.safe_dump(document))
    same_recording(root, reference)


@pytest.mark.parametrize(
    "name",
    [
        "mouse.20190604_153015",
        "mouse.20190604_153015.d825r6.22395",
        "20190604_153015",
        "a20190604_153015_20200101_000000",
        "mouse",
        "mouse.19990604_153015",
    ],
)
@pytest.mark.parametrize("timezone", [None, "America/New_York", "Nowhere/At_All"])
def test_dates_of_old_recordings(
    reference: Reference, tmp_path: Path, name: str, timezone: str | None
) -> None:
    root = small(tmp_path / name)
    user = {"timezone": timezone} if timezone else {}
    write_metadata(root, user, created_utc=None, timezone_local=None, format="libx264")
    os.utime(root / "metadata.yaml", (1.5e9, 1.5e9 + 0.25))
    same_recording(root, reference)


@pytest.mark.parametrize("extra", ["000000.extra_data.json", "000000.extra.json", "both"])
def test_extra_data_of_motif(reference: Reference, tmp_path: Path, extra: str) -> None:
    root = small(tmp_path / "recording")
    records = [
        {"frame_index": i, "frame_number": n, "frame_time": i / 2, "sensor_time": s, "v": i}
        for i, n, s in ((3, 13, 1.0), (1, 11, 2.0), (1, 11, 1.5), (2, -1, 0.0))
    ]
    names = ["000000.extra_data.json", "000000.extra.json"] if extra == "both" else [extra]
    for name in names:
        (root / name).write_text(json.dumps(records))
    same_recording(root, reference)


def inserted(reference: Reference, root: Path) -> Path:
    """A recording into which imgstore inserted two videos."""
    images, kind = root.with_suffix(".npy"), next(k for k in KINDS if k.name == "mjpeg")
    frames = scene(20)
    np.save(images, frames)
    insertions: list[Call] = []
    for start in (0, 10):
        span = range(start, start + 10)
        video = encode(root.with_name(f"video{start}.avi"), frames[start : start + 10], kind)
        numbers, times = [i - 4 for i in span], [i / 25 for i in span]
        given = {"video_path": str(video), "frame_numbers": numbers, "frame_times": times}
        insertions.append(("insert_chunk", given))
    reference("record", path=root, format="mjpeg", images=images, steps=insertions, chunksize=10)
    return root


def test_chunks_that_imgstore_inserted(reference: Reference, tmp_path: Path) -> None:
    root = inserted(reference, tmp_path / "r")
    # What imgstore leaves behind.
    assert (root / "000002.npz").exists()
    same_recording(root, reference)
    (problem,) = imgstore_zarr.open(root).report().problems
    assert (problem.kind, problem.chunk) == ("index-left-over", 2)
    with pytest.raises(FrameNotFoundError):
        imgstore_zarr.extract_only_frame(root, 20)
    imgstore_zarr.open(root).reindex()
    assert imgstore_zarr.open(root).report().ok
    same_recording(root, reference)


def test_extra_data_of_no_chunk(reference: Reference, tmp_path: Path) -> None:
    root = small(tmp_path / "recording")
    for chunk in (0, 1, 9):
        records = [{"a": chunk, "frame_index": chunk, "frame_number": chunk}]
        (root / f"{chunk:06d}.extra.json").write_text(json.dumps(records))
    same_recording(root, reference)


@pytest.mark.parametrize("layout", ["directory", "video"])
def test_the_index_as_sqlite(
    reference: Reference, tmp_path: Path, directory: Path, layout: str
) -> None:
    root = directory if layout == "directory" else small(tmp_path / "recording")

    def dump(run: Callable[..., Any], name: str) -> list[str]:
        path = tmp_path / name
        run("save_index", path=root, destination=path)
        connection = sqlite3.connect(path)
        try:
            lines = list(connection.iterdump())
        finally:
            connection.close()
        return sorted(lines)

    assert dump(ours, "ours.sqlite") == dump(reference, "theirs.sqlite")

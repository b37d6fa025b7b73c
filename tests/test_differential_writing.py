"""What this project writes as imgstore does, the real imgstore 0.4.0 reads, and the same from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.reference import Reference, ours
from tests.test_differential_reading import (
    EXTRA,
    METADATA,
    NUMBERS,
    TIMES,
    Call,
    differing,
    random_images,
    same_recording,
    steps_for,
)
from tests.videos import scene

# The first test may have to make the reference's environment.
pytestmark = pytest.mark.timeout(600)

few = settings(
    max_examples=settings().max_examples // 10,
    suppress_health_check=[HealthCheck.too_slow],
)

VIDEO_FORMATS = ("avc1/mp4", "h264/mkv", "mjpeg/avi", "mjpeg")


def write(root: Path, format: str, images: NDArray[Any], **options: Any) -> Path:
    file = root.with_suffix(".npy")
    np.save(file, images)
    steps = steps_for(NUMBERS, TIMES, EXTRA)
    ours(
        "record",
        path=root,
        format=format,
        images=file,
        steps=steps,
        chunksize=4,
        metadata=METADATA,
        **options,
    )
    return root


@pytest.mark.parametrize("shape", [(48, 64), (47, 65), (48, 64, 3), (47, 65, 3)], ids=str)
@pytest.mark.parametrize("format", VIDEO_FORMATS)
def test_videos(reference: Reference, tmp_path: Path, format: str, shape: tuple[int, ...]) -> None:
    images = scene(len(NUMBERS), (shape[0], shape[1]))
    if len(shape) == 3:
        images = np.stack([images, np.roll(images, 5, 1), 255 - images], axis=-1)
    same_recording(write(tmp_path / "r", format, images), reference)


@pytest.mark.parametrize("format", VIDEO_FORMATS)
def test_videos_of_raw_cameras(reference: Reference, tmp_path: Path, format: str) -> None:
    images = random_images(len(NUMBERS), (48, 64))
    root = write(tmp_path / "r", format, images, encoding="cv_bayerrg")
    same_recording(root, reference)
    same_recording(root, reference, decode=False)


def saved_by(reference: Reference, root: Path) -> NDArray[Any]:
    """The images that imgstore reads."""
    destination = root.with_suffix(".theirs.npy")
    reference("save_frames", path=root, destination=destination)
    images: NDArray[Any] = np.load(destination)
    return images


def written_by_both(
    reference: Reference, root: Path, format: str, images: NDArray[Any], **options: Any
) -> tuple[Path, Path]:
    """Two recordings of the same images by the same calls: of imgstore, and of this project."""
    root.mkdir()
    np.save(root / "images.npy", images)
    options = {"images": root / "images.npy", "chunksize": 3, **options}
    reference("record", path=root / "theirs", format=format.removesuffix("/dir"), **options)
    ours("record", path=root / "ours", format=format, **options)
    return root / "theirs", root / "ours"


# Those that the encoders of OpenCV's wheels can write, too.
BOTH_WRITE = ["png/dir", "tif/dir", "bmp/dir", "npy/dir", "jpg", "mjpeg"]


@pytest.mark.parametrize("format", BOTH_WRITE)
def test_whole_floats_as_frame_numbers(reference: Reference, tmp_path: Path, format: str) -> None:
    numbers = [5.0, 6.0, 9.0, -2.0, 1e6]
    theirs, mine = written_by_both(
        reference,
        tmp_path / "r",
        format,
        scene(5, (48, 64)),
        steps=steps_for(numbers, TIMES[:5]),  # type: ignore[arg-type]
    )
    for said in (reference("describe", path=theirs), reference("describe", path=mine)):
        assert said["frame_metadata"]["frame_number"] == [5, 6, 9, -2, 10**6]
    same_recording(mine, reference)


@pytest.mark.parametrize("imgshape", [(48, 64), (48, 64, 3)], ids=str)
@pytest.mark.parametrize("format", BOTH_WRITE)
def test_gray_images_with_a_channel(
    reference: Reference, tmp_path: Path, format: str, imgshape: tuple[int, ...]
) -> None:
    theirs, mine = written_by_both(
        reference,
        tmp_path / "r",
        format,
        scene(5, (48, 64))[..., np.newaxis],
        imgshape=imgshape,
        steps=steps_for(NUMBERS[:5], TIMES[:5]),
    )
    same_recording(mine, reference)
    expected, found = saved_by(reference, theirs), saved_by(reference, mine)
    if format == "npy/dir":  # imgstore saves what it is given, whatever metadata.yaml says
        assert expected.shape == (5, 48, 64, 1)
        expected = np.broadcast_to(
            expected if len(imgshape) == 3 else expected[..., 0], found.shape
        )
    assert found.shape == (5, *imgshape)
    # Two encoders do not lose the same.
    most = {"mjpeg": 24, "jpg": 8}.get(format, 0)
    np.testing.assert_allclose(found.astype(int), expected, atol=most)


@pytest.mark.parametrize("channels", [(), (1,), (3,)], ids=str)
@pytest.mark.parametrize("size", [(47, 65), (48, 65), (47, 64)], ids=str)
def test_images_that_are_cut_to_even_sizes_already(
    reference: Reference, tmp_path: Path, size: tuple[int, int], channels: tuple[int, ...]
) -> None:
    images = scene(5, size)
    if channels:
        images = np.repeat(images[..., np.newaxis], channels[0], axis=-1)
    imgshape = (*size, 3) if channels == (3,) else size
    options = {"imgshape": imgshape, "steps": steps_for(NUMBERS[:5], TIMES[:5])}
    height, width = (n & -2 for n in size)
    _, whole = written_by_both(reference, tmp_path / "whole", "mjpeg", images, **options)
    cut = np.ascontiguousarray(images[:, :height, :width])
    theirs, mine = written_by_both(reference, tmp_path / "cut", "mjpeg", cut, **options)
    same_recording(mine, reference)
    found = saved_by(reference, mine)
    np.testing.assert_array_equal(found, saved_by(reference, whole))
    np.testing.assert_allclose(found.astype(int), saved_by(reference, theirs), atol=24)


LOSSLESS = [
    *(
        (format, shape, "uint8")
        for format in ("npy/dir", "png/dir", "tif/dir", "bmp/dir")
        for shape in ((7, 9), (8, 10, 3))
    ),
    ("ppm/dir", (7, 9, 3), "uint8"),
    ("pgm/dir", (7, 9), "uint8"),
    *(("npy/dir", (7, 9), dtype) for dtype in ("uint16", "int64", "float32", "float64")),
]


@pytest.mark.parametrize(("format", "shape", "dtype"), LOSSLESS, ids=str)
def test_lossless_directories(
    reference: Reference, tmp_path: Path, format: str, shape: tuple[int, ...], dtype: str
) -> None:
    images = random_images(len(NUMBERS), shape, dtype)
    root = write(tmp_path / "r", format, images)
    same_recording(root, reference)
    np.testing.assert_array_equal(saved_by(reference, root), images)


OTHERS = [
    ("ppm/dir", (7, 9), None),
    ("pgm/dir", (7, 9, 3), None),
    ("jpg", (7, 9), None),
    ("jpg", (7, 9, 3), None),
    *(
        (f"{image}+color/dir", shape, encoding)
        for image in ("png", "tif", "bmp")
        for shape, encoding in (((8, 10), "cv_bayerrg"), ((7, 9), None), ((7, 9, 3), None))
    ),
    ("jpg+color", (8, 10), "cv_bayerbg"),
    ("jpg+color", (7, 9, 3), None),
    *((f"{image}/dir", (8, 10), "cv_bayergb") for image in ("npy", "png", "tif", "bmp", "pgm")),
]


@pytest.mark.parametrize(("format", "shape", "encoding"), OTHERS, ids=str)
def test_directories_as_imgstore_writes_them(
    reference: Reference,
    tmp_path: Path,
    format: str,
    shape: tuple[int, ...],
    encoding: str | None,
) -> None:
    images = random_images(len(NUMBERS), shape)
    root = write(tmp_path / "ours", format, images, encoding=encoding)
    same_recording(root, reference, differing(format, shape))
    theirs = tmp_path / "theirs"
    reference(
        "record",
        path=theirs,
        format=format.removesuffix("/dir"),
        images=root.with_suffix(".npy"),
        steps=steps_for(NUMBERS, TIMES),
        chunksize=4,
        encoding=encoding,
    )
    np.testing.assert_array_equal(saved_by(reference, root), saved_by(reference, theirs))


values = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
)
records = st.dictionaries(st.sampled_from(["a", "b", "ä c"]), values, min_size=1)
IMAGES = scene(5, (16, 16))

a_step: st.SearchStrategy[Call] = st.one_of(
    st.builds(
        lambda image, number, time: (
            "add_image",
            {"image": image, "frame_number": number, "frame_time": time},
        ),
        st.integers(0, len(IMAGES) - 1),
        st.integers(-(2**50), 2**50) | st.integers(-4, 4),
        st.floats(-1e6, 2e9),
    ),
    st.builds(lambda record: ("add_extra_data", record), records),
    st.just(("flush", {})),
)
an_image: Call = ("add_image", {"image": 0, "frame_number": 0, "frame_time": 0.5})


def check_any_calls(
    reference: Reference, root: Path, format: str, steps: list[Call], chunksize: int
) -> None:
    images = root.with_suffix(".npy")
    np.save(images, IMAGES)
    ours("record", path=root, format=format, images=images, steps=steps, chunksize=chunksize)
    same_recording(root, reference)
    begins = [i + 1 for i, (method, _) in enumerate(steps) if method == "empty"]
    kept = [given for method, given in steps[max(begins, default=0) :] if method == "add_image"]
    said = reference("describe", path=root)["frame_metadata"]
    assert said["frame_number"] == [given["frame_number"] for given in kept]
    assert said["frame_time"] == [given["frame_time"] for given in kept]


# A recording of no frames cannot be opened by imgstore, hence one image at least. What it does with
# extra data before any image depends on its chunks, hence an image first.
@pytest.mark.parametrize("format", ["mjpeg/avi", "avc1/mp4", "npy/dir"])
@few
@given(
    before=st.lists(a_step, max_size=5).map(lambda steps: [an_image, *steps, ("empty", {})])
    | st.just([]),
    steps=st.lists(a_step, max_size=14).map(lambda steps: [an_image, *steps]),
    chunksize=st.integers(1, 5),
)
def test_any_calls_of_a_writer(
    reference: Reference,
    tmp_path_factory: pytest.TempPathFactory,
    format: str,
    before: list[Call],
    steps: list[Call],
    chunksize: int,
) -> None:
    root = tmp_path_factory.mktemp("any") / "r"
    check_any_calls(reference, root, format, [*before, *steps], chunksize)
    shutil.rmtree(root.parent)


json_values = st.recursive(
    values, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
)


@few
@given(metadata=st.dictionaries(st.text(min_size=1), json_values, max_size=4))
def test_any_metadata(
    reference: Reference, tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any]
) -> None:
    root = tmp_path_factory.mktemp("any") / "r"
    images = root.with_suffix(".npy")
    np.save(images, IMAGES)
    options = {"chunksize": 3, "metadata": metadata}
    ours("record", path=root, format="npy/dir", images=images, steps=[an_image], **options)
    assert reference("describe", path=root)["user_metadata"] == metadata
    assert ours("describe", path=root)["user_metadata"] == metadata
    shutil.rmtree(root.parent)

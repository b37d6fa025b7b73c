"""Files made by others give what the page beside them says."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import yaml

import imgstore_zarr
from imgstore_zarr.video import VideoFile

pytestmark = pytest.mark.shared_data


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("sleap_flies_small.mp4", (1100, 384, 384)),
        ("sleap_single_fly.mp4", (3200, 192, 192)),
        ("lp_mirror_mouse.mp4", (994, 406, 396)),
        ("pims_bulk_water.mov", (480, None, None)),
        ("pims_cine_legacy.cine", (97, 128, 128)),
    ],
)
def test_sizes_of_videos(shared_data: Path, name: str, shape: tuple[int | None, ...]) -> None:
    file = VideoFile(shared_data / name, color=False)
    try:
        expected = tuple(b if a is None else a for a, b in zip(shape, file.shape, strict=True))
        assert file.shape == expected
        capture = cv2.VideoCapture(str(shared_data / name))
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        there, first = capture.read()
        capture.release()
        assert there
        np.testing.assert_array_equal(file.frames[0], cv2.cvtColor(first, cv2.COLOR_BGR2GRAY))
        assert file.frames[len(file) - 1].shape == file.shape[1:]
    finally:
        file.close()


def test_frames_that_no_header_counts(shared_data: Path) -> None:
    path = shared_data / "tc_av1_video.mkv"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.frames == 0
        decoded = [frame.to_ndarray(format="bgr24") for frame in container.decode(stream)]
    file = VideoFile(path)
    assert len(file) == len(decoded) > 0
    assert file.shape[1:] == decoded[0].shape
    file.close()


def test_every_frame_of_a_fly_is_a_key_frame(shared_data: Path) -> None:
    file = VideoFile(shared_data / "sleap_single_fly.mp4")
    assert len(file.table.entries) == 3200
    file.close()


def recording(root: Path, files: list[Path], dtype: str, shape: list[int]) -> Path:
    """A recording in a directory of images whose files are those of others."""
    chunk = root / "000000"
    chunk.mkdir(parents=True)
    for i, file in enumerate(files):
        (chunk / f"{i:06d}.tif").symlink_to(file)
    times = np.arange(len(files)) / 25
    np.savez(chunk / "index.npz", frame_number=np.arange(len(files)), frame_time=times)
    store = {
        "class": "DirectoryImgStore",
        "version": 2,
        "format": "tif",
        "imgshape": shape,
        "imgdtype": dtype,
        "chunksize": 200,
        "encoding": None,
    }
    (root / "metadata.yaml").write_text(yaml.safe_dump({"__store": store}))
    return root


def test_images_of_foam(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "foam_tif").iterdir())
    store = imgstore_zarr.open(recording(tmp_path / "r", files, "uint8", [768, 768]))
    assert store.frames.shape == (9, 768, 768)
    for image, file in zip(store.frames, files, strict=True):
        np.testing.assert_array_equal(image, cv2.imread(str(file), cv2.IMREAD_UNCHANGED))
    assert store.report().ok


def test_the_first_of_several_images_in_a_file(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / "pims_stuck.tif"
    store = imgstore_zarr.open(recording(tmp_path / "r", [file], "uint16", [512, 512]))
    image = store.frames[0]
    assert image.shape == (512, 512)
    assert image.dtype == np.uint16
    there, pages = cv2.imreadmulti(str(file), flags=cv2.IMREAD_UNCHANGED)
    assert there
    assert len(pages) == 5
    np.testing.assert_array_equal(image, pages[0])

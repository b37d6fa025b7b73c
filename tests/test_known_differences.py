"""Where this project differs from imgstore 0.4.0 on purpose: what it does, what is done here, why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr import FrameNotFoundError
from tests.reference import ImgStoreRaisedError, Reference, ours
from tests.test_differential_reading import Call, Directory, agree, write_directory
from tests.test_motif import PLAIN, small, write_chunk, write_metadata
from tests.videos import scene

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Difference:
    """A call whose outcome differs on purpose."""

    call: Call
    imgstore: str | None
    here: type[Exception] | None
    reason: str


DIFFERENCES = [
    Difference(
        ("get_nearest_image", {"frame_time": float("nan")}),
        None,
        FrameNotFoundError,
        "imgstore gives the first frame; no frame is near to no time",
    ),
    Difference(
        ("get_image", {"frame_number": None, "exact_only": False}),
        None,
        FrameNotFoundError,
        "imgstore gives the first frame; no number was given",
    ),
    Difference(
        ("get_image", {"frame_number": "3"}),
        None,
        FrameNotFoundError,
        "SQLite makes a number of the text; a number of a frame is an integer",
    ),
    Difference(
        ("get_nearest_image", {"frame_time": None}),
        None,
        FrameNotFoundError,
        "imgstore gives the first frame; no time was given",
    ),
    Difference(
        ("get_nearest_image", {"frame_time": float("inf")}),
        None,
        None,
        "imgstore gives the first frame, since all are equally far away; here it is the last",
    ),
    Difference(
        ("get_image", {"frame_number": 10**20}),
        "OverflowError",
        FrameNotFoundError,
        "SQLite takes no such number; that no frame has it is what the caller has to know",
    ),
    Difference(
        ("get_image", {"frame_number": None, "frame_index": 10**20}),
        "IntegrityError",
        FrameNotFoundError,
        "the same for positions",
    ),
    Difference(
        ("get_image", {"frame_number": None, "frame_index": 2.5}),
        None,
        FrameNotFoundError,
        "imgstore cuts the fraction off; half a position is a mistake of the caller",
    ),
    Difference(
        ("get_image", {"frame_number": None, "frame_index": "one"}),
        "TypeError",
        FrameNotFoundError,
        "imgstore raises what int() or a comparison raises",
    ),
]


@pytest.mark.parametrize("known", DIFFERENCES, ids=lambda known: str(known.call))
def test_known_differences(reference: Reference, tmp_path: Path, known: Difference) -> None:
    root = small(tmp_path / "recording")
    (mine,) = ours("perform", path=root, calls=[known.call])
    (theirs,) = reference("perform", path=root, calls=[known.call])
    assert mine != theirs
    assert (mine.get("raised") or {"name": None})["name"] == getattr(known.here, "__name__", None)
    assert (theirs.get("raised") or {"name": None})["name"] == known.imgstore


def test_known_difference_an_index_without_a_video(reference: Reference, tmp_path: Path) -> None:
    # imgstore does not count frames whose video is lost; here they count, and reading them raises.
    root = small(tmp_path / "recording")
    np.savez(root / "000001.npz", frame_number=[6], frame_time=[6.0])
    assert reference("describe", path=root)["frame_count"] == 6
    assert ours("describe", path=root)["frame_count"] == 7


def test_known_difference_other_videos_beside_the_chunks(
    reference: Reference, tmp_path: Path
) -> None:
    # imgstore takes every video for a chunk.
    root = small(tmp_path / "recording")
    before = ours("describe", path=root)
    (root / "preview.mp4").touch()
    with pytest.raises(ImgStoreRaisedError, match="invalid literal for int"):
        reference("describe", path=root)
    assert ours("describe", path=root) == before


def test_known_difference_times_that_are_no_numbers(reference: Reference, tmp_path: Path) -> None:
    # imgstore compares with NaN, and says that the recording lasted from inf to -inf.
    root = small(tmp_path / "recording")
    times = [0, np.nan, 2, 3, 4, 5]
    np.savez(root / "000000.npz", frame_number=range(6), frame_time=times)
    assert reference("describe", path=root)["frame_time_min"] == np.inf
    said = ours("describe", path=root)
    assert (said["frame_time_min"], said["frame_time_max"]) == (0, 5)


def test_known_difference_holes_between_chunks(reference: Reference, tmp_path: Path) -> None:
    # imgstore ends at the hole, as if the recording ended there.
    root = tmp_path / "recording"
    write_metadata(root)
    for chunk, start in ((0, 0), (2, 4)):
        span = np.arange(start, start + 4)
        write_chunk(root, chunk, scene(8)[span], span.tolist(), span / 25, PLAIN)
    calls: list[Call] = [("get_next_image", {})] * 8
    theirs = reference("perform", path=root, calls=calls)
    mine = ours("perform", path=root, calls=calls)
    agree(mine[:4], theirs[:4], calls[:4])
    assert {outcome["raised"]["name"] for outcome in theirs[4:]} == {"EOFError"}
    assert [outcome["got"]["number"] for outcome in mine[4:]] == [4, 5, 6, 7]


def test_known_difference_chunks_above_zero(reference: Reference, tmp_path: Path) -> None:
    root = tmp_path / "recording"
    write_metadata(root)
    write_chunk(root, 3, scene(4), range(4), np.arange(4.0), PLAIN)
    with pytest.raises(ImgStoreRaisedError, match="OpenCV unable to open"):
        reference("describe", path=root)
    assert ours("describe", path=root)["chunks"] == [3]


@pytest.mark.parametrize("format", ["png", "tif"])
def test_known_difference_images_of_16_bits(
    reference: Reference, tmp_path: Path, format: str
) -> None:
    # imgstore says uint16 and gives the upper 8 bits.
    root = write_directory(reference, tmp_path / "r", Directory(format, dtype="uint16"))
    given = np.load(root.with_suffix(".npy"))
    reference("save_frames", path=root, destination=tmp_path / "theirs.npy")
    theirs = np.load(tmp_path / "theirs.npy")
    assert theirs.dtype == np.uint8
    assert np.abs(theirs.astype(int) - given // 256).max() <= 1
    np.testing.assert_array_equal(imgstore_zarr.open(root).frames[...], given)


def test_known_difference_integers_of_numpy(tmp_path: Path) -> None:
    # SQLite finds no numpy.int64, so that imgstore says there is no such frame.
    call: Call = ("get_image", {"frame_number": np.int64(3)})
    (mine,) = ours("perform", path=small(tmp_path / "recording"), calls=[call])
    assert mine["got"]["number"] == 3


def test_known_difference_frames_without_a_time(reference: Reference, tmp_path: Path) -> None:
    # imgstore writes None as an object, and cannot open what it wrote; NaN spoils what it says of
    # the recording.
    np.save(tmp_path / "images.npy", np.zeros((3, 16, 16), np.uint8))
    for name, time in (("none", None), ("nan", float("nan"))):
        steps: list[Call] = [
            ("add_image", {"image": i, "frame_number": i, "frame_time": t})
            for i, t in enumerate((time, 5.0, 7.0))
        ]
        options = {"images": tmp_path / "images.npy", "steps": steps}
        theirs, mine = tmp_path / f"{name} theirs", tmp_path / f"{name} ours"
        reference("record", path=theirs, format="png", **options)
        ours("record", path=mine, format="png/dir", **options)
        assert ours("describe", path=mine)["duration"] == 2
        # What is written here is what imgstore makes of NaN, and opens.
        times = reference("describe", path=mine)["frame_metadata"]["frame_time"]
        assert times == [None, 5.0, 7.0]
        if time is None:
            with pytest.raises(ImgStoreRaisedError, match="Object arrays cannot be loaded"):
                reference("describe", path=theirs)
        else:
            assert reference("describe", path=theirs)["frame_metadata"]["frame_time"] == times

"""What a store gives to those who analyse it: joins with other data, other clocks, pictures."""

from __future__ import annotations

import base64
import math
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import imgstore_zarr
from imgstore_zarr import ClockCorrection

COUNT = 60
RNG = np.random.default_rng(3)
TIMES = 1.7e9 + np.arange(COUNT) / 20 + RNG.uniform(0, 0.01, COUNT)
EVERY = 7


@pytest.fixture(params=["zstd/zarr", "h264/mkv", "png/dir"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    with imgstore_zarr.create(tmp_path / "r", request.param, (40, 60), chunksize=25) as writer:
        for i in range(COUNT):
            writer.add_image(np.full((40, 60), 2 * i, np.uint8), 3 * i, TIMES[i])
            if i % EVERY == 0:
                writer.add_extra_data(lamp=float(i), text=f"t{i}")
    return tmp_path / "r"


@pytest.mark.parametrize("method", ["nearest", "previous"])
@pytest.mark.parametrize("tolerance", [None, 0.11])
def test_extra_data_on_frames(path: Path, method: str, tolerance: float | None) -> None:
    """As pandas joins them."""
    store = imgstore_zarr.open(path)
    table = store.extra_on_frames(method=method, tolerance=tolerance)  # type: ignore[arg-type]
    extra = store.get_extra_data()
    assert extra is not None
    direction = {"nearest": "nearest", "previous": "backward"}[method]
    expected = pd.merge_asof(
        pd.DataFrame({"frame_time": TIMES}),
        extra[["frame_time", "lamp", "text"]],
        on="frame_time",
        direction=direction,  # type: ignore[arg-type]
        tolerance=tolerance,  # type: ignore[arg-type]
    )
    assert table["lamp"].equals(expected["lamp"].rename_axis("frame"))
    assert table["text"].fillna("").tolist() == expected["text"].fillna("").tolist()


def test_events_on_frames(path: Path) -> None:
    store = imgstore_zarr.open(path)
    events = pd.DataFrame({"onset": pd.to_datetime([TIMES[30] + 0.001, TIMES[4]], unit="s")})
    found = store.events_on_frames(events, column="onset", tolerance=0.02)
    assert found["matched_index"].tolist() == [30, 4]
    assert found["matched_number"].tolist() == [90, 12]
    by_number = store.events_on_frames(pd.DataFrame({"frame_number": [4]}), method="next")
    assert by_number["matched_index"].tolist() == [2]
    both = pd.DataFrame({"frame_number": [4], "frame_time": [TIMES[9]]})
    assert store.events_on_frames(both)["matched_index"].tolist() == [9]
    named = store.events_on_frames(both, column="frame_number", method="next")
    assert named["matched_index"].tolist() == [2]


def test_events_outside_of_the_recording(path: Path) -> None:
    """In milliseconds, or of another day."""
    store = imgstore_zarr.open(path)
    events = pd.DataFrame({"frame_time": [TIMES[30] * 1000, TIMES[0] - 500, TIMES[-1] + 0.03]})
    assert store.events_on_frames(events)["matched_index"].tolist() == [-1, -1, COUNT - 1]
    anywhere = store.events_on_frames(events, tolerance=math.inf)
    assert anywhere["matched_index"].tolist() == [COUNT - 1, 0, COUNT - 1]
    with pytest.raises(imgstore_zarr.InvalidMetadataError, match="events must be a DataFrame"):
        store.events_on_frames("events.csv")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs a ClockCorrection"):
        store.with_clock(-3.5)  # type: ignore[arg-type]


def test_recordings_without_extra_data(tmp_path: Path) -> None:
    imgstore_zarr.create(tmp_path / "r", "raw/zarr", (4, 5)).close()
    with pytest.raises(imgstore_zarr.InvalidMetadataError, match="has no extra data"):
        imgstore_zarr.open(tmp_path / "r").extra_on_frames()


def test_another_clock(path: Path) -> None:
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    store = imgstore_zarr.open(path)
    store.get_next_image()
    view = store.with_clock(ClockCorrection(offset=5.0)).with_clock(
        ClockCorrection.from_pairs([1.7e9, 1.7e9 + 100], [0.0, 200.0])
    )
    expected = (TIMES + 5 - 1.7e9) * 2
    for seen in (view, pickle.loads(pickle.dumps(view))):
        np.testing.assert_allclose(seen.index.frame_time, expected, atol=1e-6)
        _, (number, time) = seen.get_next_image()
        assert (number, round(time, 6)) == (0, round(expected[0], 6))
        assert seen.get_nearest_image(expected[40])[1][0] == 120
        np.testing.assert_array_equal(seen.to_xarray().frame_time, seen.index.frame_time)
        extra = seen.get_extra_data()
        assert extra is not None
        np.testing.assert_allclose(extra["frame_time"], expected[::EVERY], atol=1e-6)
        tree = seen.to_datatree()
        np.testing.assert_allclose(tree["extra/frame_time"], expected[::EVERY], atol=1e-6)
        joined = seen.extra_on_frames(tolerance=1e-3)
        assert joined["lamp"].dropna().tolist() == [*range(0, COUNT, EVERY)]
        np.testing.assert_array_equal(seen.frames[7], np.full((40, 60), seen.frames[7, 0, 0]))
    np.testing.assert_array_equal(store.index.frame_time, TIMES)
    aligned = imgstore_zarr.align([store.with_clock(ClockCorrection(offset=3)), store])
    assert (aligned.camera_time[0] - aligned.camera_time[1]).round(5).values.tolist() == [3] * COUNT
    with pytest.raises(imgstore_zarr.InvalidMetadataError):
        view.reindex()
    with pytest.raises(imgstore_zarr.InvalidMetadataError):
        view.refresh()
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_a_conversion_keeps_the_other_clock(path: Path, tmp_path: Path) -> None:
    view = imgstore_zarr.open(path).with_clock(ClockCorrection(drift=0.5, reference=1.7e9))
    imgstore_zarr.convert(view, tmp_path / "copy", "zstd/zarr")
    with imgstore_zarr.open(tmp_path / "copy") as copy:
        np.testing.assert_array_equal(copy.index.frame_time, view.index.frame_time)
        extra = copy.get_extra_data()
        assert extra is not None
        np.testing.assert_array_equal(extra["frame_time"], view.index.frame_time[::EVERY])


def test_a_notebook_shows_thumbnails(path: Path) -> None:
    html = imgstore_zarr.open(path)._repr_html_()
    (data,) = re.findall(r"data:image/\w+;base64,([A-Za-z0-9+/=]+)", html)
    strip = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert strip is not None
    assert strip.shape[1] > 4 * strip.shape[0]
    assert "frame numbers" in html


def test_thumbnails_of_nothing(tmp_path: Path) -> None:
    imgstore_zarr.create(tmp_path / "r", "raw/zarr", (4, 5)).close()
    assert "<img" not in imgstore_zarr.open(tmp_path / "r")._repr_html_()

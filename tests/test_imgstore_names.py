"""The names of imgstore, which scripts import."""

from __future__ import annotations

import datetime as dt
import importlib
import io
import itertools
import json
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import cv2
import h5py
import numpy as np
import pytest
from imgstore_compat.imgstore import align, apps, index, stores, util

import imgstore_zarr
from imgstore_zarr import (
    CorruptChunkError,
    FrameMismatchError,
    FrameNotFoundError,
    ImgStore,
    ImgStoreWriter,
    UnsupportedFormatError,
)
from tests import imgstore_suite
from tests.conftest import Record

# Type checkers take calling a class for making an instance of it.
VideoImgStore: Any = stores.VideoImgStore
DirectoryImgStore: Any = stores.DirectoryImgStore

PUBLIC = {
    "": "new_for_filename new_for_format extract_only_frame get_supported_formats VideoImgStore "
    "DirectoryImgStore ensure_color ensure_grayscale __version__",
    "stores": "DEVNULL STORE_MD_FILENAME STORE_LOCK_FILENAME STORE_MD_KEY STORE_INDEX_FILENAME "
    "EXTRA_DATA_FILE_EXTENSIONS ImageCodecProcessor JsonCustomEncoder FourCC ensure_color "
    "ensure_grayscale motif_extra_data_h5_to_df motif_extra_data_json_to_df "
    "motif_extra_data_h5_attrs get_local_timezone_zoneinfo ImgStoreIndex DirectoryImgStore "
    "VideoImgStore new_for_filename new_for_format extract_only_frame get_supported_formats",
    "util": "FourCC ensure_grayscale ensure_color ImageCodecProcessor JsonCustomEncoder "
    "motif_extra_data_json_to_df motif_get_parse_true_fps motif_extra_data_h5_attrs "
    "motif_extra_data_h5_to_df motif_get_recording_timezone get_local_timezone "
    "get_local_timezone_zoneinfo",
    "constants": "DEVNULL STORE_MD_KEY STORE_MD_FILENAME STORE_LOCK_FILENAME STORE_INDEX_FILENAME "
    "EXTRA_DATA_FILE_EXTENSIONS FRAME_MD",
    "index": "FRAME_MD ImgStoreIndex",
    "align": "StoreAligner",
    "apps": "generate_timecodes main_generate_timecodes new_for_filename",
}
"""What the modules of imgstore 0.4.0 define, but for ``test``, ``main_test``, ``main_viewer``,
``main_saver`` and what only those need, and the packages that they import."""

READING = (
    "chunks close convert_frame_time_to_datetime created disable_decoding duration filename "
    "find_extra_data_files frame_count frame_max frame_min frame_number frame_time frame_time_max "
    "frame_time_min full_path get_extra_data get_extra_data_samplerate get_frame_metadata get_image "
    "get_nearest_image get_next_framenumber get_next_image has_extra_data image_shape lossless mode "
    "reindex save_index user_metadata uuid"
)
WRITING = (
    "add_extra_data add_image chunks close convert_frame_time_to_datetime created duration empty "
    "filename find_extra_data_files frame_count frame_max frame_min frame_number frame_time "
    "frame_time_max frame_time_min full_path has_extra_data image_shape insert_chunk lossless mode "
    "user_metadata uuid"
)
ON_THE_CLASSES = "FRAME_MD extract_only_frame supported_formats supports_format"


def run(script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_import_imgstore_gives_this_project() -> None:
    script = """
import sys
import imgstore_compat
imgstore_compat.install_as_imgstore()
imgstore_compat.install_as_imgstore()
import imgstore, imgstore.stores, imgstore.apps
from imgstore.util import ensure_color
from imgstore import index, align, constants
for name in ("stores", "util", "constants", "index", "align", "apps"):
    ours = sys.modules["imgstore_compat.imgstore." + name]
    assert getattr(imgstore, name) is ours is sys.modules["imgstore." + name]
assert imgstore is sys.modules["imgstore_compat.imgstore"]
assert imgstore.ensure_color is ensure_color
assert imgstore.__version__ == "0.4.0"
print(*[m for m in ["xarray", "dask", "av", "h5py", "pandas", "cv2"] if m in sys.modules])
"""
    result = run(script)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "", "")


def test_imgstore_must_not_be_imported_before(tmp_path: Path) -> None:
    (tmp_path / "imgstore.py").touch()
    script = "import imgstore, imgstore_compat; imgstore_compat.install_as_imgstore()"
    result = run(script, cwd=tmp_path)
    assert result.returncode == 1
    assert "ImgStoreError: the package imgstore is imported already" in result.stderr
    assert "before the first `import imgstore`" in result.stderr


@pytest.mark.parametrize("name", PUBLIC)
def test_modules_have_the_names_of_imgstore(name: str) -> None:
    module = importlib.import_module(f"imgstore_compat.imgstore.{name}".rstrip("."))
    assert [n for n in PUBLIC[name].split() if not hasattr(module, n)] == []
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("cls", [VideoImgStore, DirectoryImgStore])
def test_stores_have_the_names_of_imgstore(cls: Any, record: Record, tmp_path: Path) -> None:
    assert [n for n in ON_THE_CLASSES.split() if not hasattr(cls, n)] == []
    store = imgstore_zarr.open(record(np.zeros((1, 4, 6), np.uint8)))
    assert [n for n in READING.split() if not hasattr(store, n)] == []
    with imgstore_zarr.create(tmp_path / "r", "raw/zarr", (4, 6)) as writer:
        assert [n for n in WRITING.split() if not hasattr(writer, n)] == []


def test_other_classes_have_the_names_of_imgstore() -> None:
    # Not there: create_database and log of the index, CV2_CODEC_RE of the processor.
    names = (
        "VERSION chunks find_chunk find_chunk_nearest get_all_metadata get_chunk_metadata "
        "new_from_chunks new_from_file to_file frame_count frame_max frame_min frame_time_max "
        "frame_time_min"
    )
    assert [n for n in names.split() if not hasattr(index.ImgStoreIndex, n)] == []
    names = (
        "check_code convert_to_bgr cv2_enum_to_code encoding from_cv2_enum from_pylon_format "
        "set_default_code autoconvert"
    )
    assert [n for n in names.split() if not hasattr(util.ImageCodecProcessor(), n)] == []
    aligner = align.StoreAligner
    policies = "drop", "zoh", "black"
    assert policies == (
        aligner.MISSING_POLICY_DROP,
        aligner.MISSING_POLICY_HOLD,
        aligner.MISSING_POLICY_BLACK,
    )


# The two classes.


def images(count: int = 5, *shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, *(shape or (16, 24))), np.uint8)


@pytest.mark.parametrize("format", ["mjpeg", "avc1/mp4"])
def test_a_video_store_is_written_and_read(tmp_path: Path, format: str) -> None:
    path = str(tmp_path / "r")
    writer = VideoImgStore(
        basedir=path, mode="w", imgshape=(16, 24), imgdtype=np.uint8, chunksize=3, format=format
    )
    assert isinstance(writer, ImgStoreWriter)
    assert isinstance(writer, VideoImgStore)
    assert not isinstance(writer, DirectoryImgStore)
    for number, image in enumerate(images()):
        writer.add_image(image, number, number / 2)
    writer.close()
    store = VideoImgStore(basedir=path, mode="r", seek=False, gpu_id=0)
    assert isinstance(store, ImgStore)
    assert isinstance(store, VideoImgStore)
    assert not isinstance(store, DirectoryImgStore)
    assert store.chunks == [0, 1]
    assert VideoImgStore.extract_only_frame(store.full_path, 3).shape[:2] == (16, 24)
    with pytest.raises(UnsupportedFormatError, match="open it with VideoImgStore"):
        DirectoryImgStore(basedir=path, mode="r")
    with pytest.raises(UnsupportedFormatError, match="open it with VideoImgStore"):
        DirectoryImgStore.extract_only_frame(store.full_path, 0)


DIRECTORY_FORMATS = ["bmp", "bmp+color", "bpk", "jpg", "jpg+color", "npy", "pgm", "png"]
DIRECTORY_FORMATS += ["png+color", "ppm", "tif", "tif+color"]


@pytest.mark.parametrize("format", DIRECTORY_FORMATS)
def test_a_directory_store_is_written_and_read(tmp_path: Path, format: str) -> None:
    path = str(tmp_path / "r")
    shape = (16, 24, 3) if format == "ppm" else (16, 24)
    written = images(5, *shape)
    with DirectoryImgStore(
        basedir=path, mode="w", imgshape=shape, imgdtype=np.uint8, chunksize=3, format=format
    ) as writer:
        assert isinstance(writer, DirectoryImgStore)
        for number, image in enumerate(written):
            writer.add_image(image, number, number / 2)
    ending = format.removesuffix("+color")
    file = tmp_path / "r" / "000001" / f"000001.{ending}"
    if ending == "npy":
        np.testing.assert_array_equal(np.load(file), written[4])
    elif ending == "bpk":
        assert file.read_bytes()[:4] == b"blpk"
    else:
        found = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert found is not None
        if format.startswith("jpg"):
            assert found.shape == shape
        else:
            np.testing.assert_array_equal(found, written[4])
    store = DirectoryImgStore(basedir=path, mode="r")
    assert isinstance(store, DirectoryImgStore)
    assert not isinstance(store, VideoImgStore)
    assert store.info.layout == "directory"
    if not format.startswith("jpg"):
        np.testing.assert_array_equal(store.get_image(4)[0], written[4])


def test_a_zarr_recording_is_a_directory_store(record: Record) -> None:
    written = images()
    path = str(record(written))
    assert isinstance(DirectoryImgStore(basedir=path, mode="r"), DirectoryImgStore)
    np.testing.assert_array_equal(DirectoryImgStore.extract_only_frame(path, 2), written[2])
    with pytest.raises(UnsupportedFormatError, match="open it with DirectoryImgStore"):
        VideoImgStore(basedir=path, mode="r")
    assert not isinstance("a text", DirectoryImgStore)


def test_formats_belong_to_a_class(tmp_path: Path) -> None:
    assert sorted(DirectoryImgStore.supported_formats()) == DIRECTORY_FORMATS
    assert VideoImgStore.supported_formats() == ["mjpeg/avi", "h264/mkv", "avc1/mp4"]
    assert VideoImgStore.supports_format("mjpeg")
    assert not VideoImgStore.supports_format("png")
    assert len(set(stores.get_supported_formats())) == 15
    arguments: dict[str, Any] = {"basedir": str(tmp_path / "r"), "mode": "w", "imgshape": (16, 24)}
    with pytest.raises(UnsupportedFormatError, match="'png'; DirectoryImgStore does"):
        VideoImgStore(format="png", **arguments)
    with pytest.raises(UnsupportedFormatError, match="'mjpeg'; VideoImgStore does"):
        DirectoryImgStore(format="mjpeg", **arguments)
    with pytest.raises(UnsupportedFormatError, match="'zstd/zarr'; it writes tif"):
        DirectoryImgStore(format="zstd/zarr", **arguments)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("cls", [VideoImgStore, DirectoryImgStore])
def test_the_classes_cannot_be_subclassed(cls: Any) -> None:
    with pytest.raises(TypeError, match=r"Mine: .* cannot be subclassed"):
        type(cls)("Mine", (cls,), {})


def test_new_for_format_writes_zarr(tmp_path: Path) -> None:
    path = str(tmp_path / "r")
    stores.new_for_format("npy", path, imgshape=(16, 24), imgdtype=np.uint8, videosize=1).close()
    store = stores.new_for_format("npy", path, mode="r", seek=True)
    assert (store.mode, store.info.layout) == ("r", "zarr")


# util


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3), (4, 3)])
@pytest.mark.parametrize("copy", [False, True])
def test_gray_and_color(shape: tuple[int, ...], copy: bool) -> None:
    image = images(1, *shape)[0]
    given = image.copy()
    bgr = image if len(shape) == 3 and shape[-1] == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if bgr is image else image
    for function, expected in ((util.ensure_color, bgr), (util.ensure_grayscale, gray)):
        found = function(image, ensure_copy=copy)
        np.testing.assert_array_equal(found, expected)
        assert (found is image) == (expected is image and not copy)
        assert np.shares_memory(found, image) == (found is image)
    np.testing.assert_array_equal(image, given)


@pytest.mark.parametrize("code", ["MJPG", "H264", "avc1", "Y16 "])
def test_fourcc(code: str) -> None:
    assert util.FourCC(*code) == cv2.VideoWriter.fourcc(*code)


def codes_of_opencv() -> dict[str, int]:
    codes = {}
    for name in dir(cv2):
        head, found, method = name.removeprefix("COLOR_").partition("2BGR")
        if not name.startswith("COLOR_") or not found or (method and method[0] != "_"):
            continue
        code = f"cv_{head.lower().replace('_', '')}"
        if "bayer" not in code or not method:
            codes[code + method.lower()] = getattr(cv2, name)
    return codes


def convertible(enum: int) -> Any:
    """An image that OpenCV converts with this code."""
    for shape in ((12, 8), (12, 8, 3), (12, 8, 2), (12, 8, 4)):
        image = images(1, *shape)[0]
        try:
            cv2.cvtColor(image, enum)
        except cv2.error:
            continue
        return image
    raise AssertionError(enum)


def test_every_encoding_of_opencv_is_decoded() -> None:
    codes = codes_of_opencv()
    assert {"cv_bayerrg", "cv_rgb", "cv_yuv_nv12", "cv_hsv_full"} <= set(codes)
    for code, enum in codes.items():
        processor = util.ImageCodecProcessor()
        processor.set_default_code(code)
        image = convertible(enum)
        expected = cv2.cvtColor(image, enum)
        for found in (
            processor.autoconvert(image),
            processor.convert_to_bgr(image),
            util.ImageCodecProcessor().convert_to_bgr(image, code),
        ):
            np.testing.assert_array_equal(found, expected, err_msg=code)
        again = util.ImageCodecProcessor.from_cv2_enum(enum)
        assert codes[again.encoding] == enum
        assert [name for name, number in codes.items() if number == enum][-1] == again.encoding


def test_codes_of_pylon_and_methods() -> None:
    named = util.ImageCodecProcessor.from_pylon_format
    pylon = {"BayerBG": "rg", "Bayer_BG": "rg", "BayerRG": "bg", "BayerGB": "gr", "Bayer_GB": "gr"}
    assert {name: named(name).encoding for name in pylon} == {
        name: f"cv_bayer{pattern}" for name, pattern in pylon.items()
    }
    assert [named(name).encoding for name in (None, "", "None")] == ["", "", ""]
    image = images(1)[0]
    processor = named("BayerBG")
    np.testing.assert_array_equal(
        processor.convert_to_bgr(image, method_enum=cv2.COLOR_BayerRG2BGR_VNG),
        cv2.cvtColor(image, cv2.COLOR_BayerRG2BGR_VNG),
    )
    processor.set_default_code("")
    assert processor.autoconvert(image) is image
    assert not processor.check_code("foo")
    for wrong in (
        lambda: named("Mono8"),
        lambda: processor.set_default_code("foo"),
        lambda: processor.cv2_enum_to_code(-1),
        lambda: processor.convert_to_bgr(image),
    ):
        with pytest.raises(UnsupportedFormatError):
            wrong()


def test_json_takes_what_recordings_hold() -> None:
    value = {
        "array": np.arange(3),
        "number": np.float32(0.5),
        "complex": 1 + 2j,
        "set": {7},
        "bytes": b"abc",
        "when": dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC),
    }
    assert json.loads(json.dumps(value, cls=util.JsonCustomEncoder)) == {
        "array": [0, 1, 2],
        "number": 0.5,
        "complex": [1.0, 2.0],
        "set": [7],
        "bytes": "abc",
        "when": "2024-02-29T12:00:00+00:00",
    }


@pytest.mark.parametrize("text", [str, str.encode], ids=["str", "bytes"])
def test_extra_data_of_motif_in_h5(tmp_path: Path, text: Any) -> None:
    path = tmp_path / "000000.extra_data.h5"
    camera = np.array(
        [(5, 0.5), (6, 0.75), (-1, 0)], [("frame_number", "i8"), ("frame_time", "f8")]
    )
    with h5py.File(path, "w") as file:
        file.attrs["datasets"] = text("daq, more")
        for name, columns in (("daq", 2), ("more", 1)):
            file[name] = np.arange(columns * 3.0).reshape(columns, 3)
            file[name].attrs["column_names"] = text(", ".join(f"{name}{i}" for i in range(columns)))
        file["daq"].attrs["samplerate"] = 100.0
        file["camera"] = camera
        file["sample_delay"] = [0.1, 0.2, 0.3]
    attributes = util.motif_extra_data_h5_attrs(str(path))
    assert attributes["_datasets"] == ["daq", "more"]
    assert attributes["daq"]["samplerate"] == 100.0
    assert attributes["camera"] == {}
    assert util.motif_extra_data_h5_to_df(None, str(path)).to_dict("list") == {
        "daq0": [0.0, 1.0],
        "daq1": [3.0, 4.0],
        "more0": [0.0, 1.0],
        "frame_number": [5, 6],
        "frame_time": [0.5, 0.75],
        "sample_delay": [0.1, 0.2],
    }


def test_extra_data_of_motif_in_json(tmp_path: Path) -> None:
    path = tmp_path / "any name.json"
    rows = [(1, 8, 0.2), (1, 8, 0.1), (0, 7, 0.3), (9, -1, 0.0)]
    names = ("frame_index", "frame_number", "sensor_time")
    path.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    table = util.motif_extra_data_json_to_df(None, str(path))
    assert table is not None
    assert table.to_dict("list") == {
        "frame_index": [0, 1, 1],
        "frame_number": [7, 8, 8],
        "sensor_time": [0.3, 0.1, 0.2],
    }
    for nothing in ([], [{"frame_index": 0, "frame_number": -1}]):
        path.write_text(json.dumps(nothing))
        assert util.motif_extra_data_json_to_df(None, str(path)) is None
    path.write_text("[{]")
    with pytest.raises(CorruptChunkError, match=r"any name\.json"):
        util.motif_extra_data_json_to_df(None, str(path))


@pytest.mark.parametrize(
    ("metadata", "hardware", "rate"),
    [
        ({}, False, 25.0),
        ({"hwframerate": "99.5", "motifptpframerate": 1}, True, 99.5),
        ({"motifptpframerate": 50, "acquisitionframerate": 7}, True, 50.0),
        ({"acquisitionframerate": 30, "acquisitionframerateenable": True}, False, 30.0),
        ({"acquisitionframerate": 30, "acquisitionframerateenable": True}, True, 25.0),
        ({"acquisitionframerate": 30, "acquisitionframerateenable": 1}, False, 25.0),
        ({"acquisitionframerate": 30}, False, 25.0),
        ({"acquisitionframerate": 0, "acquisitionframerateenable": True}, False, 25.0),
    ],
)
def test_frame_rate(record: Record, metadata: dict[str, Any], hardware: bool, rate: float) -> None:
    store = imgstore_zarr.open(record(images(1), metadata=metadata))
    found = util.motif_get_parse_true_fps(store, hwardware_only=hardware)
    assert (found, type(found)) == (rate, float)


def test_frame_rate_of_the_first_chunk(record: Record) -> None:
    times = [0.0, 0.1, 0.2, 5.0, 9.0, 13.0, 17.0, 21.0]
    store = imgstore_zarr.open(record(images(8), frame_time=times, chunksize=4))
    assert util.motif_get_parse_true_fps(store, default=None) == pytest.approx(10.0)
    single = imgstore_zarr.open(record(images(1)))
    assert np.isnan(util.motif_get_parse_true_fps(single, default=None))


def test_time_zones(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    def zone(**metadata: Any) -> dt.tzinfo:
        store = imgstore_zarr.open(record(images(1), metadata=metadata))
        return util.motif_get_recording_timezone(store)

    monkeypatch.setattr("tzlocal.get_localzone_name", lambda: "Asia/Tokyo")
    assert util.get_local_timezone() == "Asia/Tokyo"
    assert util.get_local_timezone_zoneinfo() == ZoneInfo("Asia/Tokyo")
    assert zone(timezone="Europe/Vienna") == ZoneInfo("Europe/Vienna")
    for unknown in ("Europe/Austria", "../x", "", 3, None):
        assert str(zone(timezone=unknown)) == "Asia/Tokyo"


# index

NUMBERS = [[6050, 6055, 6056], [0, 1], [2, 1, 6057]]
TIMES = [[10.0, 11.0, 12.5], [13.0, 14.0], [14.0, 15.0, 16.0]]
ALL_NUMBERS = [*itertools.chain(*NUMBERS)]
ALL_TIMES = [*itertools.chain(*TIMES)]


def saved_chunks(root: Path) -> list[tuple[int, str]]:
    for chunk, (numbers, times) in enumerate(zip(NUMBERS, TIMES, strict=True)):
        np.savez(root / f"{2 * chunk:06d}.npz", frame_number=numbers, frame_time=times)
    np.savez(root / "000006.npz", frame_number=[], frame_time=[])
    return [(number, str(root / f"{number:06d}")) for number in (4, 0, 6, 2)]


def test_index_of_chunks(tmp_path: Path) -> None:
    made = index.ImgStoreIndex.new_from_chunks(saved_chunks(tmp_path))
    made.to_file(str(tmp_path / "index.sqlite"))
    rows = [
        (2 * chunk, place, number, time)
        for chunk, columns in enumerate(zip(NUMBERS, TIMES, strict=True))
        for place, (number, time) in enumerate(zip(*columns, strict=True))
    ]
    connection = sqlite3.connect(tmp_path / "index.sqlite")
    assert connection.execute("SELECT * FROM frames ORDER BY rowid").fetchall() == rows
    connection.close()
    for found in (made, index.ImgStoreIndex.new_from_file(str(tmp_path / "index.sqlite"))):
        assert found.chunks == (0, 2, 4)
        assert found.frame_count == 8
        assert (found.frame_min, found.frame_max) == (0, 6057)
        assert (found.frame_time_min, found.frame_time_max) == (10.0, 16.0)
        assert found.get_all_metadata() == {
            "frame_number": ALL_NUMBERS,
            "frame_time": ALL_TIMES,
        }
        assert found.get_chunk_metadata(4) == {"frame_number": NUMBERS[2], "frame_time": TIMES[2]}
        assert found.get_chunk_metadata(1) == {"frame_number": [], "frame_time": []}
        for position, row in enumerate(rows):
            assert found.find_chunk("index", position) == row[:2]
        lookups: list[tuple[int, Any, list[Any]]] = [
            (2, "frame_number", [*ALL_NUMBERS, -7, 40, 6053, 9000]),
            (3, "frame_time", [*ALL_TIMES, 0.0, 11.7, 12.75, 99.0]),
        ]
        for column, what, values in lookups:
            for value in values:
                exact = next((row[:2] for row in rows if row[column] == value), (-1, -1))
                nearest = min(rows, key=lambda row: abs(row[column] - value))[:2]
                assert found.find_chunk(what, value) == exact
                assert found.find_chunk_nearest(what, value) == nearest
        assert found.find_chunk("index", 8) == found.find_chunk("index", -1) == (-1, -1)
        wrong: Any = "chunk"
        with pytest.raises(FrameNotFoundError, match="not by 'chunk'"):
            found.find_chunk(wrong, 3)
        with pytest.raises(FrameNotFoundError, match="not by 'chunk'"):
            found.find_chunk_nearest(wrong, 3)


def test_index_of_chunks_without_index_and_of_none(tmp_path: Path) -> None:
    chunks = [*saved_chunks(tmp_path), (8, str(tmp_path / "000008"))]
    with pytest.warns(UserWarning, match="chunk 8 has no index"):
        assert index.ImgStoreIndex.new_from_chunks(chunks).chunks == (0, 2, 4)
    empty = index.ImgStoreIndex.new_from_chunks([])
    assert (empty.chunks, empty.frame_count) == ((), 0)
    assert np.isnan([empty.frame_min, empty.frame_max]).all()
    assert empty.frame_time_min == empty.frame_time_max == 0.0
    assert empty.find_chunk_nearest("frame_time", 0) == (-1, -1)


def test_a_store_takes_a_saved_index(record: Record) -> None:
    path = record(images(5), frame_number=[7, 6, 5, 4, 3])
    with imgstore_zarr.open(path) as store:
        store.save_index()
    saved = index.ImgStoreIndex.new_from_file(path / ".index.sqlite")
    for opened in (
        stores.new_for_filename(str(path), index=saved),
        stores.new_for_format("npy", str(path), mode="r", index=saved),
        DirectoryImgStore(basedir=str(path), mode="r", index=saved),
    ):
        assert isinstance(opened, ImgStore)
        assert opened.index is saved.columns
        np.testing.assert_array_equal(opened.get_image(4)[0], images(5)[3])
    with pytest.raises(TypeError, match="index must be"):
        stores.new_for_filename(str(path), index="a path")  # type: ignore[arg-type]


# align


def recordings(record: Record) -> tuple[list[ImgStore], list[dict[int, Any]]]:
    numbers = [[1, 2, 4, 6], [2, 3, 4, 5, 6]]
    pixels = [1 + images(len(n), 4, 6) // 2 for n in numbers]
    paths = [
        record(image, frame_number=n, frame_time=[10.0 * number for number in n])
        for image, n in zip(pixels, numbers, strict=True)
    ]
    by_number = [dict(zip(n, p, strict=True)) for n, p in zip(numbers, pixels, strict=True)]
    return [imgstore_zarr.open(path) for path in paths], by_number


@pytest.mark.parametrize("policy", ["drop", "zoh", "black"])
def test_recordings_are_aligned(record: Record, policy: str) -> None:
    opened, by_number = recordings(record)
    expected = []
    last = [np.zeros((4, 6), np.uint8)] * 2
    for number in [2, 4, 6] if policy == "drop" else range(1, 7):
        there = [number in frames for frames in by_number]
        if policy == "zoh":
            last = [frames.get(number, old) for frames, old in zip(by_number, last, strict=True)]
        shown = [frames.get(number, old) for frames, old in zip(by_number, last, strict=True)]
        expected.append((number, shown, [10.0 * number if t else np.nan for t in there]))
    aligner = align.StoreAligner(*opened)
    assert list(aligner.extract_common_frames(policy)) == [number for number, _, _ in expected]
    for found, wanted in zip(aligner.iter_imgs(return_times=True), expected, strict=True):
        assert found[0] == wanted[0]
        np.testing.assert_array_equal(found[1], wanted[1])
        np.testing.assert_array_equal(found[2], wanted[2])
        for image in found[1]:
            image[...] = 0  # must not show in what comes later
    assert [len(item) for item in aligner.iter_imgs()] == [2] * len(expected)


def test_what_cannot_be_aligned(record: Record) -> None:
    opened, _ = recordings(record)
    other = imgstore_zarr.open(record(images(1, 4, 8), frame_number=[99]))
    with pytest.raises(FrameMismatchError, match=r"\(4, 6\).*\(4, 8\)"):
        align.StoreAligner(opened[0], other)
    with pytest.raises(FrameMismatchError, match="align recordings"):
        align.StoreAligner()
    aligner = align.StoreAligner(*opened)
    with pytest.raises(FrameNotFoundError, match="extract_common_frames"):
        aligner.iter_imgs()
    with pytest.raises(UnsupportedFormatError, match="'first'"):
        aligner.extract_common_frames("first")
    disjoint = imgstore_zarr.open(record(images(1, 4, 6), frame_number=[99]))
    aligner = align.StoreAligner(opened[0], disjoint)
    assert len(aligner.extract_common_frames("drop")) == 0
    with pytest.raises(FrameNotFoundError, match="'drop' keeps"):
        aligner.iter_imgs()


# apps

TIMECODES = "# timecode format v2\n0.000\n40.000\n-1.000\n1234.568\n"


def test_timecodes(
    record: Record, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = [100.0, 100.04, 99.999, 101.2345678]
    path = record(images(4), frame_time=times)
    text = io.StringIO()
    found = apps.generate_timecodes(imgstore_zarr.open(path), text)
    assert text.getvalue() == TIMECODES
    np.testing.assert_array_equal(found, np.asarray(times) - times[0])
    monkeypatch.setattr(sys, "argv", ["imgstore-timecodes", str(path)])
    apps.main_generate_timecodes()
    assert capsys.readouterr().out == TIMECODES
    monkeypatch.setattr(sys, "argv", ["imgstore-timecodes", str(path / "none")])
    with pytest.raises(SystemExit, match="2"):
        apps.main_generate_timecodes()
    assert "does not exist" in capsys.readouterr().err


# The runner of imgstore's own tests.


def test_the_runner_sees_what_its_tests_did(tmp_path: Path) -> None:
    wheel = tmp_path / "any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("imgstore/stores.py", "raise AssertionError")
        archive.writestr("imgstore/tests/__init__.py", "HERE = 1")
        archive.writestr(
            "imgstore/tests/test_imgstore.py",
            "import pytest, imgstore.stores\n"
            "from imgstore.tests import HERE\n"
            "def test_ours(): assert imgstore.stores.__name__ == 'imgstore_compat.imgstore.stores'\n"
            "def test_fails(): assert not HERE\n"
            "def test_skips(): pytest.skip()\n"
            "@pytest.mark.xfail\n"
            "def test_may_fail(): raise ValueError\n"
            "@pytest.mark.parametrize('n', [2, 100])\n"
            "def test_index(n): assert 0\n",
        )
    imgstore_suite.unpack(wheel, tmp_path / "new")
    results = imgstore_suite.outcomes(imgstore_suite.run(tmp_path / "new"))
    assert results == {
        "test_ours": "passed",
        "test_fails": "failed",
        "test_skips": "skipped",
        "test_may_fail": "xfailed",
        "test_index[2]": "failed",
        "test_index[100]": "failed",
    }
    wrong = imgstore_suite.judge(results)
    assert wrong == ["test_skips skipped", "test_fails", "6 tests ran, not 115"]


def test_the_runner_is_content_only_with_all_tests() -> None:
    results = {f"test_{i}": "passed" for i in range(113)}
    results |= dict.fromkeys(imgstore_suite.MAY_FAIL, "failed")
    assert imgstore_suite.judge(results) == []
    assert imgstore_suite.judge({}) == ["0 tests ran, not 115"]
    assert imgstore_suite.judge(results | {"test_3": "failed"}) == ["test_3"]

"""Extra data of Motif in HDF5, as the real imgstore 0.4.0 reads them.

No public recording has such files; these follow the facts in the design.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr import CorruptChunkError, InvalidMetadataError
from tests.reference import ImgStoreRaisedError, Reference, ours
from tests.test_differential_reading import to_table
from tests.test_motif import small

# The first test may have to make the reference's environment.
pytestmark = pytest.mark.timeout(600)

USED, ROWS = 6, 8
CAMERA = [("frame_number", "<i8"), ("frame_time", "<f8"), ("frame_index", "<i8")]


@dataclass(frozen=True)
class Dataset:
    """A data set of a chunk's file: one row of samples per column."""

    columns: str | bytes
    samples: NDArray[Any]
    samplerate: float | None = None


def daq(columns: str | bytes = b"left, right", samplerate: float | None = 1000.0) -> Dataset:
    rows = 1 + (columns.count(",") if isinstance(columns, str) else columns.count(b","))
    return Dataset(columns, np.arange(rows * ROWS, dtype=float).reshape(rows, ROWS), samplerate)


def write_h5(
    path: Path,
    datasets: Mapping[str, Dataset],
    names: str | bytes | None = None,
    first: int = 10,
    used: Sequence[int] = range(USED),
    more: Sequence[tuple[str, str]] = (),
) -> None:
    """Write a file of `ROWS` rows, of which only those in `used` have a frame."""
    camera = np.zeros(ROWS, [*CAMERA, *more])
    for place, name in enumerate(camera.dtype.names or ()):
        camera[name] = np.arange(ROWS) * (place + 1) + first
    camera["frame_number"] = -1
    camera["frame_number"][list(used)] = [first + i for i in used]
    with h5py.File(path, "w") as file:
        file.attrs["datasets"] = np.bytes_(", ".join(datasets)) if names is None else names
        file["camera"] = camera
        file["sample_delay"] = np.linspace(0, 1, ROWS)
        for name, dataset in datasets.items():
            stored = file.create_dataset(name, data=dataset.samples)
            columns = dataset.columns
            stored.attrs["column_names"] = (
                np.bytes_(columns) if isinstance(columns, bytes) else columns
            )
            if dataset.samplerate is not None:
                stored.attrs["samplerate"] = dataset.samplerate


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return small(tmp_path / "recording")


def assert_same(reference: Reference, root: Path, **options: Any) -> pd.DataFrame:
    theirs = to_table(reference("extra_data", path=root, **options))
    mine = to_table(ours("extra_data", path=root, **options))
    pd.testing.assert_frame_equal(mine, theirs)
    files = "extra_data_files"
    assert ours("describe", path=root)[files] == reference("describe", path=root)[files]
    return theirs


@pytest.mark.parametrize("columns", ["left, right", b"left, right", "a,b ,  c", b"one"], ids=repr)
@pytest.mark.parametrize("names", ["daq", np.bytes_("daq"), " daq "], ids=repr)
def test_one_dataset(
    reference: Reference, root: Path, columns: str | bytes, names: str | bytes
) -> None:
    write_h5(root / "000000.extra_data.h5", {"daq": daq(columns)}, names)
    table = assert_same(reference, root)
    assert len(table) == USED
    assert table["frame_number"].tolist() == list(range(10, 10 + USED))


@pytest.mark.parametrize("used", [range(ROWS), [0], [1, 2, 5], [ROWS - 1], range(2, 7)], ids=str)
def test_rows_that_were_preallocated(reference: Reference, root: Path, used: Sequence[int]) -> None:
    write_h5(root / "000000.extra_data.h5", {"daq": daq()}, used=used)
    assert len(assert_same(reference, root)) == len(used)


def test_no_row_was_used(reference: Reference, root: Path) -> None:
    write_h5(root / "000000.extra_data.h5", {"daq": daq()}, used=[])
    assert assert_same(reference, root).empty


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint8", "int64", "bool"])
def test_samples_of_any_type(reference: Reference, root: Path, dtype: str) -> None:
    samples = np.arange(2 * ROWS).reshape(2, ROWS).astype(dtype)
    write_h5(root / "000000.extra_data.h5", {"daq": Dataset("a, b", samples)})
    assert_same(reference, root)


def test_several_datasets(reference: Reference, root: Path) -> None:
    datasets = {"daq": daq(), "pressure": daq("upper, lower"), "unlisted": daq("never")}
    more = [("sensor_time", "<f4"), ("exposure", "<u2")]
    path = root / "000000.extra_data.h5"
    write_h5(path, datasets, np.bytes_("daq, pressure"), more=more)
    table = assert_same(reference, root)
    assert {"left", "lower", "exposure", "sample_delay"} <= set(table.columns)
    assert "never" not in table.columns


def test_a_column_that_occurs_twice(reference: Reference, root: Path) -> None:
    datasets = {"daq": daq("a, frame_time"), "other": daq("a, sample_delay")}
    write_h5(root / "000000.extra_data.h5", datasets)
    assert_same(reference, root)


def test_several_chunks(reference: Reference, root: Path) -> None:
    for chunk in (1, 2):
        for suffix in (".mp4", ".npz"):
            (root / f"{chunk:06d}{suffix}").write_bytes((root / f"000000{suffix}").read_bytes())
    write_h5(root / "000000.extra_data.h5", {"daq": daq()})
    (root / "000000.extra.json").write_text("[this is not read]")
    (root / "000001.extra_data.json").write_text(
        '[{"left": 1, "frame_number": 3, "frame_index": 9}]'
    )
    write_h5(root / "000002.extra_data.h5", {"daq": daq()}, first=30, used=range(3))
    assert len(assert_same(reference, root)) == USED + 1 + 3


# Sample rates


def test_samplerate(reference: Reference, root: Path) -> None:
    write_h5(root / "000000.extra_data.h5", {"daq": daq(samplerate=12.5)})
    assert ours("samplerate", path=root) == reference("samplerate", path=root) == 12.5


@pytest.mark.parametrize(
    "datasets",
    [{"daq": daq(samplerate=None)}, {"daq": daq(), "other": daq("b", 44100.0)}],
    ids=["none", "several"],
)
def test_no_single_samplerate(
    reference: Reference, root: Path, datasets: dict[str, Dataset]
) -> None:
    write_h5(root / "000000.extra_data.h5", datasets)
    with pytest.raises(ImgStoreRaisedError, match="ample rate") as theirs:
        reference("samplerate", path=root)
    assert theirs.value.builtins[0] == "ValueError"
    with pytest.raises(InvalidMetadataError):
        ours("samplerate", path=root)


def test_no_samplerate_without_extra_data(reference: Reference, root: Path) -> None:
    with pytest.raises(ImgStoreRaisedError, match="No sample rate"):
        reference("samplerate", path=root)
    with pytest.raises(InvalidMetadataError):
        ours("samplerate", path=root)


def test_known_difference_names_of_datasets_as_text(reference: Reference, root: Path) -> None:
    # imgstore reads the table of such a file, but fails to look for its rate.
    write_h5(root / "000000.extra_data.h5", {"daq": daq()}, "daq")
    with pytest.raises(ImgStoreRaisedError, match="AttributeError"):
        reference("samplerate", path=root)
    assert ours("samplerate", path=root) == 1000


# Damage


@pytest.mark.parametrize("damage", ["truncated", "garbage", "no camera", "no names", "columns"])
def test_damaged_files(reference: Reference, root: Path, damage: str) -> None:
    for suffix in (".mp4", ".npz"):
        (root / f"000001{suffix}").write_bytes((root / f"000000{suffix}").read_bytes())
    write_h5(root / "000000.extra_data.h5", {"daq": daq()})
    path = root / "000001.extra_data.h5"
    write_h5(path, {"daq": daq()})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "garbage":
        path.write_bytes(b"no HDF5")
    else:
        with h5py.File(path, "r+") as file:
            if damage == "no camera":
                del file["camera"]
            elif damage == "no names":
                del file.attrs["datasets"]
            else:
                file["daq"].attrs["column_names"] = "one"
    with pytest.raises(ImgStoreRaisedError):
        reference("extra_data", path=root)
    with pytest.raises(CorruptChunkError, match=r"000001\.extra_data\.h5"):
        ours("extra_data", path=root)
    with pytest.warns(UserWarning, match=r"000001\.extra_data\.h5"):
        table = assert_same(reference, root, ignore_corrupt_chunks=True)
    assert len(table) == USED


def test_known_difference_data_at_a_rate_of_their_own(reference: Reference, root: Path) -> None:
    # imgstore fails on samples that do not belong to frames one by one; here they are left out of
    # the table of frames, with a warning, and the others are read.
    audio = Dataset("sound", np.zeros((1, 50 * ROWS)), 44100.0)
    write_h5(root / "000000.extra_data.h5", {"daq": daq(), "audio": audio})
    with pytest.raises(ImgStoreRaisedError):
        reference("extra_data", path=root)
    with pytest.warns(UserWarning, match="audio"):
        mine = imgstore_zarr.open(root).get_extra_data()
    write_h5(root / "000000.extra_data.h5", {"daq": daq()})
    assert mine is not None
    pd.testing.assert_frame_equal(mine, to_table(reference("extra_data", path=root)))


@pytest.mark.parametrize("damage", ["garbage", "cut off", "no datasets", "a data set is missing"])
def test_the_rate_in_a_damaged_file(tmp_path: Path, damage: str) -> None:
    root = small(tmp_path / "recording")
    path = root / "000000.extra_data.h5"
    write_h5(path, {"daq": daq()}, "daq, audio" if damage == "a data set is missing" else None)
    if damage == "garbage":
        path.write_bytes(b"no data" * 100)
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "no datasets":
        with h5py.File(path, "a") as file:
            del file.attrs["datasets"]
    store = imgstore_zarr.open(root)
    match = r"recording: the extra data 000000\.extra_data\.h5 of chunk 0 are damaged"
    if damage == "no datasets":
        match += r".* no attribute 'datasets'"
    with pytest.raises(CorruptChunkError, match=match):
        store.get_extra_data_samplerate()
    with pytest.raises(CorruptChunkError, match=match):
        store.get_extra_data()
    (problem,) = store.report().problems
    assert (problem.kind, problem.chunk) == ("extra-data-damaged", 0)

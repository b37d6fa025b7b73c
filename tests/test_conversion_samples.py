"""What was sampled beside the frames comes along with a conversion, to the last sample.

What is expected is read by h5py out of Motif's files, and by zarr out of the new recording.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr import ClockCorrection, convert
from imgstore_zarr.comparison import compare_samples
from imgstore_zarr.conversion_source import Source
from imgstore_zarr.cores import CORES
from imgstore_zarr.extra import HasSampledData, SampledSource
from imgstore_zarr.native import sampled_columns
from imgstore_zarr.native.sampled_columns import write_sampled
from imgstore_zarr.storage import Directory, locate
from tests.test_motif_h5 import ROWS, Dataset, write_h5

# Three chunks of two frames, 40 ms apart; and a break before each chunk.
CHUNKS, FRAMES, RATE = 3, 6, 250.0
TIMES = np.array([1.7e9 + i / 25 + 10 * (i // 2) for i in range(FRAMES)])
# Samples of a chunk: the device goes on a little after the last frame, or ends before it.
AUDIO = (23, 9, 31)


def audio(chunk: int, rate: float | None = RATE, columns: str = "left, right") -> Dataset:
    values = np.random.default_rng(chunk).normal(size=(columns.count(",") + 1, AUDIO[chunk]))
    return Dataset(columns, values.astype("f4"), rate)


def daq(chunk: int) -> Dataset:
    return Dataset("volts, light", np.arange(2 * ROWS).reshape(2, ROWS).astype("i2") + 100 * chunk)


def recorded(root: Path, chunks: Sequence[Mapping[str, Dataset]] | None = None) -> Path:
    chunks = chunks or [{"daq": daq(i), "audio": audio(i)} for i in range(CHUNKS)]
    with imgstore_zarr.create(root, "npy/dir", (4, 5), chunksize=2) as writer:
        for i in range(FRAMES):
            writer.add_image(np.full((4, 5), i, np.uint8), i, TIMES[i])
    for chunk, datasets in enumerate(chunks):
        path = root / f"{chunk:06d}.extra_data.h5"
        write_h5(path, datasets, ", ".join(datasets), first=2 * chunk, used=range(2))
        with h5py.File(path, "r+") as file:
            camera = file["camera"][:]
            camera["frame_time"][:2] = TIMES[2 * chunk : 2 * chunk + 2]
            camera["frame_index"][:2] = 2 * chunk, 2 * chunk + 1
            file["camera"][...] = camera
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return recorded(tmp_path / "source")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few samples, so that there are several."""
    monkeypatch.setattr(sampled_columns, "SAMPLED_CHUNK", 7)


def stored(root: Path, dataset: str, row: int, used: int | None = None) -> NDArray[Any]:
    """What h5py finds in the files, one after the other."""
    parts = []
    for path in sorted(root.glob("*.extra_data.h5")):
        with h5py.File(path) as file:
            parts.append(file[dataset][row, :used])
    return np.concatenate(parts)


def audio_times() -> NDArray[np.float64]:
    """When the samples were taken: a chunk's begin with its first frame."""
    return np.concatenate([TIMES[2 * i] + np.arange(AUDIO[i]) / RATE for i in range(CHUNKS)])


def tree_of(location: Any) -> xr.DataTree:
    return imgstore_zarr.open(location).to_datatree()


def assert_same_tree(one: xr.DataTree, other: xr.DataTree) -> None:
    assert set(one.children) == set(other.children)
    for name in ("image", "frame_number", "frame_time"):
        np.testing.assert_array_equal(one[name], other[name])
        kept = set(one[name].attrs) - {"recording", "format", "uuid"}
        assert kept == set(other[name].attrs) - {"recording", "format", "uuid"}
        assert all(one[name].attrs[key] == other[name].attrs[key] for key in kept)
    for name in set(one.children) - {"extra"}:
        groups = [tree.children[name].to_dataset(inherit=False) for tree in (one, other)]
        xr.testing.assert_identical(*groups)
        assert list(groups[0].variables) == list(groups[1].variables)
        for variable in groups[0].variables:
            assert groups[0][variable].dtype == groups[1][variable].dtype


def array(root: Any, name: str) -> zarr.Array[Any]:
    group = zarr.open_group(root, mode="r")
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found


# What comes along.


@pytest.mark.usefixtures("small_chunks")
def test_the_same_tree(tmp_path: Path, source: Path) -> None:
    report = convert(source, tmp_path / "copy", "zstd/zarr", verify=True)
    assert report.left_out == ()
    before, after = tree_of(source), tree_of(tmp_path / "copy")
    assert set(after.children) == {"extra", "daq", "audio"}
    assert_same_tree(before, after)
    records = before["extra"].to_dataset()
    xr.testing.assert_identical(after["extra"].to_dataset()[list(records)], records)
    again = tmp_path / "again"
    convert(tmp_path / "copy", again, "raw/zarr", verify=True)
    assert_same_tree(before, tree_of(again))
    for place in (tmp_path / "copy", again):
        assert imgstore_zarr.verify(place).problems == ()
        assert imgstore_zarr.open(place).has_extra_data


@pytest.mark.usefixtures("small_chunks")
def test_zarr_reads_what_h5py_reads(tmp_path: Path, source: Path) -> None:
    copy = tmp_path / "copy"
    convert(source, copy, "zstd/zarr")
    for row, column in enumerate(["left", "right"]):
        found = array(copy, f"sampled/audio/{column}")
        np.testing.assert_array_equal(found[:], stored(source, "audio", row))
        assert found.metadata.dimension_names == ("sample",)  # type: ignore[union-attr]
        assert dict(found.attrs) == {"samplerate": RATE, "samplerate_units": "Hz"}
    np.testing.assert_array_equal(array(copy, "sampled/audio/time")[:], audio_times())
    np.testing.assert_array_equal(array(copy, "sampled/daq/light")[:], stored(source, "daq", 1, 2))
    np.testing.assert_array_equal(array(copy, "sampled/daq/time")[:], TIMES)
    nodes = json.loads((copy / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    names = {key for key in nodes if key.startswith("sampled")}
    assert names == {
        "sampled",
        *(f"sampled/daq{name}" for name in ("", "/volts", "/light", "/time")),
        *(f"sampled/audio{name}" for name in ("", "/left", "/right", "/time")),
    }
    for name in names:
        assert json.loads((copy / name / "zarr.json").read_text()) == nodes[name]
        codecs = [codec["name"] for codec in nodes[name].get("codecs", [])]
        assert codecs in ([], ["bytes", "zstd", "crc32c"])


def test_xarray_reads_it_without_this_package(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "copy", "zstd/zarr")
    group = xr.open_zarr(tmp_path / "copy", group="sampled/audio", chunks=None, decode_times=False)
    assert group.sizes == {"sample": sum(AUDIO)}
    assert set(group.coords) == {"time"}
    assert group.attrs["samplerate"] == RATE
    np.testing.assert_array_equal(group["left"], stored(source, "audio", 0))


@pytest.mark.usefixtures("small_chunks")
def test_any_range_of_samples(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "copy", "zstd/zarr")
    extra = imgstore_zarr.open(tmp_path / "copy").parts.extra
    assert isinstance(extra, HasSampledData)
    samples = extra.datasets()["audio"]
    assert samples.lengths.tolist() == [7] * 9
    for start, stop in itertools.combinations_with_replacement(range(sum(AUDIO) + 1), 2):
        expected = stored(source, "audio", 0)[start:stop]
        np.testing.assert_array_equal(samples.read("left", start, stop), expected, strict=True)
    np.testing.assert_array_equal(samples.times(20, 30), audio_times()[20:30])


def test_samples_are_read_when_they_are_asked_for(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(source, tmp_path / "copy", "zstd/zarr")
    read, keys = Directory.read, []

    def noting(self: Directory, key: str) -> bytes:
        keys.append(key)
        return read(self, key)

    monkeypatch.setattr(Directory, "read", noting)
    tree = tree_of(tmp_path / "copy")
    repr(tree)
    assert not [key for key in keys if key.startswith("sampled") and "/c/" in key]
    assert tree["audio/left"].to_numpy().shape == (sum(AUDIO),)
    assert "sampled/audio/left/c/0" in keys
    assert "sampled/audio/right/c/0" not in keys


DTYPES = ["<i2", ">f8", "u1", "bool", "i8", "f2", "<u4"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_of_any_type(tmp_path: Path, dtype: str) -> None:
    chunks = []
    for i in range(CHUNKS):
        values = (np.arange(AUDIO[i])[None] % 200 - 50).astype(dtype)
        chunks.append({"audio": Dataset("a", values, RATE)})
    source = recorded(tmp_path / "source", chunks)
    convert(source, tmp_path / "copy", "zstd/zarr", verify=True)
    found = array(tmp_path / "copy", "sampled/audio/a")
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found[:], stored(source, "audio", 0))
    assert_same_tree(tree_of(source), tree_of(tmp_path / "copy"))
    assert imgstore_zarr.open(tmp_path / "copy").get_extra_data_samplerate() == RATE


NAMES = ["time", "zarr.json", "a/b", "..", "é", "time-1", "sample", "channel", "x" * 300]


def test_names_that_arrays_cannot_have(tmp_path: Path) -> None:
    columns = ",".join(NAMES)
    audio_ = [audio(i, columns=columns) for i in range(CHUNKS)]
    source = recorded(tmp_path / "source", [{"deep/audio": one, "é": one} for one in audio_])
    convert(source, tmp_path / "copy", "zstd/zarr", verify=True)
    assert_same_tree(tree_of(source), tree_of(tmp_path / "copy"))
    assert imgstore_zarr.verify(tmp_path / "copy").problems == ()
    extra = imgstore_zarr.open(tmp_path / "copy").parts.extra
    assert isinstance(extra, HasSampledData)
    assert [*extra.datasets()] == ["deep/audio", "é"]
    assert [*extra.datasets()["é"].dtypes] == NAMES
    np.testing.assert_array_equal(
        extra.datasets()["é"].read("time", 0, 63), stored(source, "é", 0), strict=True
    )


def test_on_a_corrected_clock(tmp_path: Path, source: Path) -> None:
    view = imgstore_zarr.open(source).with_clock(ClockCorrection(offset=5.0))
    convert(view, tmp_path / "copy", "zstd/zarr", verify=True)
    np.testing.assert_array_equal(array(tmp_path / "copy", "sampled/daq/time")[:], TIMES + 5)
    assert_same_tree(view.to_datatree(), tree_of(tmp_path / "copy"))


def test_to_another_store(source: Path) -> None:
    store = zarr.storage.MemoryStore()
    convert(source, store, "zstd/zarr", verify=True)
    np.testing.assert_array_equal(array(store, "sampled/audio/left")[:], stored(source, "audio", 0))
    assert imgstore_zarr.verify(store).problems == ()


# What does not come along.


@pytest.mark.parametrize("target", ["avc1/mp4", "npy/dir"])
def test_there_is_no_place_for_them(tmp_path: Path, target: str) -> None:
    with imgstore_zarr.create(tmp_path / "source", "npy/dir", (48, 64)) as writer:
        writer.add_image(np.zeros((48, 64), np.uint8), 0, 1.0)
    write_h5(tmp_path / "source/000000.extra_data.h5", {"audio": audio(0)}, first=0, used=[0])
    report = convert(tmp_path / "source", tmp_path / "copy", target)
    assert report.left_out == ("audio (23 samples of 2 columns, 250 Hz)",)


def test_text_is_left_out(tmp_path: Path) -> None:
    text = [Dataset("a", np.full((1, AUDIO[i]), b"xyz"), RATE) for i in range(CHUNKS)]
    chunks = [{"audio": audio(i), "notes": text[i]} for i in range(CHUNKS)]
    source = recorded(tmp_path / "source", chunks)
    report = convert(source, tmp_path / "copy", "zstd/zarr", verify=True)
    assert report.left_out == ("notes (63 samples of 1 column, 250 Hz), of the type |S3",)
    assert "notes" not in tree_of(tmp_path / "copy").children


def test_samples_of_which_nothing_says_when(tmp_path: Path) -> None:
    source = recorded(tmp_path / "source", [{"audio": audio(i, rate=None)} for i in range(CHUNKS)])
    assert convert(source, tmp_path / "copy", "zstd/zarr", verify=True).left_out == ()
    assert_same_tree(tree_of(source), tree_of(tmp_path / "copy"))
    report = convert(source, tmp_path / "cut", "zstd/zarr", frames=slice(0, 3))
    (left_out,) = report.left_out
    assert left_out == "audio (63 samples of 2 columns), since nothing says when they were taken"


def test_samples_of_different_rates(tmp_path: Path) -> None:
    """They make no dataset; the rest comes along when that is asked for."""
    chunks = [{"daq": daq(i), "audio": audio(i, rate=RATE + (i == 2))} for i in range(CHUNKS)]
    source = recorded(tmp_path / "source", chunks)
    with pytest.raises(imgstore_zarr.InvalidMetadataError, match="samplerate of audio"):
        convert(source, tmp_path / "copy", "zstd/zarr")
    with pytest.warns(UserWarning, match="audio"):
        report = convert(source, tmp_path / "copy", "zstd/zarr", damaged="skip", verify=True)
    (left_out,) = report.left_out
    assert left_out.startswith("everything that was sampled beside the frames, since")
    assert "samplerate of audio" in left_out
    assert imgstore_zarr.verify(tmp_path / "copy").problems == ()


# Cuts.

CUTS: list[tuple[dict[str, Any], float, float]] = [
    ({"frames": slice(0, 6)}, -np.inf, np.inf),
    ({"stride": 3}, -np.inf, np.inf),
    ({"frames": slice(0, 3)}, -np.inf, TIMES[3]),
    ({"frames": slice(1, 3)}, TIMES[1], TIMES[3]),
    ({"frames": slice(3, None)}, TIMES[3], np.inf),
    ({"frames": slice(1, 5), "stride": 10}, TIMES[1], TIMES[5]),
    ({"frames": [4, 2]}, TIMES[2], TIMES[5]),
    ({"time": (TIMES[1], TIMES[4])}, TIMES[1], TIMES[4]),
    ({"time": (TIMES[1] - 0.01, TIMES[3] + 0.01)}, TIMES[1] - 0.01, TIMES[3] + 0.01),
    ({"time": (TIMES[1], TIMES[5]), "frames": slice(0, 3)}, TIMES[1], TIMES[3]),
    ({"time": (None, TIMES[2]), "roi": (slice(0, 2), slice(1, 4))}, -np.inf, TIMES[2]),
]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("options", "first", "end"), CUTS, ids=str)
def test_cuts(
    tmp_path: Path, source: Path, options: dict[str, Any], first: float, end: float
) -> None:
    convert(source, tmp_path / "copy", "zstd/zarr", verify=True, **options)
    times = audio_times()
    kept = (times >= first) & (times < end)
    group = tree_of(tmp_path / "copy").children["audio"]
    np.testing.assert_array_equal(group["time"], times[kept])
    np.testing.assert_array_equal(group["right"], stored(source, "audio", 1)[kept])
    rows = np.logical_and(TIMES >= first, TIMES < end)  # noqa: SIM300
    found = tree_of(tmp_path / "copy")["daq/volts"]
    np.testing.assert_array_equal(found, stored(source, "daq", 0, 2)[rows])
    assert imgstore_zarr.verify(tmp_path / "copy").problems == ()


def test_parts_of_a_cut_have_every_sample_once(tmp_path: Path, source: Path) -> None:
    parts = []
    for start, stop in itertools.pairwise([0, 1, 4, 6]):
        place = tmp_path / str(start)
        convert(source, place, "zstd/zarr", frames=slice(start, stop))
        parts.append(array(place, "sampled/audio/left")[:])
    np.testing.assert_array_equal(np.concatenate(parts), stored(source, "audio", 0))


@pytest.mark.parametrize(("cut", "kept"), [(slice(0, 3), 23), (slice(3, None), 31)], ids=str)
def test_a_chunk_of_which_nothing_says_when(
    tmp_path: Path, source: Path, cut: slice, kept: int
) -> None:
    """Its file has no row of a frame, so nobody knows on which side of a cut its samples are."""
    with h5py.File(source / "000001.extra_data.h5", "r+") as file:
        camera = file["camera"][:]
        camera["frame_number"] = -1
        file["camera"][...] = camera
    assert convert(source, tmp_path / "all", "zstd/zarr", verify=True).left_out == ()
    expected = stored(source, "audio", 0)
    np.testing.assert_array_equal(array(tmp_path / "all", "sampled/audio/left")[:], expected)
    report = convert(source, tmp_path / "cut", "zstd/zarr", frames=cut, verify=True)
    assert report.left_out == ("9 samples of audio, since nothing says when they were taken",)
    assert array(tmp_path / "cut", "sampled/audio/left").shape == (kept,)


def test_frames_that_have_no_time(tmp_path: Path) -> None:
    whole = recorded(tmp_path / "whole")
    source = tmp_path / "source"
    with imgstore_zarr.create(source, "npy/dir", (4, 5), chunksize=2) as writer:
        for i in range(FRAMES):
            writer.add_image(np.zeros((4, 5), np.uint8), i, np.nan if i == 3 else TIMES[i])
    for path in whole.glob("*.extra_data.h5"):
        path.rename(source / path.name)
    report = convert(source, tmp_path / "none", "zstd/zarr", frames=[3], verify=True)
    assert report.left_out == (
        "daq (6 samples of 2 columns), since no frame that is kept has a time",
        "audio (63 samples of 2 columns, 250 Hz), since no frame that is kept has a time",
    )
    convert(source, tmp_path / "some", "zstd/zarr", frames=[3, 4], verify=True)
    times = audio_times()
    kept = (times >= TIMES[4]) & (times < TIMES[5])
    found = array(tmp_path / "some", "sampled/audio/time")[:]
    np.testing.assert_array_equal(found, times[kept])


@pytest.mark.usefixtures("small_chunks")
def test_times_that_go_back(tmp_path: Path, source: Path) -> None:
    """A cut then takes several ranges of samples."""
    path = source / "000002.extra_data.h5"
    with h5py.File(path, "r+") as file:
        camera = file["camera"][:]
        camera["frame_time"][:2] = TIMES[0] + 0.02, TIMES[0] + 0.06
        file["camera"][...] = camera
    copy = tmp_path / "copy"
    convert(source, copy, "zstd/zarr", time=(TIMES[0], TIMES[1]), verify=True)
    origins = [TIMES[0], TIMES[2], TIMES[0] + 0.02]
    times = np.concatenate([origins[i] + np.arange(AUDIO[i]) / RATE for i in range(CHUNKS)])
    kept = times < TIMES[1]
    assert len(np.flatnonzero(np.diff(kept))) == 3
    np.testing.assert_array_equal(array(copy, "sampled/audio/time")[:], times[kept])
    expected = stored(source, "audio", 0)[kept]
    np.testing.assert_array_equal(array(copy, "sampled/audio/left")[:], expected)


@pytest.mark.filterwarnings("ignore:.*audio in")
def test_a_file_that_is_cut_off_costs_its_own_samples_only(tmp_path: Path, source: Path) -> None:
    file = source / "000001.extra_data.h5"
    file.write_bytes(file.read_bytes()[:900])
    report = convert(source, tmp_path / "copy", "zstd/zarr", damaged="skip", verify=True)
    (left_out,) = report.left_out
    assert "000001.extra_data.h5" in left_out
    expected = np.delete(audio_times(), np.s_[23:32])
    np.testing.assert_array_equal(array(tmp_path / "copy", "sampled/audio/time")[:], expected)
    assert array(tmp_path / "copy", "sampled/daq/volts").shape == (4,)


# Crashes and damage.


class CrashError(Exception):
    pass


@pytest.mark.parametrize("at", ["audio/right/c/3", "daq/volts/c/0", "audio/time/c/8"])
@pytest.mark.usefixtures("small_chunks")
def test_a_crash_in_the_middle(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    copy = tmp_path / "copy"
    write = Directory.write

    def crashing(self: Directory, key: str, data: Any, *, durable: bool = False) -> None:
        if key == f"sampled/{at}":
            raise CrashError
        write(self, key, data, durable=durable)

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "write", crashing)
        with pytest.raises(CrashError):
            convert(source, copy, "zstd/zarr", chunksize=2)
    with pytest.raises(imgstore_zarr.RecordingNotFoundError, match="is not finished"):
        imgstore_zarr.open(copy)
    report = convert(source, copy, "zstd/zarr", chunksize=2, verify=True)
    assert report.resumed == 3
    assert_same_tree(tree_of(source), tree_of(copy))
    assert imgstore_zarr.verify(copy).problems == ()


KILLED = """
import os, signal, sys
import imgstore_zarr
from imgstore_zarr.native import sampled_columns
from imgstore_zarr.storage import Directory

sampled_columns.SAMPLED_CHUNK = 7
write = Directory.write

def killing(self, key, data, *, durable=False):
    if (str(self.root), key) == (sys.argv[2], sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, key, data, durable=durable)

Directory.write = killing
imgstore_zarr.convert(sys.argv[1], sys.argv[2], "zstd/zarr", chunksize=2)
"""


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    "at",
    ["sampled/audio/right/c/3", "sampled/audio/time/c/8", "sampled/daq/zarr.json", "zarr.json"],
)
def test_it_is_killed_while_it_copies_samples(tmp_path: Path, source: Path, at: str) -> None:
    copy = tmp_path / "copy"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(source), str(copy), at], timeout=100, check=False
    )
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(imgstore_zarr.RecordingNotFoundError, match="is not finished"):
        imgstore_zarr.open(copy)
    assert convert(source, copy, "zstd/zarr", chunksize=2, verify=True).resumed == 3
    assert_same_tree(tree_of(source), tree_of(copy))
    assert imgstore_zarr.verify(copy).problems == ()
    assert not (copy / ".conversion").exists()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("damage", ["flipped", "missing", "cut off"])
@pytest.mark.parametrize("column", ["right", "time"])
def test_damage_is_found(tmp_path: Path, source: Path, damage: str, column: str) -> None:
    copy = tmp_path / "copy"
    convert(source, copy, "zstd/zarr")
    key = f"sampled/audio/{column}/c/2"
    data = (copy / key).read_bytes()
    if damage == "missing":
        (copy / key).unlink()
    else:
        changed = data[:9] + bytes([data[9] ^ 1]) + data[10:] if damage == "flipped" else data[:9]
        (copy / key).write_bytes(changed)
    (problem,) = imgstore_zarr.verify(copy).problems
    assert problem.kind == "extra-data-damaged"
    assert key in problem.message
    assert str(copy) in problem.message
    tree = tree_of(copy)
    error = (imgstore_zarr.ChunkMissingError, imgstore_zarr.CorruptChunkError)
    with pytest.raises(error, match=key):
        tree[f"audio/{column}"].to_numpy()
    assert tree["audio/left"].to_numpy().shape == (63,)


def damage_audio(path: Path) -> None:
    """Store the audio of a file anew with checksums, and damage the samples from the fourth on."""
    with h5py.File(path, "r+") as file:
        values, attributes = file["audio"][:], dict(file["audio"].attrs)
        del file["audio"]
        stored_ = file.create_dataset("audio", data=values, chunks=(2, 4), fletcher32=True)
        stored_.attrs.update(attributes)
        offset = stored_.id.get_chunk_info(1).byte_offset
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xff\xff")


def test_damaged_samples_of_motif_are_found(tmp_path: Path, source: Path) -> None:
    damage_audio(source / "000001.extra_data.h5")
    with pytest.warns(UserWarning, match="audio"):
        problems = imgstore_zarr.verify(source).problems
    # Both columns lie in it, of which the same is told.
    assert [problem.kind for problem in problems] == ["extra-data-damaged"]
    assert "000001.extra_data.h5" in problems[0].message
    with pytest.raises(imgstore_zarr.CorruptChunkError, match=r"000001\.extra_data\.h5"):
        convert(source, tmp_path / "copy", "zstd/zarr", chunksize=2)
    # The frames are there already; what can be read comes along when that is asked for.
    report = convert(
        source, tmp_path / "copy", "zstd/zarr", chunksize=2, damaged="skip", verify=True
    )
    assert report.resumed == 3
    assert report.left_out == ("9 samples of audio that cannot be read",)
    expected = np.delete(audio_times(), np.s_[23:32])
    np.testing.assert_array_equal(array(tmp_path / "copy", "sampled/audio/time")[:], expected)


@pytest.mark.parametrize(("cut", "lost"), [(slice(0, 2), 0), (slice(0, 3), 9), (slice(4, 6), 0)])
def test_only_damage_within_a_cut_is_told(
    tmp_path: Path, source: Path, cut: slice, lost: int
) -> None:
    damage_audio(source / "000001.extra_data.h5")
    report = convert(
        source, tmp_path / "copy", "zstd/zarr", frames=cut, damaged="skip", verify=True
    )
    assert report.left_out == (f"{lost} samples of audio that cannot be read",)[: min(lost, 1)]
    times = audio_times()
    ends = [-np.inf, *TIMES[1:], np.inf]
    kept = (times >= ends[cut.start]) & (times < ends[cut.stop])
    kept[23:32] = False
    found = array(tmp_path / "copy", "sampled/audio/time")[:]
    np.testing.assert_array_equal(found, times[kept])


@pytest.mark.usefixtures("small_chunks")
def test_nothing_is_left_of_a_run_that_took_more(tmp_path: Path, source: Path) -> None:
    copy = tmp_path / "copy"
    damage_audio(source / "000002.extra_data.h5")
    with pytest.raises(imgstore_zarr.CorruptChunkError):
        convert(source, copy, "zstd/zarr", chunksize=2)
    # What it began in parallel may be there, and is more than comes along now.
    chunks = copy / "sampled/audio/left/c"
    chunks.mkdir(parents=True, exist_ok=True)
    (chunks / "7").write_bytes(b"of a run that took more")
    (chunks / ".new-1").write_bytes(b"cut off by a kill")
    (copy / "sampled/gone/a/c").mkdir(parents=True)
    (copy / "sampled/gone/a/c/0").write_bytes(b"of a dataset that cannot be read now")
    convert(source, copy, "zstd/zarr", chunksize=2, damaged="skip", verify=True)
    assert array(copy, "sampled/audio/left").shape == (32,)
    assert {path.name for path in chunks.iterdir()} == {"0", "1", "2", "3", "4"}
    assert {path.name for path in (copy / "sampled").iterdir()} == {"zarr.json", "audio", "daq"}
    assert imgstore_zarr.verify(copy).problems == ()


def test_no_dataset_is_left_of_a_run_that_had_some(tmp_path: Path, source: Path) -> None:
    write_sampled(Directory(tmp_path), Source.of(source).beside.datasets, durable=False)
    assert (tmp_path / "sampled/audio/left/c/0").exists()
    assert write_sampled(Directory(tmp_path), {}, durable=False) == {}
    assert not (tmp_path / "sampled").exists()


@pytest.mark.filterwarnings("ignore:.*audio in")
def test_samples_are_verified_also_where_records_are_damaged(source: Path) -> None:
    damage_audio(source / "000002.extra_data.h5")
    (source / "000000.extra_data.h5").unlink()
    (source / "000000.extra_data.json").write_text('[{"x": nonsense}]')
    messages = [problem.message for problem in imgstore_zarr.verify(source).problems]
    assert ["000000.extra_data.json" in one for one in messages] == [True, False]
    assert "000002.extra_data.h5" in messages[1]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"shape": [-3]}, imgstore_zarr.InvalidMetadataError, "metadata of sampled/audio"),
        ({"shape": [62]}, imgstore_zarr.InvalidMetadataError, r"lengths \[62, 63\]"),
        ({"data_type": "complex64"}, imgstore_zarr.InvalidMetadataError, "complex64"),
        ({"codecs": []}, imgstore_zarr.UnsupportedFormatError, "codecs of sampled/audio/left"),
    ],
    ids=str,
)
def test_damaged_metadata(
    tmp_path: Path, source: Path, change: dict[str, Any], error: type[Exception], said: str
) -> None:
    convert(source, tmp_path / "copy", "zstd/zarr")
    path = tmp_path / "copy/zarr.json"
    document = json.loads(path.read_text())
    document["consolidated_metadata"]["metadata"]["sampled/audio/left"].update(change)
    path.write_text(json.dumps(document))
    store = imgstore_zarr.open(tmp_path / "copy")
    assert [problem.kind for problem in store.parts.problems] == ["metadata-changed"]
    with pytest.raises(error, match=said):
        store.to_datatree()
    assert store.frames[...].shape == (FRAMES, 4, 5)
    kinds = {problem.kind for problem in imgstore_zarr.verify(tmp_path / "copy").problems}
    assert "extra-data-damaged" in kinds


def test_what_belongs_to_nothing(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "copy", "zstd/zarr")
    (tmp_path / "copy/sampled/audio/other").mkdir()
    (tmp_path / "copy/sampled/audio/other/file").touch()
    (tmp_path / "copy/sampled/more").touch()
    found = [problem.message for problem in imgstore_zarr.verify(tmp_path / "copy").problems]
    assert len(found) == 2
    assert "sampled/more belongs to nothing" in found[0]
    assert "sampled/audio/other belongs to nothing" in found[1]


def test_comparing_finds_what_differs(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "copy", "zstd/zarr")
    place, origin = locate(tmp_path / "copy"), Source.of(source)
    compare_samples(place, origin, origin.beside.datasets)
    with h5py.File(source / "000001.extra_data.h5", "r+") as file:
        file["audio"][1, 4] += 1
    with pytest.raises(
        imgstore_zarr.CorruptChunkError, match=r"samples of audio .*right at sample 27"
    ):
        compare_samples(place, origin, origin.beside.datasets)
    convert(recorded(tmp_path / "bare", [{"daq": daq(0)}]), tmp_path / "less", "zstd/zarr")
    with pytest.raises(imgstore_zarr.CorruptChunkError, match=r"daq .*there are 2 of 6"):
        compare_samples(locate(tmp_path / "less"), origin, origin.beside.datasets)
    only = {"audio": origin.beside.datasets["audio"]}
    with pytest.raises(imgstore_zarr.CorruptChunkError, match=r"audio .*they are not there"):
        compare_samples(locate(tmp_path / "less"), origin, only)


# Writers that go on with such a recording.


def test_appending_and_renumbering_keep_the_samples(tmp_path: Path, source: Path) -> None:
    copy = tmp_path / "copy"
    convert(source, copy, "zstd/zarr")
    with imgstore_zarr.create(copy, "zstd/zarr", (4, 5), mode="a") as writer:
        writer.add_image(np.zeros((4, 5), np.uint8), 6, TIMES[-1] + 1)
        writer.add_extra_data(volts=7)
    imgstore_zarr.open(copy).reindex()
    store = imgstore_zarr.open(copy)
    assert len(store) == FRAMES + 1
    np.testing.assert_array_equal(store.to_datatree()["audio/left"], stored(source, "audio", 0))
    assert imgstore_zarr.verify(copy).problems == ()


def test_emptying_throws_them_away(tmp_path: Path, source: Path) -> None:
    copy = tmp_path / "copy"
    convert(source, copy, "zstd/zarr")
    with imgstore_zarr.create(copy, "zstd/zarr", (4, 5), mode="a") as writer:
        writer.empty()
        writer.add_image(np.zeros((4, 5), np.uint8), 0, 0.0)
    assert not tree_of(copy).children
    assert not (copy / "sampled").exists()
    assert imgstore_zarr.verify(copy).problems == ()


# A week of it.


class Ramp:
    """Samples that are made when they are read."""

    dtypes = {"ramp": np.dtype(np.float32)}  # noqa: RUF012
    samplerate = None
    timed = False

    def __init__(self, count: int) -> None:
        self.lengths = np.array([count])

    def read(self, column: str, start: int, stop: int) -> NDArray[Any]:
        return np.arange(start, stop, dtype=np.float32)

    def times(self, start: int, stop: int) -> NDArray[np.float64]:
        raise AssertionError("there are none")


class Nowhere(Directory):
    def write(self, key: str, data: Any, *, durable: bool = False) -> None:
        """Forget it."""


def test_memory_does_not_grow_with_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 2**16
    monkeypatch.setattr(sampled_columns, "SAMPLED_CHUNK", size)
    count = 50 * (CORES + 1) * size
    tracemalloc.start()
    try:
        source: SampledSource = Ramp(count)
        write_sampled(Nowhere(tmp_path), {"ramp": source}, durable=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 4 bytes a sample: a few copies of a chunk for each core, of 50.
    assert peak < 20 * (CORES + 1) * size

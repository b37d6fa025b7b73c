"""convert where something cannot be read, or not written: what is left out is told, and what failed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr import ChunkMissingError, CorruptChunkError, DamagedFrames, convert
from imgstore_zarr.native.layout import ZarrLayout
from imgstore_zarr.storage import Directory
from tests.test_conversion import (
    COUNT,
    NUMBERS,
    SHAPE,
    TIMES,
    StopError,
    cli,
    images,
    pixels,
    recorded,
    stopping,
)

ROOT = Path(__file__).parents[1]


def flip_in_frame(root: Path, chunk: int, place: int) -> None:
    """Change a byte of one frame of a raw/zarr chunk: its checksum is wrong then."""
    shard = root / f"image/c/{chunk}/0/0"
    data = bytearray(shard.read_bytes())
    data[place * (SHAPE[0] * SHAPE[1] + 4) + 100] ^= 1
    shard.write_bytes(data)


def damaged_source(root: Path) -> tuple[Path, list[int]]:
    """Chunk 1 (positions 16 .. 31) is gone, and of the others some frames are damaged."""
    recorded(root)
    (root / "image/c/1/0/0").unlink()
    for chunk, place in ((0, 3), (2, 0), (2, 1), (3, 1)):
        flip_in_frame(root, chunk, place)
    return root, [3, *range(16, 32), 32, 33, 49]


@pytest.mark.parametrize("target", ["zstd/zarr", "png/dir", "h264/mkv"])
def test_what_cannot_be_read_is_left_out_and_told(tmp_path: Path, target: str) -> None:
    source, lost = damaged_source(tmp_path / "source")
    with pytest.raises(CorruptChunkError, match="position 3"):
        convert(source, tmp_path / "copy", target)
    report = convert(source, tmp_path / "copy", target, chunksize=8, damaged="skip", verify=True)
    kept = [i for i in range(COUNT) if i not in lost]
    found = [(one.chunk, one.start, one.stop, one.frames) for one in report.damaged]
    assert found == [(0, 3, 4, 1), (1, 16, 32, 16), (2, 32, 34, 2), (3, 49, 50, 1)]
    for one in report.damaged:
        assert str(source) in one.reason
        assert f"position {one.start}" in one.reason
    assert report.frame_count == len(kept)
    # Those of extra data: every third frame has a record.
    (left_out,) = report.left_out
    assert left_out == f"{sum(i % 3 == 0 for i in lost)} records of extra data of damaged frames"
    assert "left out: 16 frames at positions 16 to 31, in chunk 1" in str(report)
    assert "1 more frame that cannot be read" in str(report)
    with imgstore_zarr.open(tmp_path / "copy") as copy:
        assert copy.index.frame_number.tolist() == [NUMBERS[i] for i in kept]
        assert copy.index.frame_time.tolist() == [TIMES[i] for i in kept]
        assert copy.index.chunk_starts.tolist() == [*range(0, len(kept), 8)]
        assert copy.user_metadata["converted_from"]["damaged_frames"] == len(lost)
        table = copy.get_extra_data()
        assert table is not None
        assert table["value"].tolist() == [i for i in kept if i % 3 == 0]
        assert [kept[i] for i in table["frame_index"]] == table["value"].tolist()
        if copy.lossless:
            np.testing.assert_array_equal(copy.frames[...], images()[kept])
    assert imgstore_zarr.verify(tmp_path / "copy").ok


SELECTIONS: list[tuple[dict[str, Any], list[int], list[tuple[int, int, int, int]]]] = [
    ({"frames": slice(4, 16)}, [*range(4, 16)], []),
    ({"stride": 8}, [0, 8, 40, 48], [(1, 16, 25, 2), (2, 32, 33, 1)]),
    ({"frames": [49, 33, 5, 3, 5]}, [5, 5], [(0, 3, 4, 1), (2, 33, 34, 1), (3, 49, 50, 1)]),
]


@pytest.mark.parametrize(("options", "kept", "told"), SELECTIONS, ids=str)
def test_selections_of_a_damaged_source(
    tmp_path: Path, options: dict[str, Any], kept: list[int], told: list[tuple[int, ...]]
) -> None:
    source, _ = damaged_source(tmp_path / "source")
    report = convert(source, tmp_path / "copy", "zstd/zarr", damaged="skip", verify=True, **options)
    assert [dataclasses.astuple(one)[:4] for one in report.damaged] == told
    np.testing.assert_array_equal(pixels(tmp_path / "copy"), images()[kept])


def test_a_window_beside_the_damage(tmp_path: Path) -> None:
    """A frame can be read when what is wanted of it can."""
    source = recorded(tmp_path / "source", inner_chunks=(1, 17, 48))
    tile = 17 * 48 + 4
    shard = source / "image/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[2 * tile + 5] ^= 1
    shard.write_bytes(data)
    for rows, lost in ((slice(17, 34), 0), (slice(0, 20), 1)):
        place = tmp_path / str(lost)
        report = convert(
            source, place, "zstd/zarr", roi=(rows, slice(0, 48)), damaged="skip", verify=True
        )
        assert sum(one.frames for one in report.damaged) == lost


def cut_off(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


DAMAGE: list[tuple[str, str, Callable[[Path], None]]] = [
    ("png/dir", "000001/000004.png", Path.unlink),
    ("png/dir", "000001/000004.png", cut_off),
    ("mjpeg/avi", "000001.avi", cut_off),
    ("h264/mkv", "000001.mkv", Path.unlink),
]


@pytest.mark.parametrize(("format", "file", "damage"), DAMAGE)
def test_damaged_motif_recordings(
    tmp_path: Path, format: str, file: str, damage: Callable[[Path], None]
) -> None:
    source = recorded(tmp_path / "source", format)
    whole = pixels(source)
    damage(source / file)
    with pytest.raises((CorruptChunkError, ChunkMissingError)):
        convert(source, tmp_path / "none", "zstd/zarr")
    report = convert(source, tmp_path / "copy", "zstd/zarr", damaged="skip", verify=True)
    assert {one.chunk for one in report.damaged} == {1}
    lost = [i for one in report.damaged for i in range(one.start, one.stop)]
    assert 0 < len(lost) <= 16
    kept = np.delete(np.arange(COUNT), lost)
    np.testing.assert_array_equal(pixels(tmp_path / "copy"), whole[kept])
    with imgstore_zarr.open(tmp_path / "copy") as copy:
        assert copy.index.frame_number.tolist() == np.array(NUMBERS)[kept].tolist()


def test_it_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, lost = damaged_source(tmp_path / "source")
    copy = tmp_path / "copy"
    with monkeypatch.context() as patch:
        stopping(patch, ZarrLayout, 2)
        with pytest.raises(StopError):
            convert(source, copy, "zstd/zarr", chunksize=8, damaged="skip")
    seen: list[tuple[int, int]] = []
    report = convert(
        source,
        copy,
        "zstd/zarr",
        chunksize=8,
        damaged="skip",
        verify=True,
        progress=lambda *now: seen.append(now),
    )
    assert report.resumed == 2
    kept = COUNT - len(lost)
    assert [seen[0], (COUNT, COUNT), (16, kept), seen[-1]] == [
        (0, COUNT),
        seen[seen.index((16, kept)) - 1],
        seen[seen.index((COUNT, COUNT)) + 1],
        (kept, kept),
    ]
    np.testing.assert_array_equal(pixels(copy), np.delete(images(), lost, axis=0))


def test_other_damage_is_another_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = damaged_source(tmp_path / "source")
    with monkeypatch.context() as patch:
        stopping(patch, ZarrLayout, 2)
        with pytest.raises(StopError):
            convert(source, tmp_path / "copy", "zstd/zarr", chunksize=8, damaged="skip")
    flip_in_frame(source, 0, 5)
    with pytest.raises(imgstore_zarr.RecordingExistsError, match=r"differs in .*frames"):
        convert(source, tmp_path / "copy", "zstd/zarr", chunksize=8, damaged="skip")


def test_going_on_where_damage_stopped_it(tmp_path: Path) -> None:
    """What was done before the damage stays; nothing is damaged any more."""
    source = recorded(tmp_path / "source")
    shard = source / "image/c/2/0/0"
    whole = shard.read_bytes()
    shard.unlink()
    with pytest.raises(ChunkMissingError):
        convert(source, tmp_path / "copy", "zstd/zarr", chunksize=4)
    shard.write_bytes(whole)
    report = convert(source, tmp_path / "copy", "zstd/zarr", chunksize=4, damaged="skip")
    assert report.damaged == ()
    assert report.left_out == ()
    np.testing.assert_array_equal(pixels(tmp_path / "copy"), images())


def test_nothing_can_be_read(tmp_path: Path) -> None:
    source, _ = damaged_source(tmp_path / "source")
    with pytest.raises(CorruptChunkError, match=r"none of the frames .* position 16"):
        convert(source, tmp_path / "copy", "zstd/zarr", frames=slice(16, 34), damaged="skip")
    assert not (tmp_path / "copy").exists()


def test_what_is_refused_is_refused_before_all_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = recorded(tmp_path / "source")
    monkeypatch.setattr("imgstore_zarr.conversion.find_damaged", lambda *_: pytest.fail("was read"))
    with pytest.raises(imgstore_zarr.RecordingExistsError):
        convert(source, recorded(tmp_path / "other"), "zstd/zarr", damaged="skip")
    options: list[dict[str, Any]] = [{"damaged": "ignore"}, {"chunksize": 0}, {"encoding": "no"}]
    for given in options:
        with pytest.raises((imgstore_zarr.ImgStoreError, TypeError)):
            convert(source, tmp_path / "copy", "zstd/zarr", **{"damaged": "skip", **given})


def test_extra_data_that_cannot_be_read(tmp_path: Path) -> None:
    source = recorded(tmp_path / "source", "png/dir")
    (source / "000001" / "index.extra.json").write_text('[{"x": nonsense}]')
    report = convert(source, tmp_path / "copy", "zstd/zarr", damaged="skip", verify=True)
    (left_out,) = report.left_out
    assert "000001/index.extra.json" in left_out
    table = imgstore_zarr.open(tmp_path / "copy").get_extra_data()
    assert table is not None
    assert table["value"].tolist() == [i for i in range(0, COUNT, 3) if not 16 <= i < 32]


@pytest.mark.parametrize("damaged", ["raise", "skip"])
def test_chunks_that_are_not_in_the_index_are_told(tmp_path: Path, damaged: Any) -> None:
    source = recorded(tmp_path / "source", "mjpeg/avi")
    for path in source.glob("000001.*"):
        path.unlink()
    report = convert(source, tmp_path / "copy", "zstd/zarr", damaged=damaged)
    assert "no files of chunk 1 between chunks 0 and 2" in report.left_out[0]


def test_the_command(tmp_path: Path) -> None:
    source, lost = damaged_source(tmp_path / "source")
    done = cli("convert", source, tmp_path / "copy")
    assert done.returncode == 1
    assert "position 3" in done.stderr
    done = cli("convert", source, tmp_path / "copy", "--damaged", "skip", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["frame_count"] == COUNT - len(lost)
    found = [DamagedFrames(**one) for one in report["damaged"]]
    assert sum(one.frames for one in found) == len(lost)
    assert cli("convert", source, tmp_path / "two", "--damaged", "no").returncode == 2


# What fails is told of by the name of the destination.

FULL = """
import resource, signal, sys
import imgstore_zarr
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
try:
    imgstore_zarr.convert(sys.argv[1], sys.argv[2], sys.argv[3], chunksize=16)
except imgstore_zarr.ImgStoreError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("target", "limit"), [("raw/zarr", 20_000), ("png/dir", 1500), ("mjpeg/avi", 20_000)]
)
def test_an_error_in_a_part_names_the_destination(tmp_path: Path, target: str, limit: int) -> None:
    source = recorded(tmp_path / "source")
    arguments = [str(source), str(tmp_path / "copy"), target, str(limit)]
    done = subprocess.run(
        [sys.executable, "-c", FULL, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.startswith(f"{tmp_path / 'copy'}"), done.stdout
    assert "chunk 0" in done.stdout


@pytest.mark.parametrize("target", ["zstd/zarr", "png/dir", "h264/mkv"])
def test_an_error_at_the_end_names_the_destination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    source, copy = recorded(tmp_path / "source"), tmp_path / "copy"
    write = Directory.write

    def full(self: Directory, key: str, data: Any, *, durable: bool = False) -> None:
        if key == "metadata.yaml" and self.root == copy:
            raise OSError(28, "No space left on device")
        write(self, key, data, durable=durable)

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "write", full)
        with pytest.raises(imgstore_zarr.RecordingAccessError, match="make room") as caught:
            convert(source, copy, target)
    assert str(caught.value).startswith(f"{copy}: writing coordinates, extra data and metadata")
    assert caught.value.errno == 28
    assert convert(source, copy, target, verify=True).resumed == 1

"""Damage never becomes a plausible wrong frame: it raises, and says where."""

from __future__ import annotations

import copy
import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr import ChunkMissingError, CorruptChunkError, ImgStoreError
from imgstore_zarr.native import codecs

# Blocks of dask cut shards here.
pytestmark = pytest.mark.filterwarnings("ignore:.*better is:UserWarning")

FRAMES, SHAPE, CHUNKSIZE = 10, (9, 12), 4
IMAGES = np.random.default_rng(0).integers(0, 256, (FRAMES, *SHAPE), np.uint8)

KINDS: dict[str, tuple[str, tuple[int, ...] | None]] = {
    "raw": ("raw/zarr", None),
    "zstd": ("zstd/zarr", None),
    "raw, two frames": ("raw/zarr", (2, 9, 12)),
    "zstd, tiles": ("zstd/zarr", (2, 5, 12)),
}
ACCESSES: dict[str, Callable[[imgstore_zarr.ImgStore, int], Any]] = {
    "get_image": lambda store, position: store.get_image(frame_index=position)[0],
    "frames": lambda store, position: store.frames[position],
    "all frames": lambda store, position: store.frames[...][position],
    "window": lambda store, position: store.frames[position, 0:9, 0:11],
    "to_xarray": lambda store, position: store.to_xarray()[position].values,
    "dask": lambda store, position: store.to_xarray(chunks=3)[position].compute(
        scheduler="synchronous"
    ).values,
}  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def recording(tmp_path: Path, kind: str) -> Path:
    return make(tmp_path / "recording", kind)


def make(path: Path, kind: str) -> Path:
    format, inner = KINDS[kind]
    with imgstore_zarr.create(
        path, format, SHAPE, chunksize=CHUNKSIZE, inner_chunks=inner
    ) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, 100 + i, float(i))
            writer.add_extra_data(value=i, text=str(i))
    return path


def shard(recording: Path, chunk: int) -> Path:
    return recording / "image" / "c" / str(chunk) / "0" / "0"


def read_index(path: Path) -> list[tuple[int, int]]:
    """Offset and size of each inner chunk, as the specification of sharding_indexed has it."""
    data = path.read_bytes()
    for entries in (4, 2):
        index = data[-16 * entries - 4 : -4]
        if google_crc32c.value(index) == struct.unpack("<I", data[-4:])[0]:
            return list(struct.iter_unpack("<QQ", index))
    raise AssertionError("no index was found")


def write_index(path: Path, entries: list[tuple[int, int]]) -> None:
    index = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    data = path.read_bytes()[: -len(index) - 4]
    path.write_bytes(data + index + struct.pack("<I", google_crc32c.value(index)))


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def refuses(
    recording: Path, chunk: int, positions: Iterator[int] | range, error: type[ImgStoreError]
) -> None:
    """Assert that every access to the positions raises the error, which names all three."""
    for position in positions:
        for name, access in ACCESSES.items():
            with imgstore_zarr.open(recording) as store, pytest.raises(error) as caught:
                access(store, position)
            message = str(caught.value)
            assert str(recording) in message
            assert re.search(rf"chunk {chunk}\b", message), message
            found = re.search(r"position (\d+)", message)
            assert found, message
            if name in ("get_image", "frames", "window", "to_xarray"):
                assert int(found[1]) == position, (name, message)
            assert int(found[1]) // CHUNKSIZE == chunk


def serves(recording: Path, positions: range) -> None:
    """Assert that these positions are read, and are right."""
    with imgstore_zarr.open(recording) as store:
        for position in positions:
            for access in (ACCESSES["frames"], ACCESSES["get_image"], ACCESSES["window"]):
                image = access(store, position)
                np.testing.assert_array_equal(image, IMAGES[position][:, : image.shape[1]])


def test_missing_shard(recording: Path) -> None:
    shard(recording, 1).unlink()
    refuses(recording, 1, range(4, 8), ChunkMissingError)
    serves(recording, range(4))
    serves(recording, range(8, 10))


def test_missing_last_shard(recording: Path) -> None:
    shard(recording, 2).unlink()
    refuses(recording, 2, range(8, 10), ChunkMissingError)


def test_shard_that_is_a_directory(recording: Path) -> None:
    shard(recording, 1).unlink()
    shard(recording, 1).mkdir()
    refuses(recording, 1, range(4, 5), CorruptChunkError)


def test_truncated_shard(recording: Path) -> None:
    whole = shard(recording, 1).read_bytes()
    lengths = {0, 1, 3, 4, 16, 20, len(whole) // 2, *range(len(whole) - 70, len(whole), 7)}
    for length in sorted({*lengths, len(whole) - 1, len(whole) - 4, len(whole) - 16}):
        shard(recording, 1).write_bytes(whole[:length])
        with imgstore_zarr.open(recording) as store:
            for position in range(4, 8):
                with pytest.raises(CorruptChunkError, match=f"position {position} in chunk 1"):
                    _ = store.frames[position]
            np.testing.assert_array_equal(store.frames[:4], IMAGES[:4])
    refuses(recording, 1, range(4, 8), CorruptChunkError)


def test_shard_that_grew(recording: Path) -> None:
    with shard(recording, 1).open("ab") as file:
        file.write(b"\0" * 40)
    refuses(recording, 1, range(4, 5), CorruptChunkError)


def test_a_flipped_bit_anywhere_in_a_shard(recording: Path) -> None:
    """Every byte in turn: what is read is right, or it raises."""
    path = shard(recording, 0)
    whole = path.read_bytes()
    damaged = 0
    for offset in range(0, len(whole), 3):
        flip(path, offset)
        with imgstore_zarr.open(recording) as store:
            refused = 0
            for position in range(4):
                try:
                    image = store.frames[position]
                except CorruptChunkError as error:
                    refused += 1
                    assert f"position {position} in chunk 0" in str(error)  # noqa: PT017
                else:
                    np.testing.assert_array_equal(image, IMAGES[position])
        assert refused, f"the flipped bit at {offset} was not noticed"
        damaged += refused < 4
        path.write_bytes(whole)
    assert damaged, "other frames of the shard are still served"


@pytest.mark.parametrize("where", ["data", "checksum", "index", "checksum of the index"])
def test_flipped_bit_by_every_access(recording: Path, where: str) -> None:
    path = shard(recording, 1)
    offset, size = read_index(path)[0]
    length = path.stat().st_size
    flip(
        path,
        {"data": offset + size // 2, "checksum": offset + size - 1, "index": length - 10}.get(
            where, length - 2
        ),
    )
    refuses(recording, 1, range(4, 5), CorruptChunkError)


def test_entry_marked_missing(recording: Path) -> None:
    path = shard(recording, 1)
    entries = read_index(path)
    entries[0] = (2**64 - 1, 2**64 - 1)
    write_index(path, entries)
    refuses(recording, 1, range(4, 5), ChunkMissingError)
    serves(recording, range(6, 8))


@pytest.mark.parametrize(
    "entry",
    [(1, 0), (0, 7), (1, 3), (0, 0), (0, 1), (3, 2), (10**6, 0), (2**63, 0), (2**64 - 2, 0)],
    ids=str,
)
def test_entry_that_points_elsewhere(recording: Path, entry: tuple[int, int]) -> None:
    """The index is whole, but what it says of the first inner chunk is not true."""
    path = shard(recording, 1)
    entries = read_index(path)
    offset, size = entries[0]
    if entry == (1, 0):
        entries[0] = entries[1]
    else:
        entries[0] = min(offset + entry[0], 2**64 - 2), entry[1] or size
        if entry == (0, 0):
            entries[0] = offset, 0
    write_index(path, entries)
    refuses(recording, 1, range(4, 5), CorruptChunkError)


@pytest.mark.parametrize("size", [2**31, 2**40, 2**63, 2**64 - 2])
def test_entry_of_an_absurd_size(recording: Path, size: int) -> None:
    path = shard(recording, 1)
    entries = read_index(path)
    entries[-1] = entries[-1][0], size
    write_index(path, entries)
    refuses(recording, 1, range(7, 8), CorruptChunkError)


@pytest.mark.parametrize("name", ["frame_number", "frame_time"])
@pytest.mark.parametrize("damage", ["missing", "flipped", "truncated", "empty"])
def test_coordinates(recording: Path, name: str, damage: str) -> None:
    path = recording / name / "c" / "0"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        flip(path, len(data) // 2)
    else:
        path.write_bytes(data[:-9] if damage == "truncated" else b"")
    error = ChunkMissingError if damage == "missing" else CorruptChunkError
    with pytest.raises(error, match=rf"{name}/c/0.*{name} from position 0") as caught:
        imgstore_zarr.open(recording)
    assert str(recording) in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_extra_data(recording: Path, damage: str) -> None:
    path = recording / "extra" / "value" / "c" / "0"
    if damage == "missing":
        path.unlink()
    else:
        flip(path, 8)
    error = ChunkMissingError if damage == "missing" else CorruptChunkError
    with imgstore_zarr.open(recording) as store:
        with pytest.raises(error, match="extra/value"):
            store.get_extra_data()
        with pytest.warns(UserWarning, match="extra/value"):
            table = store.get_extra_data(ignore_corrupt_chunks=True)
        assert table is not None
        assert table["text"].tolist() == [str(i) for i in range(FRAMES)]
        assert "value" not in table
        np.testing.assert_array_equal(store.frames[...], IMAGES)


# The commit record.


def edit(recording: Path, change: Callable[[Any], object]) -> None:
    path = recording / "zarr.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def member(document: Any, name: str) -> Any:
    return document["consolidated_metadata"]["metadata"][name]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make(tmp_path / "recording", "raw")


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"[]", b"3", b"{}", b"\xff\xfe", b"\0" * 99])
def test_zarr_json_that_is_none(raw: Path, text: bytes) -> None:
    (raw / "zarr.json").write_bytes(text)
    with pytest.raises(imgstore_zarr.InvalidMetadataError, match=re.escape(str(raw))):
        imgstore_zarr.open(raw)


def test_zarr_json_truncated_anywhere(raw: Path) -> None:
    text = (raw / "zarr.json").read_bytes()
    for length in range(0, len(text) - 1, 97):
        (raw / "zarr.json").write_bytes(text[:length])
        with pytest.raises(imgstore_zarr.InvalidMetadataError, match="damaged"):
            imgstore_zarr.open(raw)


@pytest.mark.parametrize("name", ["image", "frame_number", "frame_time"])
def test_missing_array(raw: Path, name: str) -> None:
    edit(raw, lambda document: document["consolidated_metadata"]["metadata"].pop(name))
    with pytest.raises(imgstore_zarr.InvalidMetadataError, match=f"{name} are missing"):
        imgstore_zarr.open(raw)


@pytest.mark.parametrize("name", ["image", "frame_number", "frame_time"])
@pytest.mark.parametrize("length", [0, 9, 11])
def test_arrays_of_different_length(raw: Path, name: str, length: int) -> None:
    edit(raw, lambda document: member(document, name)["shape"].__setitem__(0, length))
    with pytest.raises(imgstore_zarr.InvalidMetadataError, match=f"different.*{name} {length}"):
        imgstore_zarr.open(raw)


def test_extra_data_of_different_length(raw: Path) -> None:
    edit(raw, lambda document: member(document, "extra/value")["shape"].__setitem__(0, 9))
    with imgstore_zarr.open(raw) as store:
        with pytest.raises(imgstore_zarr.InvalidMetadataError, match="different lengths"):
            store.get_extra_data()
        np.testing.assert_array_equal(store.frames[...], IMAGES)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_unknown_layout_version(raw: Path, version: object) -> None:
    edit(raw, lambda document: document["attributes"]["imgstore_zarr"].update(layout=version))
    with pytest.raises(imgstore_zarr.UnsupportedVersionError) as caught:
        imgstore_zarr.open(raw)
    assert f"layout {version!r}" in str(caught.value)
    assert "reads layout 1" in str(caught.value)


def test_no_consolidated_metadata(raw: Path) -> None:
    edit(raw, lambda document: document.pop("consolidated_metadata"))
    with pytest.raises(imgstore_zarr.InvalidMetadataError, match="commit record"):
        imgstore_zarr.open(raw)


FOREIGN: dict[str, Callable[[Any], object]] = {
    "gzip": lambda image: image["codecs"][0]["configuration"]["codecs"].insert(
        1, {"name": "gzip", "configuration": {"level": 1}}
    ),
    "no checksum": lambda image: image["codecs"][0]["configuration"]["codecs"].pop(),
    "big endian": lambda image: image["codecs"][0]["configuration"]["codecs"].__setitem__(
        0, {"name": "bytes", "configuration": {"endian": "big"}}
    ),
    "big-endian index": lambda image: image["codecs"][0]["configuration"][
        "index_codecs"
    ].__setitem__(0, {"name": "bytes", "configuration": {"endian": "big"}}),
    "index without checksum": lambda image: image["codecs"][0]["configuration"][
        "index_codecs"
    ].pop(),
    "index at the start": lambda image: image["codecs"][0]["configuration"].update(
        index_location="start"
    ),
    "shards of parts of images": lambda image: image["chunk_grid"]["configuration"].update(
        chunk_shape=[4, 9, 6]
    ),
    "dots in keys": lambda image: image["chunk_key_encoding"].update(
        configuration={"separator": "."}
    ),
    "keys of version 2": lambda image: image["chunk_key_encoding"].update(name="v2"),
    "a storage transformer": lambda image: image.update(storage_transformers=[{"name": "x"}]),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_codecs(raw: Path, name: str) -> None:
    edit(raw, lambda document: FOREIGN[name](member(document, "image")))
    with pytest.raises(imgstore_zarr.UnsupportedFormatError, match="another program"):
        imgstore_zarr.open(raw)


@pytest.mark.parametrize("name", ["frame_number", "frame_time"])
@pytest.mark.parametrize("part", ["codecs", "chunk_grid", "data_type"])
def test_foreign_coordinates(raw: Path, name: str, part: str) -> None:
    values: dict[str, Any] = {
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10]}},
        "data_type": "int32",
    }
    edit(raw, lambda document: member(document, name).update({part: values[part]}))
    with pytest.raises(imgstore_zarr.UnsupportedFormatError, match=f"{part} of {name}"):
        imgstore_zarr.open(raw)


def test_any_value_in_zarr_json_replaced(raw: Path) -> None:
    """Each value in turn becomes another: frames are read right, or an error of ours is raised."""
    path = raw / "zarr.json"
    original = json.loads(path.read_text())
    refused = 0
    for keys in places(original):
        if any(str(key).startswith("extra/frame") for key in keys):
            continue  # as the other fields
        for value in (None, -1, 0, 1e300, "x", [], {}, [0], DELETED):
            document = copy.deepcopy(original)
            parent = document
            for key in keys[:-1]:
                parent = parent[key]
            if value is DELETED:
                del parent[keys[-1]]
            else:
                parent[keys[-1]] = value
            path.write_text(json.dumps(document))
            try:
                with imgstore_zarr.open(raw) as store:
                    images = store.frames[...]
                    store.report()
                    numbers = store.index.frame_number
                    store.get_extra_data()
            except ImgStoreError:
                refused += 1
            else:
                count = len(images)
                assert numbers.tolist() == [100 + i for i in range(count)], (keys, value)
                if images.dtype == np.uint8:
                    np.testing.assert_array_equal(images, IMAGES[:count])
    assert refused > 500


DELETED = object()


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Iterate over the paths of all values in a JSON document."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def test_a_group_that_is_no_recording(tmp_path: Path) -> None:
    import zarr

    zarr.open_group(tmp_path / "group", mode="w").create_array("x", shape=(3,), dtype="u1")
    with pytest.raises(imgstore_zarr.RecordingNotFoundError, match="no recording"):
        imgstore_zarr.open(tmp_path / "group")


@pytest.mark.parametrize("count", [1, 100, 255, 256, 300, 70_000, 131_072])
def test_a_column_of_another_length_is_refused(count: int) -> None:
    values = np.arange(count, dtype="<i8")
    encoded = codecs.encode_column(values)
    decoded = np.empty(count, "<i8")
    codecs.decode_column(encoded, decoded)
    np.testing.assert_array_equal(decoded, values)
    for other in (count - 1, count + 1):
        with pytest.raises(codecs.DecodeError, match="are needed"):
            codecs.decode_column(encoded, np.empty(other, "<i8"))

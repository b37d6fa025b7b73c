"""TensorStore: the same shards, the same codecs; it reads the very files that imgstore_zarr wrote."""

from __future__ import annotations

import shutil
import zlib
from functools import cache
from time import perf_counter
from typing import Any

import tensorstore as ts

from benchmarks.scene import load_scene

# Enough for the indexes of shards, too little to keep a frame. No fsync, as with the others.
_CONTEXT = {
    "cache_pool": {"total_bytes_limit": 2**19},
    "file_io_sync": False,
}


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"tensorstore": version("tensorstore")}


def prepare(scene: str) -> None:
    load_scene(scene)


def append(scene: str, path: str, format: str, count: int, chunksize: int, keep: bool) -> float:
    """Write whole shards, which the caller is taken to have gathered."""
    frames = load_scene(scene)
    assert count % chunksize == 0
    assert chunksize <= len(frames)
    shutil.rmtree(path, ignore_errors=True)
    blosc = {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle", "typesize": 1}
    codecs: list[dict[str, Any]] = [{"name": "bytes"}]
    if format == "zstd/zarr":
        codecs.append({"name": "blosc", "configuration": blosc})
    codecs.append({"name": "crc32c"})
    sharding = {"chunk_shape": [1, *frames.shape[1:]], "codecs": codecs}
    start = perf_counter()
    array = ts.open(
        _spec(path),
        context=ts.Context(_CONTEXT),
        create=True,
        shape=[count, *frames.shape[1:]],
        dtype=ts.uint8,
        chunk_layout=ts.ChunkLayout(write_chunk_shape=[chunksize, *frames.shape[1:]]),
        codec=ts.CodecSpec(
            {
                "driver": "zarr3",
                "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            }
        ),
    ).result()
    for first in range(0, count, chunksize):
        array[first : first + chunksize].write(frames[:chunksize]).result()
    seconds = perf_counter() - start
    if not keep:
        shutil.rmtree(path)
    return seconds / count


def _spec(path: str) -> dict[str, Any]:
    return {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}


def _image(path: str) -> Any:
    return ts.open(
        {**_spec(f"{path}/image"), "recheck_cached_data": False},
        context=ts.Context(_CONTEXT),
        open=True,
        read=True,
    ).result()


@cache
def _open(path: str) -> Any:
    return _image(path)


def digest(path: str, positions: list[int]) -> int:
    value = 0
    for position in positions:
        value = zlib.crc32(_open(path)[position].read().result(), value)
    return value


def random(path: str, positions: list[int]) -> float:
    array = _open(path)
    start = perf_counter()
    for position in positions:
        array[position].read().result()
    return (perf_counter() - start) / len(positions)


def runs(path: str, starts: list[int], length: int) -> float:
    array = _open(path)
    start = perf_counter()
    for first in starts:
        array[first : first + length].read().result()
    return (perf_counter() - start) / (len(starts) * length)


def sequential(path: str, count: int) -> float:
    """Read whole shards: its fastest way."""
    start = perf_counter()
    array = _image(path)
    step = array.chunk_layout.write_chunk.shape[0]
    for first in range(0, count, step):
        array[first : first + step].read().result()
    return (perf_counter() - start) / count

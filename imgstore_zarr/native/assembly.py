"""A recording that is put together from shards that were written apart; see `JoinsChunks`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from imgstore_zarr.extra import SampledSource
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.native.columns import ColumnWriter
from imgstore_zarr.native.extra_columns import write_extra
from imgstore_zarr.native.metadata import ZarrRecording
from imgstore_zarr.native.open_chunk import sync_parents
from imgstore_zarr.native.sampled_columns import write_sampled
from imgstore_zarr.native.uploads import put_file
from imgstore_zarr.native.writer import signpost
from imgstore_zarr.storage import Directory, Location


def has_chunk(location: Location, chunk: int) -> bool:
    """Whether the shard of a chunk is at its key."""
    return location.exists(f"image/c/{chunk}")


def take_chunk(
    location: Location, recording: ZarrRecording, part: Path, chunk: int, *, durable: bool
) -> None:
    """Move the only shard of a part to its key."""
    geometry = recording.geometry
    shard, key = part / geometry.key(0), geometry.key(chunk)
    if location.path is None:
        put_file(location, key, shard)
        return
    directory = Directory(location.path)
    if durable:
        with shard.open("rb") as file:
            os.fsync(file.fileno())
    directory.take(key, shard)
    if durable:
        sync_parents(directory, key)


def finish(
    location: Location,
    recording: ZarrRecording,
    index: FrameIndex,
    records: Callable[[], Iterable[dict[str, Any]]],
    datasets: Mapping[str, SampledSource],
    *,
    durable: bool,
) -> None:
    """Write what makes a recording of shards; the commit record is the last that readers need."""
    values = {"frame_number": index.frame_number, "frame_time": index.frame_time}
    for name, dtype in recording.columns.items():
        column = ColumnWriter(location, name, dtype, durable=durable)
        column.extend(values[name])
        column.write()
    extra = write_extra(location, records, durable=durable)
    recording = replace(recording, sampled=write_sampled(location, datasets, durable=durable))
    for key, document in recording.documents(len(index), extra).items():
        location.write(key, document, durable=durable)
    # Without a zarr.json beside it, it would be taken for the metadata of an imgstore recording.
    location.write("metadata.yaml", signpost(recording), durable=durable)

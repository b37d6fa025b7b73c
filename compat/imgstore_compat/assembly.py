"""Recordings that are put together from chunks that were written apart; see `JoinsChunks`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from imgstore_compat.extra_writer import ExtraWriter
from imgstore_compat.metadata import FILE
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.storage import Directory


def finish(
    directory: Directory,
    head: Path,
    index: FrameIndex,
    records: Callable[[], Iterable[dict[str, Any]]],
    stem: Callable[[int], str],
) -> None:
    """Write the extra data beside the chunks, and then the metadata, which make it a recording.

    Parameters
    ----------
    directory
        The recording.
    head
        A recording without frames, which has the same metadata.
    index
        Its frames.
    records
        Gives the extra data.
    stem
        Gives the key of the index of a chunk, without an ending.
    """
    extra = ExtraWriter(directory.root)
    for record in records():
        # Those that came before the first frame lie beside it.
        chunk, _ = index.chunk_at(max(record["frame_index"], 0)) if len(index) else (0, 0)
        extra.append(stem(chunk), record)
    extra.close()
    directory.write(FILE, (head / FILE).read_bytes())

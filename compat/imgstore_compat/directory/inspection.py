"""Looking through the image files of a recording, for its report."""

from __future__ import annotations

from typing import Any

import numpy as np

from imgstore_compat.directory.frames import image_key, read_image
from imgstore_compat.directory.image_headers import looks_whole
from imgstore_zarr.errors import ChunkMissingError, CorruptChunkError
from imgstore_zarr.index import ChunkSpan, FrameIndex
from imgstore_zarr.layouts import Problem
from imgstore_zarr.recording import RecordingInfo
from imgstore_zarr.storage import Directory


def inspect_images(
    location: Directory, info: RecordingInfo, index: FrameIndex
) -> tuple[Problem, ...]:
    """Return one problem per chunk of which images are missing or damaged, or are too many.

    The ends of every file are looked at. What seems wrong is read, and reported if that fails.
    """
    found = (_inspect_chunk(location, info, chunk) for chunk in index.chunks())
    return tuple(problem for problem in found if problem is not None)


def _inspect_chunk(location: Directory, info: RecordingInfo, chunk: ChunkSpan) -> Problem | None:
    folder = f"{chunk.number:06d}"
    names = [n for n in location.names(folder) if n.endswith(f".{info.format}")]
    if not names:
        return None  # that a whole chunk is missing is told elsewhere
    keys = [image_key(chunk.number, place, info.format) for place in range(len(chunk))]
    image: np.ndarray[Any, Any] = np.empty(info.stored_shape, info.imgdtype)
    usual = (location.root / folder / names[0]).stat().st_size
    bad = []
    for key in keys:
        path = location.root / key
        if key != keys[0] and looks_whole(path, info.stored_shape, info.imgdtype, usual):
            continue
        try:
            read_image(location, key, info.format, image)
        except (ChunkMissingError, CorruptChunkError) as error:
            bad.append(error)
    if bad:
        what = (
            f"{location.name}: {len(bad)} of {len(keys)} images of chunk {chunk.number} are missing or "
            f"damaged; the first: {bad[0]}"
        )
        return Problem("chunk-damaged", what, chunk.number)
    if len(names) > len(keys):
        what = (
            f"{location.name}: chunk {chunk.number} has {len(names)} images, its index {len(keys)}; "
            "those beyond have no numbers, and are left out"
        )
        return Problem("chunk-length", what, chunk.number)
    return None

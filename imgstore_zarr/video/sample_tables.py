"""The sample tables of an mp4: where each sample lies, and when it is shown (ISO/IEC 14496-12)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.video.atoms import read_atoms
from imgstore_zarr.video.media import Media

Int64s = NDArray[np.int64]

_HEADER = 8
_VERSION = 4


def composition_offsets(media: Media, track_id: int, places: Int64s) -> Int64s | None:
    """Return how much later than it is decoded each sample of a track is shown.

    Parameters
    ----------
    media
        The file.
    track_id
        The track, by its number in the file.
    places
        int64 (sample,), where the samples begin in the file.

    Returns
    -------
    ndarray or None
        int64 (sample,), in the time scale of the track. None where the file does not say it in tables:
        it has fragments, or is no mp4, or a sample is not in them.
    """
    with media.open() as file:
        moov = next((data for _, data in read_atoms(file, {b"moov"})), None)
    if moov is None:
        return None
    boxes = list(_boxes(moov))
    if any(kind == b"mvex" for kind, _ in boxes):
        return None
    try:
        for kind, trak in boxes:
            if kind == b"trak" and _track_id(trak) == track_id:
                return _offsets_at(trak, places)
    except (ValueError, IndexError, KeyError):
        # Whatever is wrong with the tables: demuxing says what is there.
        return None
    return None


def first_packet(moov: memoryview) -> tuple[int, int] | None:
    """Return from where to where the first packet of video lies, which every decoder must see.

    Parameters
    ----------
    moov
        The body of that atom.

    Returns
    -------
    (start, stop), or None
        In bytes; None where there is no video, or the tables are damaged.
    """
    try:
        for kind, trak in _boxes(moov):
            if kind == b"trak" and b"vmhd" in dict(_boxes(_inside(trak, b"mdia", b"minf"))):
                table = dict(_boxes(_inside(trak, b"mdia", b"minf", b"stbl")))
                sizes = _sizes(table)
                start = int(_starts(table, sizes)[0])
                return start, start + int(sizes[0])
    except (ValueError, IndexError, KeyError):
        return None
    return None


def _offsets_at(trak: memoryview, places: Int64s) -> Int64s | None:
    table = dict(_boxes(_inside(trak, b"mdia", b"minf", b"stbl")))
    sizes = _sizes(table)
    starts = _starts(table, sizes)
    order = np.argsort(starts, kind="stable")
    found = np.searchsorted(starts[order], places)
    if len(places) and (found.max() >= len(starts) or np.any(starts[order][found] != places)):
        return None
    return _composition(table, len(sizes))[order][found]


def _sizes(table: dict[bytes, memoryview]) -> Int64s:
    """Sizes of all samples, in bytes (stsz)."""
    fields = _words(table[b"stsz"][_VERSION:])
    same, count = int(fields[0]), int(fields[1])
    sizes = np.full(count, same, np.int64) if same else fields[2 : 2 + count]
    if len(sizes) != count:
        raise ValueError("stsz breaks off")
    return sizes


def _starts(table: dict[bytes, memoryview], sizes: Int64s) -> Int64s:
    """Where all samples begin: one behind the other in each chunk (stsc, stco or co64)."""
    if b"stco" in table:
        chunks = _words(table[b"stco"][_VERSION + 4 :])
    else:
        longs = np.frombuffer(_whole(table[b"co64"][_VERSION + 4 :], 8), ">u8")
        chunks = longs.astype(np.int64)
    runs = _words(table[b"stsc"][_VERSION + 4 :]).reshape(-1, 3)
    lengths = np.diff(np.append(runs[:, 0], len(chunks) + 1))
    counts = np.repeat(runs[:, 1], lengths)
    if int(counts.sum()) != len(sizes):
        raise ValueError("stsc does not count the samples of stsz")
    before = np.cumsum(sizes) - sizes
    first = np.cumsum(counts) - counts
    chunk = np.repeat(np.arange(len(counts)), counts)
    return np.asarray(chunks[chunk] + before - before[first[chunk]], np.int64)


def _composition(table: dict[bytes, memoryview], count: int) -> Int64s:
    """Offsets from decoding to showing (ctts); as FFmpeg reads them, always with a sign."""
    if b"ctts" not in table:
        return np.zeros(count, np.int64)
    runs = np.frombuffer(_whole(table[b"ctts"][_VERSION + 4 :], 8), ">i4").reshape(-1, 2)
    offsets = np.repeat(runs[:, 1].astype(np.int64), runs[:, 0])
    return np.pad(offsets, (0, max(count - len(offsets), 0)))[:count]


def _track_id(trak: memoryview) -> int:
    header = _inside(trak, b"tkhd")
    # Two times come first, of 4 bytes, or of 8 in version 1.
    at = _VERSION + (16 if header[0] == 1 else 8)
    return int.from_bytes(header[at : at + 4], "big")


def _inside(data: memoryview, *path: bytes) -> memoryview:
    for kind in path:
        data = dict(_boxes(data))[kind]
    return data


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    while at + _HEADER <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < _HEADER or at + size > len(data):
            return
        yield bytes(data[at + 4 : at + 8]), data[at + _HEADER : at + size]
        at += size


def _words(data: memoryview) -> Int64s:
    return np.frombuffer(_whole(data, 4), ">u4").astype(np.int64)


def _whole(data: memoryview, item: int) -> memoryview:
    return data[: len(data) // item * item]

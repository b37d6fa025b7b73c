"""catalogue: which recordings lie below a place, and how long and large they are."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from imgstore_zarr.errors import ImgStoreError, RecordingNotFoundError
from imgstore_zarr.formats import find_layout
from imgstore_zarr.storage import (
    METADATA_FILES,
    Directory,
    Location,
    ObjectStore,
    ZarrStore,
    access_error,
    locate,
    recollecting,
)

if TYPE_CHECKING:
    import pandas as pd

# Opening one waits for storage most of the time.
_AT_ONCE = 8

# A web server that links to itself is not followed further down.
_DEPTH = 12

# Comes after all that is in a folder.
_LAST = "\U0010ffff"

COLUMNS = (
    "name",
    "layout",
    "format",
    "frame_count",
    "duration",
    "created",
    "size",
    "location",
    "problem",
)
"""Of the table."""


@dataclass(frozen=True)
class _Candidate:
    """A folder that has a metadata file, and what is known of it without opening it."""

    place: Location
    folder: str
    size: int | None


class _Tree(Protocol):
    """The folders below a place, by their paths from there; that of the place itself is empty."""

    def candidates(self, folder: str, *, below: bool) -> Iterator[_Candidate]:
        """Find the nearest folders that have a metadata file: this one, or only those below it."""
        ...


def catalogue(
    location: object, *, storage_options: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Find the recordings at a place, and below it.

    Metadata and indexes are read, of video no more than that. What lies inside a recording is not looked
    at. A bucket is listed once, whatever it holds.

    Parameters
    ----------
    location
        A directory, a prefix in a bucket, the address of a web server that lists its folders, or a Zarr
        store; see `open`.
    storage_options
        Of a URL of object storage; see `open`.

    Returns
    -------
    pandas.DataFrame
        One row per recording, by name: ``name`` (the path below the location), ``layout``, ``format``,
        ``frame_count``, ``duration`` (s, from the first to the last frame time), ``created``
        (datetime64[ns, UTC]), ``size`` (bytes of all files; missing where a listing does not tell),
        ``location``, and ``problem``: why a recording cannot be opened, or what is wrong with it; empty
        where nothing is.

    Raises
    ------
    RecordingNotFoundError
        There is no such place.
    RecordingAccessError
        It cannot be listed.
    """
    import pandas as pd

    place = locate(location, storage_options)
    try:
        rows = [*_rows(place, _tree(place))]
    except OSError as error:
        if isinstance(error, ImgStoreError):
            raise
        raise access_error(place, "listing", error) from error
    table = pd.DataFrame(rows, columns=pd.Index(COLUMNS)).sort_values("name", ignore_index=True)
    return table.astype(
        {
            "frame_count": "Int64",
            "duration": "float64",
            "size": "Int64",
            "created": "datetime64[ns, UTC]",
        }
    )


def _rows(place: Location, tree: _Tree) -> Iterator[dict[str, Any]]:
    """Open what may be a recording; only below what is none may there be others."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = [*tree.candidates("", below=False)]
        while found:
            others = []
            for candidate, row in zip(found, pool.map(_row, found), strict=True):
                if row is None:
                    others.append(candidate.folder)
                else:
                    yield row | {"name": candidate.folder or _last_part(place)}
            found = [one for folder in others for one in tree.candidates(folder, below=True)]


def _last_part(place: Location) -> str:
    return place.name.rstrip("/").rsplit("/", 1)[-1]


def _row(candidate: _Candidate) -> dict[str, Any] | None:
    """What is known of a recording; None for what is none."""
    place = candidate.place
    facts: dict[str, Any] = {"size": candidate.size, "location": place.name, "problem": ""}
    try:
        with recollecting() as recollection:
            layout = find_layout(place)
            recollection.recognised()
            parts = layout.open(place)
    except RecordingNotFoundError:
        return None  # a Zarr group, or a metadata.yaml, of somebody else
    except (ImgStoreError, OSError) as error:
        return facts | {"problem": str(error)}
    parts.frames.close()
    info, times = parts.info, parts.index.frame_time
    return facts | {
        "layout": info.layout,
        "format": info.format,
        "frame_count": len(parts.index),
        "duration": float(times[-1] - times[0]) if len(times) else 0.0,
        "created": info.created,
        "problem": parts.problems[0].message if parts.problems else "",
    }


def _tree(place: Location) -> _Tree:
    if isinstance(place, Directory):
        if not place.root.is_dir():
            raise RecordingNotFoundError(f"{place.name} is no directory")
        return _Directories(place.root)
    if isinstance(place, ObjectStore) and place.is_web_server:
        return _Pages(place)
    if isinstance(place, ObjectStore | ZarrStore):
        return _Listing(place)
    raise RecordingNotFoundError(f"{place.name} is no place that can be listed")


class _Directories:
    """Directories; links are followed, and what was seen before is not entered again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: set[tuple[int, int]] = set()

    def candidates(self, folder: str, *, below: bool) -> Iterator[_Candidate]:
        waiting = [self._root / folder]
        if below:
            waiting = self._inside(waiting.pop())
        while waiting:
            path = waiting.pop()
            with contextlib.suppress(FileNotFoundError):
                known = path.stat()
                if (known.st_dev, known.st_ino) in self._seen:
                    continue
                self._seen.add((known.st_dev, known.st_ino))
            if any((path / name).is_file() for name in METADATA_FILES):
                name = path.relative_to(self._root).as_posix()
                there = Directory(path)
                yield _Candidate(there, "" if name == "." else name, there.nbytes)
            else:
                waiting += self._inside(path)

    def _inside(self, path: Path) -> list[Path]:
        # What may not be looked into is left out, as by find(1).
        with contextlib.suppress(PermissionError, FileNotFoundError), os.scandir(path) as entries:
            return [Path(entry) for entry in entries if entry.is_dir()]
        return []


class _Listing:
    """A bucket: one listing of everything, of which the sizes are added up by folders."""

    def __init__(self, place: ObjectStore | ZarrStore) -> None:
        self._place = place
        sizes: Counter[str] = Counter()
        marked = set()
        self._knows_sizes = True
        for key, size in place.objects():
            folder, _, name = key.rpartition("/")
            if name in METADATA_FILES:
                marked.add(folder)
            self._knows_sizes &= size is not None
            sizes[f"{folder}/"] += size or 0
        # With a slash each comes before those in it, and all of these before its next neighbour.
        self._marked = sorted(f"{folder}/" if folder else "" for folder in marked)
        self._folders = sorted(sizes)
        self._sums = np.cumsum([0, *(sizes[folder] for folder in self._folders)])

    def candidates(self, folder: str, *, below: bool) -> Iterator[_Candidate]:
        inside = f"{folder}/" if folder else ""
        at = bisect_left(self._marked, inside)
        if at < len(self._marked) and self._marked[at] == inside:
            if not below:
                yield self._candidate(folder)
                return
            at += 1
        while at < len(self._marked) and self._marked[at].startswith(inside):
            nearest = self._marked[at]
            yield self._candidate(nearest[:-1])
            at = bisect_left(self._marked, f"{nearest}{_LAST}")

    def _candidate(self, folder: str) -> _Candidate:
        size = None
        if self._knows_sizes:
            inside = f"{folder}/" if folder else ""
            start = bisect_left(self._folders, inside)
            # After all that begin so.
            stop = bisect_left(self._folders, f"{inside}{_LAST}")
            size = int(self._sums[stop] - self._sums[start])
        return _Candidate(self._place.below(folder) if folder else self._place, folder, size)


class _Pages:
    """A web server that shows what its folders hold, though not how large it is."""

    def __init__(self, place: ObjectStore) -> None:
        self._place = place

    def candidates(self, folder: str, *, below: bool) -> Iterator[_Candidate]:
        names = self._place.names(folder)
        if not below and not {*METADATA_FILES}.isdisjoint(names):
            there = self._place.below(folder) if folder else self._place
            yield _Candidate(there, folder, None)
        elif folder.count("/") < _DEPTH:
            for name in self._place.folders(folder):
                yield from self.candidates(f"{folder}/{name}".lstrip("/"), below=False)

"""Viewed: one recording as the server of the viewer sees it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.bounded_cache import BoundedCache
from imgstore_zarr.cached import cached_property
from imgstore_zarr.errors import ImgStoreError
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.report import Report
from imgstore_zarr.storage import Location
from imgstore_zarr.store import ImgStore
from imgstore_zarr.viewer.desk import Desk
from imgstore_zarr.viewer.moments import Moment, is_unix, moment_at
from imgstore_zarr.viewer.pictures import Framing, Levels, Look, encoded_picture, levels_of

_log = logging.getLogger("imgstore_zarr.viewer")

MOST_DAMAGED = 1_000
"""Frames that could not be read, of which the timeline has marks."""

# A look for new frames may take so much of the time.
_SHARE = 0.05
_OFTEN = 1.0

Axis = Literal["time", "position"]


@dataclass(frozen=True)
class Damage:
    """A frame that cannot be read.

    Attributes
    ----------
    moment
        Which one.
    chunk
        The number of the chunk that holds it.
    message
        What is wrong, and what to do.
    """

    moment: Moment
    chunk: int
    message: str


class DamagedError(Exception):
    """A frame cannot be read.

    Attributes
    ----------
    damage
        Which one, and why.
    """

    def __init__(self, damage: Damage) -> None:
        super().__init__(damage.message)
        self.damage = damage


@dataclass(frozen=True, eq=False)
class Gaps:
    """Where frame numbers were skipped.

    Attributes
    ----------
    position
        int64 (gap,), of the first frame after each gap.
    missing
        float64 (gap,), how many numbers were skipped.
    """

    position: NDArray[np.int64]
    missing: NDArray[np.float64]


class _Found:
    """What an index says, as far as somebody asked."""

    def __init__(self, index: FrameIndex) -> None:
        self.index = index

    @cached_property
    def axis(self) -> Axis:
        times = self.index.frame_time
        ordered = len(times) > 1 and bool(np.isfinite(times).all() and (np.diff(times) >= 0).all())
        return "time" if ordered and times[-1] > times[0] else "position"

    @cached_property
    def gaps(self) -> Gaps:
        number = self.index.frame_number
        step = number[1:].view(np.uint64) - number[:-1].view(np.uint64)
        places = np.flatnonzero((number[1:] > number[:-1]) & (step > 1))
        return Gaps(places + 1, step[places].astype(np.float64) - 1)

    @cached_property
    def rate(self) -> float | None:
        times = self.index.frame_time
        with np.errstate(invalid="ignore"):
            intervals = np.diff(times[: 2**20])
        intervals = intervals[np.isfinite(intervals) & (intervals > 0)]
        return 1 / float(np.median(intervals)) if len(intervals) else None


class Viewed:
    """A recording with what was read of it lately, and with what the page needs to know of it.

    Parameters
    ----------
    store, location
        The recording, and where it lies.
    name
        What the page calls it: never a path.
    cache
        Keeps frames and pictures, of all recordings together.
    turns
        How many recordings are read at the same time.
    """

    def __init__(
        self,
        store: ImgStore,
        location: Location,
        name: str,
        cache: BoundedCache[Any],
        turns: threading.Semaphore,
    ) -> None:
        self.store = store
        self.name = name
        self._location = location
        self.desk = Desk(name, turns)
        self.generation = 0
        self.trouble: str | None = None
        self.uninspected: str | None = None
        self.damaged: dict[int, Damage] = {}
        self.report: Report | None = None
        self._closed = False
        self._of_index = _Found(store.index)
        self._cache = cache
        self._lock = threading.Lock()
        self._looked = time.monotonic()
        self._pause = _OFTEN
        self._stamp = self._stamped()

    @property
    def index(self) -> FrameIndex:
        """Which frame is where."""
        return self.store.index

    @property
    def axis(self) -> Axis:
        """What the timeline shows: positions, where times are unknown or go back."""
        return self._found.axis

    @property
    def gaps(self) -> Gaps:
        """Where frame numbers were skipped, all of them."""
        return self._found.gaps

    @property
    def rate(self) -> float | None:
        """Frames per second, by the median interval; None where that says nothing."""
        return self._found.rate

    @property
    def _found(self) -> _Found:
        """What the index of now says; that of an index before may still be at work."""
        found = self._of_index
        if found.index is not self.index:
            found = self._of_index = _Found(self.index)
        return found

    @property
    def unix(self) -> bool:
        """Whether frame times are dates."""
        times = self.index.frame_time
        return bool(len(times)) and is_unix(float(times[0])) and is_unix(float(times[-1]))

    def moment(self, position: int) -> Moment:
        """Return which frame is at a position."""
        return moment_at(self.index, position, self.store.info.timezone)

    def facts(self) -> dict[str, Any]:
        """Return what the page shows of the recording, and needs to lay out its parts."""
        store, count = self.store, len(self.index)
        shape = store.image_shape
        return {
            "name": self.name,
            "format": store.format,
            "layout": store.info.layout,
            "frames": count,
            "chunks": len(self.index.chunk_starts),
            "height": shape[0],
            "width": shape[1],
            "channels": shape[2] if len(shape) == 3 else 1,
            "dtype": store.dtype.name,
            "encoding": store.encoding,
            "lossless": store.lossless,
            "first": self.moment(0) if count else None,
            "last": self.moment(count - 1) if count else None,
            "zone": str(store.info.timezone),
            "unix": self.unix,
            "axis": self.axis,
            "rate": self.rate,
            "has_extra": store.has_extra_data,
            "generation": self.generation,
            "trouble": self.trouble,
        }

    def image(self, position: int, *, keep: bool = True) -> NDArray[Any]:
        """Return the pixels of a frame; for one of the desk's threads.

        Raises
        ------
        DamagedError
            It cannot be read.
        """
        key = ("image", self, self.generation, position)
        image: NDArray[Any] | None = self._cache.get(key)
        if image is not None:
            return image
        try:
            image = self.store.frames[position]
        except (ImgStoreError, OSError) as error:
            raise DamagedError(self._damage(position, error)) from error
        self.damaged.pop(position, None)
        if keep:
            self._cache.put(key, image, image.nbytes)
        return image

    def _damage(self, position: int, error: Exception) -> Damage:
        chunk, _ = self.index.chunk_at(position)
        damage = Damage(self.moment(position), chunk, self.without_path(str(error)))
        if len(self.damaged) < MOST_DAMAGED:
            self.damaged[position] = damage
        return damage

    def picture_key(self, position: int, framing: Framing, look: Look) -> Hashable:
        """Return what `picture` keeps its result under."""
        return ("picture", self, self.generation, position, framing, look)

    def kept_picture(self, key: Hashable) -> bytes | None:
        """Return a picture, if it was made lately."""
        picture: bytes | None = self._cache.get(key)
        return picture

    def picture(self, position: int, framing: Framing, look: Look, *, ahead: bool) -> bytes:
        """Return a frame as an encoded picture, and keep it; for one of the desk's threads."""
        key = self.picture_key(position, framing, look)
        picture = self.kept_picture(key)
        if picture is None:
            picture = encoded_picture(self.image(position, keep=not ahead), framing, look)
            self._cache.put(key, picture, len(picture))
        return picture

    def levels(self, position: int) -> Levels:
        """Return what the pixels of a frame are like; for one of the desk's threads."""
        return levels_of(self.image(position))

    def without_path(self, message: str) -> str:
        """Return a message that names the recording, but not where it lies."""
        path = self.store.parts.info.name, self.store.filename, str(self._location.path)
        for place in sorted({*path}, key=len, reverse=True):
            message = message.replace(place, self.name)
        return message

    def inspect(self) -> None:
        """Look into every file for what is missing or damaged; decodes nothing."""
        try:
            self.report = self.store.report()
        except (ImgStoreError, OSError) as error:
            self.uninspected = self.without_path(str(error))
            _log.warning("%s", error)
        except RuntimeError:
            # While a process ends, no thread can be started that would look into files.
            if not self._closed:
                raise

    def follow(self) -> None:
        """See what a writer has added, if the last look was some time ago.

        Where that does not work, `trouble` says so, and the recording stays as it was.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            begun = time.monotonic()
            if begun - self._looked < self._pause:
                return
            self._look()
            self._looked = time.monotonic()
            self._pause = max(_OFTEN, (self._looked - begun) / _SHARE)
        finally:
            self._lock.release()

    def _look(self) -> None:
        store, before = self.store, self.index
        try:
            stamp = self._stamped()
            # To open it anew would take the decoders from whoever watches.
            if stamp != self._stamp:
                store.refresh()
            self._stamp = stamp
        except (ImgStoreError, OSError) as error:
            if self.trouble is None:
                _log.warning("%s", error)
            self.trouble = self.without_path(str(error))
            return
        self.trouble = None
        now = store.index
        if now is before:
            return
        kept = min(len(now), len(before))
        same = np.array_equal(now.frame_number[:kept], before.frame_number[:kept])
        if len(now) < len(before) or not same:
            self.generation += 1
            self.damaged.clear()

    def _stamped(self) -> tuple[object, ...]:
        """What is not the same any more when a writer has added something."""
        try:
            return (self._location.read("zarr.json"),)
        except FileNotFoundError:
            names = self._location.names()
        chunks = [name for name in names if name.isdecimal()]
        return names, self._location.names(chunks[-1]) if chunks else []

    def close(self) -> None:
        """Read nothing more."""
        self._closed = True
        self.desk.close()
        self.store.close()


def short_names(filenames: list[str]) -> list[str]:
    """Return what to call recordings: the last part of each path or URL, numbered on repeats."""
    names: list[str] = []
    for filename in filenames:
        path = urlsplit(filename).path if "://" in filename else filename
        name = PurePath(path).name or "recording"
        same = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names

"""Places that are no directories, and what lies there, read by others than this project."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store

import imgstore_zarr
from tests import servers

SHAPE = (8, 8)

_count = itertools.count()


def image(i: int) -> NDArray[np.uint8]:
    return np.full(SHAPE, i % 251 + 1, np.uint8)


@dataclass(frozen=True)
class Remote:
    """A place for one recording.

    Attributes
    ----------
    target, options
        What `create` and `open` take.
    store, path
        The same for zarr-python.
    """

    target: Any
    store: Store
    options: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""

    def create(self, mode: Any = "x", format: str = "raw/zarr", **options: Any) -> Any:
        given = {"chunksize": 4, "storage_options": self.options or None, **options}
        return imgstore_zarr.create(self.target, format, SHAPE, mode=mode, **given)

    def open(self) -> imgstore_zarr.ImgStore:
        return imgstore_zarr.open(self.target, storage_options=self.options or None)

    def repair(self) -> imgstore_zarr.Report:
        return imgstore_zarr.repair(self.target, storage_options=self.options or None)

    @property
    def numbers(self) -> list[int]:
        """Frame numbers that zarr-python reads; each image must be right."""
        return read_by_zarr(self.store, self.path)

    def extra(self) -> list[int] | None:
        """The extra data that readers of this project see."""
        with self.open() as store:
            table = store.get_extra_data()
        return None if table is None else table["x"].tolist()

    def listed(self) -> list[str]:
        """Every key."""

        async def listed() -> list[str]:
            return sorted([key async for key in self.store.list_prefix(self.path)])

        return zarr.core.sync.sync(listed())


def read_by_zarr(store: Store, path: str = "") -> list[int]:
    """Read all that a recording counts by zarr-python, compare the pixels, return the numbers."""
    group = zarr.open_group(store, path=path, mode="r")
    numbers: NDArray[np.int64] = np.asarray(group["frame_number"])
    times = np.asarray(group["frame_time"])
    np.testing.assert_array_equal(times, numbers / 8)
    images = np.asarray(group["image"])
    expected = np.array([image(i) for i in numbers], np.uint8).reshape(-1, *SHAPE)
    np.testing.assert_array_equal(images, expected)
    return [int(number) for number in numbers]


def add(writer: Any, start: int, stop: int, *, extra: bool = False) -> None:
    for i in range(start, stop):
        writer.add_image(image(i), i, i / 8)
        if extra:
            writer.add_extra_data(x=i)


def in_zarr_memory() -> Remote:
    store = zarr.storage.MemoryStore()
    return Remote(store, store)


def in_obstore_memory() -> Remote:
    servers.needs("obstore")
    from imgstore_zarr.storage import locate

    url = f"memory://remote-{next(_count)}/some/recording"
    place: Any = locate(url)
    return Remote(url, zarr.storage.ObjectStore(place.store), path="some/recording")


def in_s3(place: servers.Place | None = None) -> Remote:
    place = (place or servers.s3()).below("some").below("recording")
    return Remote(place.url, zarr.storage.ObjectStore(place.store), place.options)


PLACES: Mapping[str, Callable[[], Remote]] = {
    "zarr store": in_zarr_memory,
    "memory": in_obstore_memory,
    "s3": in_s3,
}

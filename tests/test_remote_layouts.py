"""The public test kit over real servers: every layout, from S3, Azure and web servers."""

# ruff: noqa: RUF012 - nobody writes to options

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import imgstore_zarr
from imgstore_zarr.testing import Example, LayoutTests, WritableLayoutTests
from tests import servers
from tests.servers import Place
from tests.test_directory import TestColorJpg as JpgFiles
from tests.test_directory import TestPng as PngFiles
from tests.test_motif import motif


class OnServer(LayoutTests):
    """A recording made on disk, and read from where a server has it."""

    survives_fork = False
    place: Place

    def made(self, directory: Path) -> Example:
        """Make the recording; its location is a path below the directory."""
        raise NotImplementedError

    def put(self, root: Path) -> Place:
        """Return where the server has the recording."""
        raise NotImplementedError

    def recording(self, directory: Path) -> Example:
        example = self.made(directory)
        place = self.put(Path(example.location))
        type(self).place = place
        return replace(example, location=place.url, storage_options=place.options)

    def spellings(self, example: Example) -> Iterator[object]:
        yield from super().spellings(example)
        name = "zarr.json" if example.open().info.layout == "zarr" else "metadata.yaml"
        yield f"{example.location}/{name}"
        yield f"{example.location}/"
        yield self.place.store

    def contents(self, example: Example) -> object:
        return self.place.contents()


class OnS3(OnServer):
    def put(self, root: Path) -> Place:
        place = servers.s3().below("some/where/recording one")
        place.fill(root)
        return place


class OnAzure(OnServer):
    def put(self, root: Path) -> Place:
        place = servers.azure().below("recording")
        place.fill(root)
        return place


class OnWeb(OnServer):
    listings = True

    def put(self, root: Path) -> Place:
        return servers.web(root.parent, listings=self.listings).below(root.name)


class ZarrFiles(OnServer):
    """Written on disk by this package, whose files other tests hold against zarr-python."""

    format = "raw/zarr"
    imgshape: tuple[int, ...] = (11, 13)
    options: dict[str, Any] = {"chunksize": 4}

    def made(self, directory: Path) -> Example:
        kit = WritableLayoutTests()
        kit.format, kit.imgshape, kit.options = self.format, self.imgshape, self.options
        return kit.recording(directory)


class TestRawZarrOnS3(ZarrFiles, OnS3):
    pass


class TestZstdZarrOnS3(ZarrFiles, OnS3):
    format = "zstd/zarr"
    imgshape = (8, 9, 3)


class TestTilesOnS3(ZarrFiles, OnS3):
    format = "zstd/zarr"
    options = {"chunksize": 6, "inner_chunks": (3, 6, 6)}


class TestZarrOnAzure(ZarrFiles, OnAzure):
    format = "lz4/zarr"


class TestRawZarrOnWeb(ZarrFiles, OnWeb):
    pass


class TestZarrOnWebWithoutListings(ZarrFiles, OnWeb):
    format = "zstd/zarr"
    listings = False


class PngMade(OnServer):
    def made(self, directory: Path) -> Example:
        example = PngFiles().recording(directory)
        # Object storage has no empty folders.
        (Path(example.location) / "000003").rmdir()
        return example


class JpgMade(OnServer):
    def made(self, directory: Path) -> Example:
        return JpgFiles().recording(directory)


class TestPngOnS3(PngMade, OnS3):
    pass


class TestJpgOnAzure(JpgMade, OnAzure):
    pass


class TestPngOnWeb(PngMade, OnWeb):
    pass


class MotifMade(OnServer):
    color = False

    def made(self, directory: Path) -> Example:
        return motif(directory / "recording", color=self.color)


class TestMotifOnS3(MotifMade, OnS3):
    pass


class TestColorMotifOnAzure(MotifMade, OnAzure):
    color = True


class TestMotifOnWeb(MotifMade, OnWeb):
    pass


class WritableOnObjects(WritableLayoutTests):
    """Recordings written to a server and read from it."""

    survives_fork = False

    @staticmethod
    def bucket() -> Place:
        raise NotImplementedError

    def destination(self, directory: Path) -> Any:
        place = self.bucket().below(f"{directory.name}/recording")
        return imgstore_zarr.locate(place.url, place.options)

    def contents(self, example: Example) -> object:
        return self.bucket().contents()


class WritableOnS3(WritableOnObjects):
    @staticmethod
    @functools.cache
    def bucket() -> Place:
        return servers.s3()


class WritableOnAzure(WritableOnObjects):
    @staticmethod
    @functools.cache
    def bucket() -> Place:
        return servers.azure()


class TestWritingRawToS3(WritableOnS3):
    format = "raw/zarr"
    imgshape = (8, 9, 3)
    imgdtype = np.uint16


class TestWritingZstdToS3(WritableOnS3):
    format = "zstd/zarr"
    imgshape = (11, 13)
    options = {"chunksize": 6, "inner_chunks": (3, 6, 6)}


class TestWritingToAzure(WritableOnAzure):
    format = "lz4/zarr"
    imgshape = (11, 13)


class TestWritingToMemory(WritableLayoutTests):
    """``memory://`` is one store for all of this process."""

    format = "raw/zarr"
    imgshape = (11, 13)
    survives_fork = False

    def destination(self, directory: Path) -> str:
        servers.needs("obstore")
        return f"memory://kit/{directory.name}/recording"

    def contents(self, example: Example) -> object:
        return {key: example.place.read(key) for key in walked(example.place)}


def walked(place: imgstore_zarr.Location, key: str = "") -> Iterator[str]:
    """Every key of a place."""
    for name in place.names(key):
        path = f"{key}/{name}".lstrip("/")
        below = [*walked(place, path)]
        yield from below or [path]

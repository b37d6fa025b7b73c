"""Media: what a video is read from, a local file or an object elsewhere."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from imgstore_zarr.video.atoms import Readable

if TYPE_CHECKING:
    from imgstore_zarr.video.packets import PacketTable
    from imgstore_zarr.video.remote_media import FileForFFmpeg


class Input(Protocol):
    """One opening of a medium by FFmpeg."""

    @property
    def target(self) -> str | FileForFFmpeg:
        """What ``av.open`` takes."""
        ...

    @property
    def failed(self) -> bool:
        """Whether something could not be read."""
        ...

    def check(self) -> None:
        """Raise what reading has raised; FFmpeg would take it for an end or a damage."""
        ...


class Media(Protocol):
    """What a video is read from. Can be pickled."""

    @property
    def name(self) -> str:
        """What messages call it, unless told otherwise."""
        ...

    @property
    def is_far(self) -> bool:
        """Whether reading means to send requests."""
        ...

    @property
    def size(self) -> int:
        """Bytes in it."""
        ...

    @property
    def identity(self) -> Hashable:
        """What tells it from another one that has its name now."""
        ...

    def open(self) -> Readable:
        """Open it for our own parsers."""
        ...

    def input(self, end: int | None = None) -> Input:
        """Open it, or what is before `end`, for FFmpeg."""
        ...

    def afresh(self) -> Media:
        """Return the same medium with nothing in memory."""
        ...

    def learn_headers(self) -> None:
        """Fetch what FFmpeg will need of it to open it."""
        ...

    def learn(self, table: PacketTable, container: str) -> None:
        """Take note of its packets; `container` is FFmpeg's name of its format."""
        ...

    def heads(self, places: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        """Iterate over many small parts, each given by (offset, bytes)."""
        ...

    def holds(self, position: int) -> bool:
        """Whether a byte can be read without a request."""
        ...

    def prefetch(self, ranges: Iterable[tuple[int, int]], nbytes: int | None = None) -> None:
        """Request what will be read; see `RemoteBytes.prefetch`."""
        ...

    def rest(self) -> int:
        """Give up what only helps to read on; return how much memory the rest takes, in bytes."""
        ...


def as_media(source: str | os.PathLike[str] | Media) -> Media:
    """Return a path as a medium, or a medium as it is."""
    return LocalMedia(Path(source)) if isinstance(source, str | os.PathLike) else source


class LocalMedia:
    """A file of the local file system, which FFmpeg reads by itself.

    Parameters
    ----------
    path
        The file.
    """

    is_far = False

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.path.stat().st_size

    @property
    def identity(self) -> Hashable:
        """Device and inode."""
        facts = self.path.stat()
        return facts.st_dev, facts.st_ino

    def open(self) -> Readable:
        """Open the file."""
        return self.path.open("rb")

    def input(self, end: int | None = None) -> LocalInput:
        """Name the file to FFmpeg, or what of it is before `end`."""
        path = str(self.path)
        return LocalInput(path if end is None else f"subfile,,start,0,end,{end},,:{path}")

    def afresh(self) -> LocalMedia:
        """Return itself."""
        return self

    def learn_headers(self) -> None:
        """FFmpeg finds them."""

    def learn(self, table: PacketTable, container: str) -> None:
        """Nothing is fetched."""

    def heads(self, places: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        """Read parts, one after the other."""
        with self.open() as file:
            for offset, nbytes in places:
                file.seek(offset)
                yield file.read(nbytes)

    def holds(self, position: int) -> bool:  # noqa: ARG002
        """Everything is here."""
        return True

    def prefetch(self, ranges: Iterable[tuple[int, int]], nbytes: int | None = None) -> None:
        """The system reads ahead."""

    def rest(self) -> int:
        """Nothing is in memory."""
        return 0


class LocalInput:
    """A file that FFmpeg reads by itself.

    Parameters
    ----------
    target
        What it is told.
    """

    failed = False

    def __init__(self, target: str) -> None:
        self.target: str | FileForFFmpeg = target

    def check(self) -> None:
        """FFmpeg says what is wrong."""

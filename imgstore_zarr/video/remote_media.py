"""RemoteMedia: a video as an object elsewhere, and as the files that FFmpeg and our parsers read."""

from __future__ import annotations

import itertools
import os
from collections.abc import Hashable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from imgstore_zarr.errors import ChunkMissingError, CorruptChunkError, ImgStoreError
from imgstore_zarr.storage import Location, ReplacedError, access_error
from imgstore_zarr.video.atoms import outer_atoms
from imgstore_zarr.video.media import LocalMedia, Media
from imgstore_zarr.video.remote_bytes import HEAD_BYTES, LARGEST_REQUEST, RemoteBytes
from imgstore_zarr.video.sample_tables import first_packet

if TYPE_CHECKING:
    from imgstore_zarr.video.packets import PacketTable

# When so much is left behind the media, it is fetched at once: usually it is the sample tables.
_NEAR = 2 * LARGEST_REQUEST

# With what an mp4 begins.
_FIRST = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"})

# What belongs to a packet beside its data: in front of the first, and behind it, in bytes.
_AROUND = {"matroska": 4, "avi": 0, "mov": 0}
_IN_FRONT = 4096

# How many small parts are read at once.
_BATCH = 64


class RemoteMedia:
    """An object of a location that is no directory, read by as few requests as possible.

    Parameters
    ----------
    location
        The recording.
    key
        The object.
    label
        What messages call it, behind the name of the recording; by default the key.
    """

    is_far = True

    def __init__(self, location: Location, key: str, label: str = "") -> None:
        self._location = location
        self._key = key
        self._label = label or key
        self._bytes = RemoteBytes(location, key)
        self._knows_headers = False

    def __reduce__(self) -> tuple[type[RemoteMedia], tuple[Location, str, str]]:
        return RemoteMedia, (self._location, self._key, self._label)

    @property
    def name(self) -> str:
        """The recording, and the object."""
        return f"{self._location.name}: {self._label}"

    @property
    def key(self) -> str:
        """The object."""
        return self._key

    @property
    def size(self) -> int:
        """Bytes in the object."""
        try:
            return self._bytes.size
        except OSError as error:
            raise self.explained(error) from error

    @property
    def identity(self) -> Hashable:
        """Requests for parts of it fail once it was replaced, so that there is only one."""
        return self._key

    def open(self) -> RemoteFile:
        """Open the object for our own parsers."""
        return RemoteFile(self)

    def input(self, end: int | None = None) -> RemoteInput:
        """Open the object, or what is before `end`, for FFmpeg."""
        return RemoteInput(FileForFFmpeg(self, end))

    def afresh(self) -> RemoteMedia:
        """Return the same object with nothing in memory, in the version that is there then."""
        return RemoteMedia(self._location, self._key, self._label)

    def read(self, position: int, nbytes: int) -> bytes:
        """Return what follows a position, maybe fewer bytes; none only at the end.

        Raises
        ------
        RecordingAccessError
            A request failed.
        ChunkMissingError
            There is no such object.
        CorruptChunkError
            It was replaced by another one.
        """
        try:
            return self._bytes.read(position, nbytes)
        except OSError as error:
            raise self.explained(error) from error

    def learn_headers(self) -> None:
        """Fetch the sample tables of an mp4, wherever they are, and its first packet.

        Of other formats FFmpeg asks for little.
        """
        if self._knows_headers:
            return
        try:
            with self.open() as file:
                for atom in outer_atoms(file):
                    if not atom.start and atom.kind not in _FIRST:
                        break
                    if atom.kind == b"moov" and atom.end <= self.size:
                        self._bytes.keep(atom.start, atom.end)
                        file.seek(atom.body)
                        moov = memoryview(file.read(atom.end - atom.body))
                        start, stop = first_packet(moov) or (0, 0)
                        self._bytes.keep(start, min(stop, start + LARGEST_REQUEST, self.size))
                        break
                    if atom.kind == b"mdat" and atom.end < self.size:
                        near = self.size - atom.end <= _NEAR
                        self._bytes.keep(atom.end, self.size if near else atom.end + HEAD_BYTES)
        except OSError as error:
            raise self.explained(error) from error
        self._knows_headers = True

    def learn(self, table: PacketTable, container: str) -> None:
        """From now on fetch GOP by GOP."""
        cuts = table.pos[table.candidates]
        around = next((_AROUND[kind] for kind in _AROUND if container.startswith(kind)), None)
        if around is not None and len(cuts) > 1:
            # Between two packets are headers, which belong to the second one.
            last = table.candidates[1:] - 1
            ends = table.pos[last] + table.size[last] + around
            cuts[1:] = ends.clip(cuts[1:] - _IN_FRONT, cuts[1:])
        cuts.sort()
        self._bytes.plan(cuts[cuts > 0])

    def heads(self, places: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        """Read small parts, many at once, without what is around them."""
        rest = iter(places)
        while batch := list(itertools.islice(rest, _BATCH)):
            try:
                yield from self._bytes.parts(batch)
            except OSError as error:
                raise self.explained(error) from error

    def holds(self, position: int) -> bool:
        """Whether a byte is here, or on its way."""
        return position < 0 or self._bytes.holds(position)

    def prefetch(self, ranges: Iterable[tuple[int, int]], nbytes: int | None = None) -> None:
        """Request what will be read; see `RemoteBytes.prefetch`."""
        self._bytes.prefetch(ranges, nbytes)

    def rest(self) -> int:
        """Give up what is no header; return how much memory the rest takes, in bytes."""
        self._bytes.rest()
        return self._bytes.held

    def explained(self, error: OSError) -> OSError:
        """Return the error for what reading the object has raised."""
        if isinstance(error, ImgStoreError):
            return error
        if isinstance(error, FileNotFoundError):
            return ChunkMissingError(f"{self.name} is missing; restore it from a backup")
        if isinstance(error, ReplacedError):
            return CorruptChunkError(
                f"{self.name} was replaced by another file while it was open; open it again"
            )
        return access_error(self._location, f"reading {self._label}", error)


def media_at(location: Location, key: str, label: str = "") -> Media:
    """Return what a video is read from.

    Parameters
    ----------
    location
        The recording.
    key
        The file in it.
    label
        What messages call it, behind the name of the recording; by default the key.
    """
    if location.path is not None:
        return LocalMedia(location.path / key)
    return RemoteMedia(location, key, label)


class RemoteFile:
    """An object as a file for our own parsers, which are told of errors as they come.

    Parameters
    ----------
    media
        The object.
    """

    def __init__(self, media: RemoteMedia) -> None:
        self._media = media
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is open."""

    def read(self, nbytes: int, /) -> bytes:
        """Read so many bytes, or as many as there are."""
        parts = []
        while nbytes > 0 and (part := self._media.read(self._position, nbytes)):
            parts.append(part)
            self._position += len(part)
            nbytes -= len(part)
        return b"".join(parts)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go somewhere."""
        self._position = offset + _base(self._media.size, self._position, whence)
        return self._position

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._position


class FileForFFmpeg:
    """An object as FFmpeg reads it through PyAV: with short reads, and errors that are kept for later.

    What a callback raises PyAV keeps for whatever call of its thread fails next, or prints; and FFmpeg
    takes an error for the end of the file. So nothing is raised here, nothing is read any more after an
    error, and whoever uses what FFmpeg gives must call `check` before.

    Parameters
    ----------
    media
        The object.
    end
        Where it ends for FFmpeg, if not where it does.
    """

    def __init__(self, media: RemoteMedia, end: int | None) -> None:
        self._media = media
        self._end = end
        self._position = 0
        self.failure: BaseException | None = None
        # FFmpeg looks at the ending where it guesses the format.
        self.name = media.key

    def read(self, nbytes: int) -> bytes:
        """Read some bytes; none at the end, and after an error."""
        if self.failure is not None:
            return b""
        if self._end is not None:
            nbytes = min(nbytes, self._end - self._position)
        try:
            part = self._media.read(self._position, nbytes) if nbytes > 0 else b""
        except BaseException as failure:  # noqa: BLE001 - `check` raises it
            self.failure = failure
            return b""
        self._position += len(part)
        return part

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go somewhere."""
        # FFmpeg has read something of it before.
        size = self._media.size if self._end is None else self._end
        self._position = max(offset + _base(size, self._position, whence), 0)
        return self._position

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._position


def _base(size: int, position: int, whence: int) -> int:
    return {os.SEEK_SET: 0, os.SEEK_CUR: position, os.SEEK_END: size}[whence]


class RemoteInput:
    """An object that FFmpeg reads through us.

    Parameters
    ----------
    target
        The object as a file.
    """

    def __init__(self, target: FileForFFmpeg) -> None:
        self._file = target

    @property
    def target(self) -> str | FileForFFmpeg:
        """The file."""
        return self._file

    @property
    def failed(self) -> bool:
        """Whether something could not be read."""
        return self._file.failure is not None

    def check(self) -> None:
        """Raise what reading has raised."""
        if self._file.failure is not None:
            raise self._file.failure

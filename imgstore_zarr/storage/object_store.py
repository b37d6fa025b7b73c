"""Object storage by obstore: S3, Google Cloud Storage, Azure, memory, and web servers."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.bounded_cache import BoundedCache
from imgstore_zarr.storage.access import access_error
from imgstore_zarr.storage.index_pages import NO_LISTING, linked_names
from imgstore_zarr.storage.recollection import is_recollecting, recalled
from imgstore_zarr.storage.requests import (
    RangeError,
    RefusedError,
    RequestError,
    asked,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

# What is uploaded at the same time takes so much memory at most.
_PART_BYTES = 8 * 2**20
_PARTS = 4

Version = dict[str, str]
"""What a service calls one version of an object, as obstore takes it in place of a mode."""


class ObjectBlob:
    """An object, read by one ranged GET each time; always the one that was read first.

    Parameters
    ----------
    place
        Where it lies.
    key
        Its key there.
    """

    def __init__(self, place: ObjectStore, key: str) -> None:
        self._place = place
        self._key = key
        self._tag: str | None = None
        self._size: int | None = None

    @property
    def size(self) -> int:
        """Bytes in the object; a request, unless something of it was read."""
        if self._size is None:
            self._note(self._place.head(self._key))
        assert self._size is not None
        return self._size

    @property
    def tag(self) -> str | None:
        """What the service calls this version of the object, once something of it was read."""
        return self._tag

    def tail(self, nbytes: int) -> bytes:
        """Return the last bytes, by a suffix request where the service knows these."""
        if not self._place.knows_suffixes:
            start = max(0, self.size - nbytes)
            return self.read(start, self.size - start)
        try:
            return bytes(self._get({"suffix": nbytes}))
        except RangeError:
            # Of an object without a byte there is none.
            if self._size is None and self.size == 0:
                return b""
            raise

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return a range, or what there is of it."""
        return bytes(self._part(offset, nbytes))

    def _part(self, offset: int, nbytes: int) -> Buffer:
        if nbytes <= 0 or (self._size is not None and offset >= self._size):
            return b""
        cache = self._place.cache
        if cache is None:
            return self._range(offset, nbytes)
        name = self._place.full(self._key)
        known = None if self._tag is None else cache.get((name, self._tag, offset, nbytes))
        if known is not None:
            return known
        data = bytes(self._range(offset, nbytes))
        cache.put((name, self._tag, offset, nbytes), data, len(data))
        return data

    def _range(self, offset: int, nbytes: int) -> Buffer:
        try:
            return self._get((offset, offset + nbytes))
        except RangeError:
            if offset >= self.size:
                return b""
            raise

    def read_into(self, offset: int, buffers: Sequence[NDArray[np.uint8]]) -> int:
        """Read one range and hand it out."""
        wanted = sum(len(buffer) for buffer in buffers)
        # As obstore has it, without a copy: many such reads are under way at the same time.
        data = np.frombuffer(memoryview(self._part(offset, wanted)), np.uint8)
        at = 0
        for buffer in buffers:
            part = data[at : at + len(buffer)]
            buffer[: len(part)] = part
            at += len(part)
        return at

    def _get(self, byte_range: Any) -> Buffer:
        import obstore

        options: Any = {"range": byte_range}
        if self._tag is not None:
            options["if_match"] = self._tag

        def request() -> tuple[Any, tuple[int, int], obstore.Bytes]:
            result = obstore.get(self._place.store, self._place.full(self._key), options=options)
            return result.meta, result.range, result.buffer()

        meta, (start, stop), data = asked(request, self._key)
        if len(data) != stop - start:
            raise RequestError(
                errno.EIO, f"{self._key}: {len(data)} of {stop - start} bytes came", "try again"
            )
        self._note(meta)
        return data

    def _note(self, meta: Any) -> None:
        if self._size is None:
            self._size, self._tag = int(meta["size"]), meta["e_tag"]


@dataclass(frozen=True)
class ObjectStore:
    """A prefix of an obstore store.

    Attributes
    ----------
    store
        The client, with the credentials.
    prefix
        The recording's key in it.
    url
        For messages; without secrets.
    read_only
        Whether writing is refused.
    cache
        Keeps what is read of parts of objects; None keeps nothing.
    """

    store: Any = field(repr=False)
    prefix: str
    url: str
    read_only: bool = False
    cache: BoundedCache[bytes] | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The URL."""
        return self.url

    @property
    def path(self) -> None:
        """None: what object storage holds has no path."""
        return

    @property
    def _kind(self) -> str:
        return type(self.store).__name__

    @property
    def is_web_server(self) -> bool:
        """Whether it is listed by the pages that a web server shows for folders."""
        return self._kind == "HTTPStore"

    @property
    def knows_suffixes(self) -> bool:
        """Whether the last bytes can be asked for without knowing the size."""
        return self._kind != "AzureStore"

    def full(self, key: str) -> str:
        """Return the key in the whole store."""
        return "/".join(part for part in (self.prefix, key) if part)

    def below(self, key: str) -> ObjectStore:
        """Return what lies below a key, as a place of its own."""
        url = f"{self.url.rstrip('/')}/{in_url(key)}"
        return replace(self, prefix=self.full(key), url=url)

    def read(self, key: str) -> bytes:
        """Return a whole object, by one request."""
        import obstore

        full = self.full(key)

        def request() -> bytes:
            return bytes(obstore.get(self.store, full).buffer())

        return recalled(self.store, full, lambda: asked(request, key))

    def head(self, key: str) -> dict[str, Any]:
        """Return size, tag and time of an object."""
        import obstore

        return dict(asked(lambda: obstore.head(self.store, self.full(key)), key))

    def write(self, key: str, data: Buffer, *, durable: bool = False) -> None:  # noqa: ARG002
        """Put an object; it is durable when the service has taken it."""
        self._put(key, bytes(data))

    def create(self, key: str, data: bytes) -> Version:
        """Put an object where there is none.

        Returns
        -------
        dict
            What the service calls this version of the object.

        Raises
        ------
        FileExistsError
            There is one already.
        NotImplementedError
            The service cannot tell.
        """
        return self._put(key, data, mode="create")

    def replace(self, key: str, data: bytes, version: Version) -> Version:
        """Put an object over one version of it.

        Raises
        ------
        ReplacedError
            Another version is there, or none.
        NotImplementedError
            The service cannot tell.
        """
        return self._put(key, data, mode=version)

    def read_version(self, key: str) -> tuple[bytes, Version]:
        """Return a whole object, and what the service calls this version of it."""
        import obstore

        def request() -> tuple[bytes, Version]:
            result = obstore.get(self.store, self.full(key))
            return bytes(result.buffer()), _version(result.meta)

        return asked(request, key)

    def upload(self, key: str, file: Path) -> None:
        """Put the contents of a file, part by part, without having more than a few in memory."""
        self._put(key, file, chunk_size=_PART_BYTES, max_concurrency=_PARTS)

    def _put(self, key: str, data: bytes | Path, **options: Any) -> Version:
        import obstore

        if self.read_only:
            raise OSError(errno.EROFS, "the store was opened to be read only")
        full = self.full(key)
        put = asked(lambda: obstore.put(self.store, full, data, **options), key, changes=True)
        return _version(put)

    def open(self, key: str) -> ObjectBlob:
        """Return a handle; no request is made, so a missing object shows when it is read."""
        return ObjectBlob(self, key)

    def exists(self, key: str) -> bool:
        """Whether the object, or any below it, is there.

        Raises
        ------
        RecordingAccessError
            Nobody can tell.
        """
        try:
            return self._exists(key)
        except RequestError as error:
            raise access_error(self, f"looking for {key or 'objects'}", error) from error

    def _exists(self, key: str) -> bool:
        try:
            if is_recollecting(key):
                self.read(key)
            elif key:
                self.head(key)
            else:
                return bool(self.names())
        except FileNotFoundError:
            return not is_recollecting(key) and bool(self.names(key))
        return True

    def names(self, key: str = "") -> list[str]:
        """Return the names below a key, by one listing.

        Raises
        ------
        RecordingAccessError
            The listing failed.
        """
        return [name.rstrip("/") for name in self._listed(key)]

    def folders(self, key: str = "") -> list[str]:
        """Return those names below a key that have others below them."""
        return [name[:-1] for name in self._listed(key) if name.endswith("/")]

    def _listed(self, key: str) -> list[str]:
        """Names below a key, sorted; those of folders end with a slash."""
        try:
            return self._list(key)
        except RequestError as error:
            raise access_error(self, f"listing {key or 'it'}", error) from error

    def _list(self, key: str) -> list[str]:
        import obstore

        full = self.full(key)
        if self.is_web_server:
            try:
                page = asked(lambda: bytes(obstore.get(self.store, full).buffer()), key)
            except FileNotFoundError:
                return []
            except RefusedError as error:
                raise RefusedError(errno.EACCES, str(error.strerror), NO_LISTING) from None
            return linked_names(page, full)
        listed = asked(lambda: obstore.list_with_delimiter(self.store, full or None), key)
        found = {str(entry["path"]).rsplit("/", 1)[-1] for entry in listed["objects"]}
        found |= {
            f"{prefix.rstrip('/').rsplit('/', 1)[-1]}/" for prefix in listed["common_prefixes"]
        }
        return sorted(found, key=lambda name: name.rstrip("/"))

    def objects(self) -> Iterator[tuple[str, int | None]]:
        """Iterate over the key and the size of every object, by one listing, a thousand a request."""
        import obstore

        batches = asked(
            lambda: iter(obstore.list(self.store, self.prefix or None, chunk_size=1000)), ""
        )
        skip = len(self.prefix) + 1 if self.prefix else 0
        while (batch := asked(lambda: next(batches, None), self.prefix)) is not None:
            for entry in batch:
                yield str(entry["path"])[skip:], int(entry["size"])

    def delete(self, key: str) -> None:
        """Delete an object and everything below it."""
        import obstore

        if self.read_only:
            raise OSError(errno.EROFS, "the store was opened to be read only")
        full = self.full(key)

        def request() -> None:
            for batch in obstore.list(self.store, full or None):
                obstore.delete(self.store, [entry["path"] for entry in batch])
            if full:
                obstore.delete(self.store, full)

        try:
            asked(request, key, changes=True)
        except FileNotFoundError:
            return


def in_url(key: str) -> str:
    """Return a key as a URL has it, in which ``?``, ``#`` and ``%`` mean something."""
    return key.replace("%", "%25").replace("?", "%3F").replace("#", "%23")


def _version(facts: Any) -> Version:
    return {name: facts[name] for name in ("e_tag", "version") if facts[name] is not None}

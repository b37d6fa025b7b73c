"""What was read to recognise a recording is not requested again to open it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from imgstore_zarr.storage.location import METADATA_FILES


class Recollection:
    """The metadata that were read while a recording is being opened."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], bytes | OSError] = {}
        self._unreachable: OSError | None = None
        self._recognised = False

    def recognised(self) -> None:
        """From now on each is given once: who reads it again wants to know whether it has changed."""
        self._recognised = True

    def read(self, key: tuple[int, str], fetch: Callable[[], bytes]) -> bytes:
        """Return a document, or raise what reading it has raised."""
        if self._unreachable is not None:
            raise self._unreachable
        found = self._found.pop(key, None)
        if found is None:
            try:
                found = fetch()
            except FileNotFoundError as error:
                found = error
            except OSError as error:
                # Waiting once for a place that does not answer is enough.
                self._unreachable = error
                raise
        if not self._recognised:
            self._found[key] = found
        if isinstance(found, OSError):
            raise found
        return found


_current: ContextVar[Recollection | None] = ContextVar("recollection", default=None)


@contextlib.contextmanager
def recollecting() -> Iterator[Recollection]:
    """Remember metadata of what lies elsewhere, until the recording is open."""
    recollection = Recollection()
    token = _current.set(recollection)
    try:
        yield recollection
    finally:
        _current.reset(token)


def recalled(place: object, key: str, fetch: Callable[[], bytes]) -> bytes:
    """Read an object, or remember what reading it gave; see `recollecting`.

    Parameters
    ----------
    place
        The store.
    key
        The whole key in it.
    fetch
        Reads the object.
    """
    recollection = _current.get()
    if recollection is None or key.rsplit("/", 1)[-1] not in METADATA_FILES:
        return fetch()
    return recollection.read((id(place), key), fetch)


def is_recollecting(key: str) -> bool:
    """Whether an object that exists will be read anyway, so that asking for it costs nothing."""
    return _current.get() is not None and key in METADATA_FILES

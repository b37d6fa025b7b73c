"""IcechunkBranch: a group in a branch of an icechunk repository, of which every state is kept."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imgstore_zarr.storage.requests import ReplacedError
from imgstore_zarr.storage.zarr_store import StoreBlob, ZarrStore

if TYPE_CHECKING:
    from icechunk import Repository, Session
    from typing_extensions import Buffer


@dataclass(frozen=True)
class IcechunkBranch:
    """Read as it was when it was first read; written in transactions, each one snapshot.

    Icechunk holds Zarr groups, arrays and chunks. Other files, as the signpost ``metadata.yaml``,
    have no place there.

    Attributes
    ----------
    repository
        The repository.
    branch
        The name of the branch.
    group
        The path of the recording in it.
    """

    repository: Repository
    branch: str = "main"
    group: str = ""
    _state: _Sessions = field(default_factory=lambda: _Sessions(), repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return IcechunkBranch, (self.repository, self.branch, self.group)

    @property
    def name(self) -> str:
        """The branch, and the group."""
        where = str(self.repository.storage).partition("\n")[0].rstrip("(:")
        return f"icechunk {where}, branch {self.branch}" + (f", {self.group}" if self.group else "")

    @property
    def path(self) -> None:
        """None: what a repository holds has no path."""
        return

    def below(self, key: str) -> IcechunkBranch:
        """Return what lies below a key, as a place of its own."""
        return IcechunkBranch(self.repository, self.branch, f"{self.group}/{key}".strip("/"))

    @property
    def _store(self) -> ZarrStore:
        return ZarrStore(self._state.session(self).store, self.group)

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        if not is_zarr_key(key):
            raise FileNotFoundError(errno.ENOENT, f"icechunk has no place for {key!r}")
        return self._store.read(key)

    def open(self, key: str) -> StoreBlob:
        """Return a handle; a missing object shows when it is read."""
        return self._store.open(key)

    def exists(self, key: str) -> bool:
        """Whether the object, or any below it, is there."""
        if is_zarr_key(key):
            return self._store.exists(key)
        return bool(self.names(key))

    def names(self, key: str = "") -> list[str]:
        """Return the names directly below a key, sorted."""
        return [] if key.startswith(".") else self._store.names(key)

    def objects(self) -> Iterator[tuple[str, int | None]]:
        """Iterate over the key of every object; see `ZarrStore.objects`."""
        return self._store.objects()

    def write(self, key: str, data: Buffer, *, durable: bool = False) -> None:
        """Write an object; it counts from `commit` on. What is no part of Zarr is left out."""
        if is_zarr_key(key):
            self._writing.write(key, data, durable=durable)

    def delete(self, key: str) -> None:
        """Remove an object or everything below a key, from `commit` on."""
        if is_zarr_key(key):
            self._writing.delete(key)
        elif not key.startswith("."):
            self._writing.delete_below(key)

    @property
    def _writing(self) -> ZarrStore:
        return ZarrStore(self._state.writable(self).store, self.group)

    def commit(self, message: str) -> None:
        """Make what was written a snapshot; nothing, where nothing was.

        Raises
        ------
        ReplacedError
            Somebody else has committed to the same group meanwhile.
        """
        import icechunk

        session = self._state.writable(self)
        if not session.has_uncommitted_changes:
            return
        try:
            # Others may have committed to other groups.
            session.commit(message, rebase_with=icechunk.ConflictDetector())
        except (icechunk.ConflictError, icechunk.RebaseFailedError) as error:
            self._state.committed()
            raise ReplacedError(
                errno.ESTALE, "somebody else has committed to the same group"
            ) from error
        self._state.committed()


class _Sessions:
    """The session of this process: one for reading, until something is written."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: Session | None = None

    def session(self, place: IcechunkBranch) -> Session:
        with self._lock:
            if self._session is None:
                self._session = place.repository.readonly_session(place.branch)
            return self._session

    def writable(self, place: IcechunkBranch) -> Session:
        with self._lock:
            if self._session is None or self._session.read_only:
                self._session = place.repository.writable_session(place.branch)
            return self._session

    def committed(self) -> None:
        with self._lock:
            self._session = None


def is_zarr_key(key: str) -> bool:
    """Whether a key is one that Zarr knows: metadata, or a chunk."""
    parts = key.split("/")
    return parts[-1] == "zarr.json" or "c" in parts[:-1]

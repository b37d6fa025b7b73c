"""VirtualGroup: the keys of a Zarr group, and the bytes behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import ChunkMissingError, InvalidMetadataError
from imgstore_zarr.native.metadata import GROUP_KEY
from imgstore_zarr.native.nodes import dump_json, group_metadata
from imgstore_zarr.virtual_zarr.arrays import VirtualArray


class VirtualGroup:
    """A Zarr v3 group with the metadata of all its members inline; nobody can write to it.

    Parameters
    ----------
    name
        Of the recording, for messages.
    attributes
        Of the group.
    groups
        By key, the attributes of the groups in it.
    arrays
        By key, the arrays in it and in those.
    """

    def __init__(
        self,
        name: str,
        attributes: Mapping[str, Any],
        groups: Mapping[str, Mapping[str, Any]],
        arrays: Mapping[str, VirtualArray],
    ) -> None:
        self.name = name
        self._attributes = attributes
        self._groups = groups
        self._arrays = arrays
        nodes = {key: group_metadata(attributes) for key, attributes in groups.items()}
        nodes |= {key: array.document() for key, array in arrays.items()}
        self._documents = {f"{key}/{GROUP_KEY}": dump_json(node) for key, node in nodes.items()}
        self._documents[GROUP_KEY] = dump_json(group_metadata(attributes, nodes))

    @property
    def document(self) -> bytes:
        """The ``zarr.json`` of the group, which has those of its members in it."""
        return self._documents[GROUP_KEY]

    def first_rows(self, lengths: Mapping[str, int]) -> VirtualGroup:
        """Return the group with no more than some rows of each array.

        Raises
        ------
        InvalidMetadataError
            An array is not there, or shorter.
        """
        arrays = {}
        for key, length in lengths.items():
            array = self._arrays.get(key)
            if array is None or array.shape[0] < length:
                raise InvalidMetadataError(
                    f"{self.name} is not what it was: {key} had {length} rows, and has "
                    f"{0 if array is None else array.shape[0]} now; open it again"
                )
            arrays[key] = array.first_rows(length)
        return VirtualGroup(self.name, self._attributes, self._groups, arrays)

    @property
    def lengths(self) -> dict[str, int]:
        """How many rows each array has."""
        return {key: array.shape[0] for key, array in self._arrays.items()}

    def size(self, key: str) -> int | None:
        """Return how many bytes a key has, None where there is no such key; reads nothing."""
        document = self._documents.get(key)
        if document is not None:
            return len(document)
        found = self._chunk(key)
        return None if found is None else found[0].chunk_bytes

    def read(self, key: str, start: int, stop: int) -> NDArray[np.uint8]:
        """Return bytes start .. stop-1 of a key that there is.

        Raises
        ------
        ChunkMissingError, CorruptChunkError
            Frames, or whatever it is, that cannot be read. They are never taken for a chunk that is
            not there, in whose place Zarr has zeros.
        """
        document = self._documents.get(key)
        if document is not None:
            return np.frombuffer(document, np.uint8)[start:stop]
        found = self._chunk(key)
        if found is None:
            raise ValueError(f"{self.name} has no key {key!r}")
        array, chunk = found
        try:
            return array.chunk(chunk, start, stop)
        except (KeyError, FileNotFoundError) as error:
            # What Zarr readers take for a chunk that is not there.
            raise ChunkMissingError(f"{self.name}: {key} cannot be read ({error})") from error

    def _chunk(self, key: str) -> tuple[VirtualArray, int] | None:
        name, separator, rest = key.rpartition("/c/")
        array = self._arrays.get(name)
        chunk = array.chunk_of(f"c/{rest}") if array is not None and separator else None
        return None if array is None or chunk is None else (array, chunk)

    def all_keys(self, prefix: str = "") -> Iterator[str]:
        """Iterate over the keys that begin with some text."""
        yield from (key for key in self._documents if key.startswith(prefix))
        for name, array in self._arrays.items():
            below = f"{name}/c/"
            if below.startswith(prefix[: len(below)]):
                keys = (f"{name}/{array.chunk_key(chunk)}" for chunk in range(array.chunk_count))
                yield from (key for key in keys if key.startswith(prefix))

    def names(self, key: str = "") -> Iterator[str]:
        """Iterate over the names directly below a key; one that nothing is below has none."""
        prefix = f"{key.rstrip('/')}/" if key else ""
        found = {
            known.removeprefix(prefix).split("/")[0]
            for known in self._documents
            if known.startswith(prefix)
        }
        for name, array in self._arrays.items():
            if f"{name}/" == prefix and array.chunk_count:
                found.add("c")
            elif prefix.startswith(f"{name}/c/"):
                found.update(
                    known.removeprefix(prefix).split("/")[0] for known in self.all_keys(prefix)
                )
        yield from sorted(found)

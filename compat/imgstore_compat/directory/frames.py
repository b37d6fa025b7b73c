"""DirectoryFrames: the frames of a recording in directories of images, as one array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_compat.directory.image_files import decode_image, read_npy
from imgstore_zarr.errors import ChunkMissingError, CorruptChunkError
from imgstore_zarr.frames import Positions, Window, output_array, window_shape
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.shared_sources import packed, unpacked
from imgstore_zarr.storage import Location, RequestError, access_error, each, is_far


def is_chunk_folder(name: str) -> bool:
    """Whether a directory of this name is a chunk."""
    return name.isdecimal() and name == f"{int(name):06d}"


def image_key(chunk: int, place: int, kind: str) -> str:
    """Return the key of the image at a place of a chunk."""
    return f"{chunk:06d}/{place:06d}.{kind}"


def read_image(location: Location, key: str, kind: str, out: NDArray[Any]) -> None:
    """Read the image of a key into a C-contiguous array of its shape and dtype.

    Raises
    ------
    ChunkMissingError, CorruptChunkError, RecordingAccessError
        Naming recording, chunk and file.
    """
    chunk, _, name = key.partition("/")
    where = f"{location.name}: image {name} of chunk {int(chunk)}"
    try:
        if kind != "npy" or not read_npy(location.open(key), out):
            out[...] = decode_image(kind, location.read(key), out.shape, out.dtype)
    except FileNotFoundError as error:
        raise ChunkMissingError(f"{where} is missing; restore {key} from a backup") from error
    except (PermissionError, RequestError) as error:
        raise access_error(location, f"reading {key}", error) from error
    except (OSError, ValueError) as error:
        raise CorruptChunkError(
            f"{where} cannot be read as {out.dtype} {out.shape}: {error}; restore {key} from a backup"
        ) from error


class DirectoryFrames:
    """The frames of a recording in directories of images.

    Parameters
    ----------
    location
        The recording.
    kind
        The ending of the images' files.
    image_shape, dtype
        Of every image.
    index
        Where the frames are.
    """

    def __init__(
        self,
        location: Location,
        kind: str,
        image_shape: tuple[int, ...],
        dtype: np.dtype[Any],
        index: FrameIndex,
    ) -> None:
        self._location = location
        self._kind = kind
        self._image_shape = image_shape
        self._dtype = dtype
        # Not the index itself, which is large when this is pickled.
        self._numbers = index.chunk_numbers
        self._starts = index.chunk_starts
        self._count = len(index)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        return state | {name: packed(state[name]) for name in ("_numbers", "_starts")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._numbers, self._starts = unpacked(state["_numbers"]), unpacked(state["_starts"])

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, y, x) or (frame, y, x, channel)."""
        return (self._count, *self._image_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the pixels."""
        return self._dtype

    @property
    def preferred_chunks(self) -> tuple[int, ...]:
        """One image, which is one file."""
        return (1, *self._image_shape)

    def read(
        self, positions: Positions, window: Window | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read frames; see `FrameSource.read`. Each file is read once."""
        out = output_array(window_shape(self.shape, len(positions), window), self.dtype, out)
        if is_far(self._location):
            self._read_at_once(positions, window, out)
            return out
        whole = np.empty(self._image_shape, self._dtype) if window else None
        last, image = -1, np.empty(0)
        for i in np.argsort(positions, kind="stable").tolist():
            position = int(positions[i])
            repeated = position == last
            if not repeated:
                last, image = position, out[i] if whole is None else whole
                read_image(self._location, self._key(position), self._kind, image)
            if window:
                out[i] = image[window.slices]
            elif repeated:
                out[i] = image
        return out

    def _read_at_once(self, positions: Positions, window: Window | None, out: NDArray[Any]) -> None:
        """Read many images side by side, each once."""

        def read(position: int) -> None:
            first, *others = np.flatnonzero(positions == position).tolist()
            image = np.empty(self._image_shape, self._dtype) if window else out[first]
            read_image(self._location, self._key(position), self._kind, image)
            for place in others if window is None else (first, *others):
                out[place] = image if window is None else image[window.slices]

        each(read, np.unique(positions).tolist())

    def _key(self, position: int) -> str:
        chunk = int(np.searchsorted(self._starts, position, side="right")) - 1
        place = position - int(self._starts[chunk])
        return image_key(int(self._numbers[chunk]), place, self._kind)

    def close(self) -> None:
        """Nothing is kept open."""

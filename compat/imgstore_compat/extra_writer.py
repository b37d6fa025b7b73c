"""ExtraWriter: extra data as a list of records in JSON beside each chunk, as imgstore writes them."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path
from typing import Any

from imgstore_zarr.extra import dump_record

SUFFIX = ".extra.json"


class ExtraWriter:
    """Appends records; a killed process leaves all that were appended, without the closing bracket.

    Parameters
    ----------
    root
        The recording.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stem = ""
        self._file: FileIO | None = None

    def append(self, stem: str, record: dict[str, Any]) -> None:
        """Append a record to the list of a chunk.

        Parameters
        ----------
        stem
            The key of the chunk's index without an ending. The list of another chunk is finished.
        record
            What JSON can hold; see `dump_record`.
        """
        text = dump_record(record).encode()
        path = self._root / f"{stem}{SUFFIX}"
        if stem != self._stem:
            self.close()
            self._file = path.open("wb", buffering=0)
            self._stem = stem
            self._file.write(b"[" + text)
        else:
            if self._file is None:
                self._file = path.open("r+b", buffering=0)
                self._file.seek(-len(b"]"), os.SEEK_END)
            self._file.write(b", " + text)

    def close(self) -> None:
        """Finish the list; a record of the same chunk can still be appended."""
        if self._file is not None:
            file, self._file = self._file, None
            with file:
                file.write(b"]")

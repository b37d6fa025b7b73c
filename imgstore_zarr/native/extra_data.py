"""ZarrExtra: records, in columns or still in the log of their writer, and what was sampled beside."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imgstore_zarr.errors import (
    ChunkMissingError,
    CorruptChunkError,
    ImgStoreError,
    InvalidMetadataError,
)
from imgstore_zarr.extra import (
    EXTRA_DATA_FILE_EXTENSIONS,
    SampledData,
    SampledSource,
    table_of,
    table_of_records,
)
from imgstore_zarr.native.extra_columns import read_extra
from imgstore_zarr.native.extra_log import Record, decode_lines
from imgstore_zarr.native.metadata import SAMPLED, ZarrRecording, parse, read_group
from imgstore_zarr.native.sampled_columns import sampled_sources
from imgstore_zarr.native.spool import EXTRA_KEY
from imgstore_zarr.storage import Location

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ZarrExtra:
    """Extra data of the frames that a recording had when it was opened."""

    location: Location
    recording: ZarrRecording

    def _now(self) -> ZarrRecording:
        """The recording as it is now: a writer moves records from its log to columns, and back."""
        now = parse(self.location.name, read_group(self.location))
        return now if now.keeps_frames_of(self.recording) else self.recording

    def exists(self) -> bool:
        """Whether there is any."""
        return bool(self.recording.sampled) or self._has_records()

    def _has_records(self) -> bool:
        return (
            bool(self.recording.extra) or self.location.exists(EXTRA_KEY) or bool(self._now().extra)
        )

    def files(self, extensions: Sequence[str] = EXTRA_DATA_FILE_EXTENSIONS) -> list[str]:  # noqa: ARG002
        """Return the groups that hold it, whatever the extensions of files."""
        groups = {"extra": self._has_records(), SAMPLED: bool(self.recording.sampled)}
        return [f"{self.location.name}/{group}" for group, there in groups.items() if there]

    def read(self, ignore_corrupt_chunks: bool = False) -> pd.DataFrame | None:
        """Return one row per record; see `ExtraData.read`."""
        now = self._now()
        try:
            table = self._table(now, ignore_corrupt_chunks)
        except ChunkMissingError:
            if (later := self._now()).extra == now.extra:
                raise
            table = self._table(later, ignore_corrupt_chunks)
        if table is None or "frame_index" not in table:
            return table
        own = table[table["frame_index"] < self.recording.frame_count]
        return table if len(own) == len(table) else own.reset_index(drop=True)

    def _table(self, recording: ZarrRecording, ignore_corrupt: bool) -> pd.DataFrame | None:
        if not recording.extra:
            return self._in_flight(ignore_corrupt)
        columns: dict[str, Any] = {}
        for name, document in recording.extra.items():
            try:
                columns |= read_extra(self.location, {name: document})
            except ImgStoreError as error:
                if not ignore_corrupt:
                    raise
                warnings.warn(f"left out: {error}", stacklevel=4)
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidMetadataError(
                f"{self.location.name}: the extra data have different lengths ({lengths})"
            )
        return table_of(columns)

    def _in_flight(self, ignore_corrupt: bool) -> pd.DataFrame | None:
        """Records that a writer has not yet put into columns, as far as their frames count."""
        try:
            lines = io.BytesIO(self.location.read(EXTRA_KEY))
        except FileNotFoundError as error:
            if self._now().extra:
                raise ChunkMissingError(f"{self.location.name}: {EXTRA_KEY} is gone") from error
            return None
        records: list[Record] = []
        try:
            records.extend(
                record
                for record in decode_lines(self.location.name, lines)
                if record["frame_index"] < self.recording.frame_count
            )
        except CorruptChunkError as error:
            if not ignore_corrupt:
                raise
            warnings.warn(f"left out: {error}", stacklevel=5)
        return table_of_records(records) if records else None

    def sampled(self) -> SampledData:
        """Return the records, which are read, and the datasets, which are not; see `HasSampledData`."""
        return SampledData(self.read(), self.datasets())

    def datasets(self, ignore_corrupt_chunks: bool = False) -> Mapping[str, SampledSource]:  # noqa: ARG002
        """Return what was sampled, of which all is in ``zarr.json``; see `HasSampledData`."""
        return sampled_sources(self.location, self.recording.sampled)

    def samplerate(self) -> float | None:
        """Return the rate in Hz of the only dataset; None where there are several, or it has none."""
        rates = [source.samplerate for source in self.datasets().values()]
        return rates[0] if len(rates) == 1 else None

"""What can be said of a recording whether it is read or written."""

from __future__ import annotations

import copy
import datetime as dt
import html
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

import numpy as np

from imgstore_zarr.recording import RecordingInfo
from imgstore_zarr.storage import Location

FrameMetadata = tuple[int, float]
"""Frame number and frame time."""

NAN = float("nan")


class Described(ABC):
    """The properties that reading and writing have in common."""

    _location: Location

    @property
    @abstractmethod
    def info(self) -> RecordingInfo:
        """What is known of the recording apart from its frames."""

    @property
    def filename(self) -> str:
        """The recording itself, as in imgstore."""
        return self._location.name

    @property
    def full_path(self) -> str:
        """The ``metadata.yaml`` of the recording, as in imgstore."""
        path = self._location.path
        name = self._location.name
        return f"{name}/metadata.yaml" if path is None else str(path / "metadata.yaml")

    @property
    def uuid(self) -> str | None:
        """The identity of the recording; old ones have none."""
        return self.info.uuid

    @property
    def created(self) -> tuple[dt.datetime, dt.tzinfo]:
        """When the recording was made (UTC), and the time zone in which."""
        return self.info.created, self.info.timezone

    @property
    def user_metadata(self) -> dict[str, Any]:
        """The user's own mapping."""
        return copy.deepcopy(dict(self.info.user_metadata))

    @property
    def format(self) -> str:
        """``codec/container``."""
        return self.info.format

    @property
    def encoding(self) -> str | None:
        """How stored pixels are to be interpreted, or None."""
        return self.info.encoding

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the pixels."""
        return self.info.imgdtype

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(y, x) or (y, x, channel) of one image as it is handed out."""
        return self.info.image_shape

    @property
    def lossless(self) -> bool:
        """Whether the pixels are those that were given; gray of colour (``pgm``) and video are not."""
        return self.info.lossless

    def convert_frame_time_to_datetime(
        self, frame_time: float, tz: dt.tzinfo | None = None
    ) -> dt.datetime:
        """Return a frame time, taken as Unix time, as a datetime.

        Parameters
        ----------
        frame_time
            Seconds since 1970-01-01 UTC.
        tz
            The time zone of the result; by default that of the recording.
        """
        return dt.datetime.fromtimestamp(frame_time, tz=tz or self.info.timezone)

    def _chunk_path(self, number: int) -> str:
        """Where imgstore's saved index says that a chunk lies."""
        path = f"{self.filename}/{number:06d}"
        return f"{path}/index" if self.info.layout == "directory" else path

    @abstractmethod
    def _summary(self) -> dict[str, str]:
        """What to show of the recording, by what it is called."""

    def __repr__(self) -> str:
        facts = "".join(f"\n  {name}: {value}" for name, value in self._summary().items())
        return f"<{type(self).__name__} {self.filename}>{facts}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._summary().items()
        )
        kind, name = type(self).__name__, html.escape(self.filename)
        return f"<b>{kind}</b> <code>{name}</code><table>{rows}</table>"

    @abstractmethod
    def close(self) -> None:
        """Release what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

"""``imgstore.util``: colours, encodings, and what Motif records beside the frames."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from imgstore_compat.extra_files import ExtraFiles, datasets
from imgstore_zarr import ImgStore, ImgStoreWriter, UnsupportedFormatError, pixels
from imgstore_zarr.extra import RecordEncoder as JsonCustomEncoder
from imgstore_zarr.recording import local_timezone
from imgstore_zarr.storage import Directory

if TYPE_CHECKING:
    import datetime as dt

    import pandas as pd

__all__ = [
    "FourCC",
    "ImageCodecProcessor",
    "JsonCustomEncoder",
    "ensure_color",
    "ensure_grayscale",
    "get_local_timezone",
    "get_local_timezone_zoneinfo",
    "motif_extra_data_h5_attrs",
    "motif_extra_data_h5_to_df",
    "motif_extra_data_json_to_df",
    "motif_get_parse_true_fps",
    "motif_get_recording_timezone",
]

Image = NDArray[Any]


def _fourcc(c1: str, c2: str, c3: str, c4: str) -> int:
    """Return the code of a codec: its four letters as the bytes of an integer, the first lowest."""
    return int.from_bytes((c1 + c2 + c3 + c4).encode("ascii"), "little")


FourCC = _fourcc


def ensure_color(img: Image, ensure_copy: bool = False) -> Image:
    """Return an image as BGR; BGR is returned as it is, or copied if `ensure_copy`."""
    color = pixels.ensure_color(img)
    return color.copy() if ensure_copy and color is img else color


def ensure_grayscale(img: Image, ensure_copy: bool = False) -> Image:
    """Return an image as gray; gray is returned as it is, or copied if `ensure_copy`."""
    gray = pixels.ensure_gray(img)
    return gray.copy() if ensure_copy and gray is img else gray


# Pylon names the pattern by another corner: its blue is OpenCV's red.
_PYLON = {"BayerBG": "cv_bayerrg", "BayerRG": "cv_bayerbg", "BayerGB": "cv_bayergr"}


class ImageCodecProcessor:
    """Converts images from an encoding to BGR.

    Attributes
    ----------
    autoconvert
        Converts an image from the default encoding; without one, returns it as it is.
    """

    def __init__(self) -> None:
        self._default: str | None = None
        self.autoconvert: Callable[[Image], Image] = _unchanged

    def __repr__(self) -> str:
        return f"<ImageCodecProcessor {self.encoding or 'without a default encoding'}>"

    @classmethod
    def from_pylon_format(cls, s: str | None) -> Self:
        """Return a processor for a pixel format of Basler's Pylon, such as ``BayerBG``."""
        code = None
        if s and s != "None":
            code = _PYLON.get(s.replace("_", ""))
            if code is None:
                raise UnsupportedFormatError(
                    f"unknown pixel format {s!r} of Pylon; known are {', '.join(_PYLON)}"
                )
        processor = cls()
        processor.set_default_code(code)
        return processor

    @classmethod
    def from_cv2_enum(cls, e: int) -> Self:
        """Return a processor for a code of OpenCV, such as ``cv2.COLOR_BayerRG2BGR``."""
        processor = cls()
        processor.set_default_code(processor.cv2_enum_to_code(e))
        return processor

    @property
    def encoding(self) -> str:
        """The default encoding; an empty string where there is none."""
        return self._default or ""

    def set_default_code(self, code: str | None) -> None:
        """Convert from this encoding from now on; None or an empty string from none."""
        if not code:
            self._default = None
            self.autoconvert = _unchanged
            return
        if not self.check_code(code):
            raise UnsupportedFormatError(
                f"unknown encoding {code!r}; known are {', '.join(sorted(pixels.encodings()))}"
            )
        self._default = code
        self.autoconvert = self.convert_to_bgr

    def check_code(self, code: str) -> bool:
        """Whether an encoding is known."""
        return code in pixels.encodings()

    def cv2_enum_to_code(self, enum: int) -> str:
        """Return the encoding of a code of OpenCV; the last in alphabet where it has several."""
        codes = [code for code, number in pixels.encodings().items() if number == enum]
        if not codes:
            raise UnsupportedFormatError(f"OpenCV's code {enum} does not convert to BGR")
        return codes[-1]

    def convert_to_bgr(
        self, img: Image, code: str | None = None, method_enum: int | None = None
    ) -> Image:
        """Convert an image to BGR.

        Parameters
        ----------
        img
            (y, x) or (y, x, channel).
        code
            The encoding; by default that of the processor.
        method_enum
            OpenCV's code, to choose a method (``cv2.COLOR_BayerRG2BGR_VNG``).

        Raises
        ------
        UnsupportedFormatError
            No encoding, or one that does not fit the image.
        """
        code = code or self._default
        if code is None:
            raise UnsupportedFormatError("give an encoding: the processor has no default")
        if method_enum is None:
            return pixels.decode(img, code)
        import cv2

        return cv2.cvtColor(img, method_enum)


def _unchanged(img: Image) -> Image:
    return img


def motif_extra_data_json_to_df(
    store: ImgStore | None,  # noqa: ARG001 - callers of imgstore give it
    path: str | PathLike[str],
) -> pd.DataFrame | None:
    """Read extra data that Motif wrote as JSON.

    Parameters
    ----------
    store
        Is not looked at.
    path
        The file.

    Returns
    -------
    DataFrame or None
        One row per record, in the order of the frames; None where there are none.

    Raises
    ------
    CorruptChunkError
        The file is damaged.
    """
    table = _motif_table(path)
    return None if table.empty else table


def motif_extra_data_h5_to_df(
    store: ImgStore | None,  # noqa: ARG001 - callers of imgstore give it
    path: str | PathLike[str],
) -> pd.DataFrame:
    """Read extra data that Motif wrote as HDF5; as `motif_extra_data_json_to_df`.

    Returns
    -------
    DataFrame
        One row per record; rows that were preallocated and not used are left out.
    """
    return _motif_table(path)


def _motif_table(path: str | PathLike[str]) -> pd.DataFrame:
    file = Path(path)
    return ExtraFiles(Directory(file.parent), ()).table(True, file.name)


def motif_extra_data_h5_attrs(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the attributes in Motif's HDF5 file: by the name of each member a mapping.

    The key ``_datasets`` holds the names of the datasets.
    """
    import h5py

    with h5py.File(path, "r") as file:
        return {"_datasets": datasets(file)} | {
            name: dict(member.attrs) for name, member in file.items()
        }


def motif_get_parse_true_fps(
    store: ImgStore, default: float | None = 25.0, hwardware_only: bool = False
) -> float:
    """Return the frame rate in Hz that Motif noted.

    Parameters
    ----------
    store
        The recording.
    default
        Where it was not noted; None takes the median of the first chunk's intervals.
    hwardware_only
        Only count what the camera or its trigger reported, not what it was set to. (imgstore's
        spelling.)
    """
    metadata = store.user_metadata
    for key in ("hwframerate", "motifptpframerate"):
        if key in metadata:
            return float(metadata[key])
    rate = metadata.get("acquisitionframerate")
    if rate and not hwardware_only and metadata.get("acquisitionframerateenable") is True:
        return float(rate)
    if default is not None:
        return default
    index = store.index
    times = index.frame_time[: index.chunk_stops[0]] if len(index) else index.frame_time
    return 1.0 / float(np.median(np.diff(times))) if len(times) > 1 else np.nan


def motif_get_recording_timezone(store: ImgStore | ImgStoreWriter) -> dt.tzinfo:
    """Return the time zone that Motif noted, else that of the recording."""
    name = store.user_metadata.get("timezone")
    if isinstance(name, str):
        try:
            return zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError):
            pass
    return store.created[1]


def get_local_timezone() -> str:
    """Return the IANA name of this machine's time zone."""
    return get_local_timezone_zoneinfo().key


def get_local_timezone_zoneinfo() -> zoneinfo.ZoneInfo:
    """Return this machine's time zone."""
    return local_timezone()

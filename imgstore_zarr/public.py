"""The public names, as `imgstore_zarr` hands them out; importing this imports what they need."""

from imgstore_zarr._version import __version__
from imgstore_zarr.alignment import align
from imgstore_zarr.cataloguing import catalogue
from imgstore_zarr.clock import ClockCorrection
from imgstore_zarr.conversion import ConversionReport, convert
from imgstore_zarr.conversion_damage import DamagedFrames
from imgstore_zarr.errors import (
    ChunkMissingError,
    CorruptChunkError,
    EndOfRecordingError,
    FrameMismatchError,
    FrameNotFoundError,
    ImgStoreError,
    InvalidMetadataError,
    MissingDependencyError,
    RecordingAccessError,
    RecordingExistsError,
    RecordingLockedError,
    RecordingNotFoundError,
    UnsupportedFormatError,
    UnsupportedVersionError,
)
from imgstore_zarr.extra import ExtraData
from imgstore_zarr.formats import create, get_supported_formats, open, repair
from imgstore_zarr.frames import Frames, FrameSink, FrameSource, Window
from imgstore_zarr.imgstore_names import extract_only_frame, new_for_filename, new_for_format
from imgstore_zarr.index import ChunkSpan, FrameIndex
from imgstore_zarr.layouts import Layout, Parts, Problem
from imgstore_zarr.pixels import ensure_color, ensure_gray
from imgstore_zarr.recording import RecordingInfo, RecordingSpec
from imgstore_zarr.report import Gap, Report, Step
from imgstore_zarr.sqlite_index import load_sqlite as load_index
from imgstore_zarr.storage import Blob, Location, locate
from imgstore_zarr.store import ImgStore
from imgstore_zarr.timeline import ChunkTimes, Timeline
from imgstore_zarr.verification import verify
from imgstore_zarr.writer import ImgStoreWriter

__all__ = [
    "Blob",
    "ChunkMissingError",
    "ChunkSpan",
    "ChunkTimes",
    "ClockCorrection",
    "ConversionReport",
    "CorruptChunkError",
    "DamagedFrames",
    "EndOfRecordingError",
    "ExtraData",
    "FrameIndex",
    "FrameMismatchError",
    "FrameNotFoundError",
    "FrameSink",
    "FrameSource",
    "Frames",
    "Gap",
    "ImgStore",
    "ImgStoreError",
    "ImgStoreWriter",
    "InvalidMetadataError",
    "Layout",
    "Location",
    "MissingDependencyError",
    "Parts",
    "Problem",
    "RecordingAccessError",
    "RecordingExistsError",
    "RecordingInfo",
    "RecordingLockedError",
    "RecordingNotFoundError",
    "RecordingSpec",
    "Report",
    "Step",
    "Timeline",
    "UnsupportedFormatError",
    "UnsupportedVersionError",
    "Window",
    "__version__",
    "align",
    "catalogue",
    "convert",
    "create",
    "ensure_color",
    "ensure_gray",
    "extract_only_frame",
    "get_supported_formats",
    "load_index",
    "locate",
    "new_for_filename",
    "new_for_format",
    "open",
    "repair",
    "verify",
]

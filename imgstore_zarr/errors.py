"""Everything that can go wrong, as one tree.

Each leaf also inherits the builtin that imgstore raised, so that old ``except`` clauses work::

    ImgStoreError
    ├── FrameNotFoundError        (ValueError, KeyError)
    ├── EndOfRecordingError       (EOFError)
    ├── RecordingNotFoundError    (ValueError, FileNotFoundError)
    ├── RecordingExistsError      (FileExistsError)
    ├── RecordingAccessError      (PermissionError)
    ├── RecordingLockedError      (OSError)
    ├── InvalidMetadataError      (ValueError)
    ├── UnsupportedFormatError    (ValueError)
    ├── UnsupportedVersionError   (ValueError)
    ├── FrameMismatchError        (ValueError)
    ├── ChunkMissingError         (OSError)
    ├── CorruptChunkError         (OSError)
    └── MissingDependencyError    (ImportError)

Every message says which recording, which chunk, which frame, and what to do.
"""

from __future__ import annotations


class ImgStoreError(Exception):
    """The root of all errors that this package raises on purpose."""

    # KeyError would print the repr of its message.
    __str__ = Exception.__str__


class FrameNotFoundError(ImgStoreError, ValueError, KeyError):
    """No frame has the position, frame number or time asked for."""


class EndOfRecordingError(ImgStoreError, EOFError):
    """There is no next frame."""


class RecordingNotFoundError(ImgStoreError, ValueError, FileNotFoundError):
    """There is no recording at the location; the message says what was looked for."""


class RecordingExistsError(ImgStoreError, FileExistsError):
    """The destination already holds a recording, which is never overwritten."""


class RecordingAccessError(ImgStoreError, PermissionError):
    """The storage does not let this process read or write the recording."""


class RecordingLockedError(ImgStoreError, OSError):
    """Another writer is at work on the recording."""


class InvalidMetadataError(ImgStoreError, ValueError):
    """Metadata, extra data, a frame number or a frame time that cannot be what it claims to be."""


class UnsupportedFormatError(ImgStoreError, ValueError):
    """A format, codec or kind of location that is not known here; the message lists the known."""


class UnsupportedVersionError(ImgStoreError, ValueError):
    """A recording of a layout version that this package does not know."""


class FrameMismatchError(ImgStoreError, ValueError):
    """An image of another shape or dtype than the recording's was given to a writer."""


class ChunkMissingError(ImgStoreError, OSError):
    """A chunk that the recording's index names is not in storage."""


class CorruptChunkError(ImgStoreError, OSError):
    """A chunk is damaged: a bad checksum, a truncated file, an undecodable frame."""


class MissingDependencyError(ImgStoreError, ImportError):
    """An optional package is not installed; the message names the command that installs it."""

"""The directory layout: recordings in directories of images."""

from imgstore_compat.directory.layout import DIRECTORY_LAYOUT, DirectoryLayout

__all__ = ["DIRECTORY_LAYOUT", "DirectoryLayout"]

"""Motif and imgstore recordings for imgstore_zarr, which finds this package by its entry points."""

import importlib
import sys

from imgstore_compat.directory import DIRECTORY_LAYOUT, DirectoryLayout
from imgstore_compat.video import VIDEO_LAYOUT, VideoLayout
from imgstore_zarr.errors import ImgStoreError

__all__ = [
    "DIRECTORY_LAYOUT",
    "VIDEO_LAYOUT",
    "DirectoryLayout",
    "VideoLayout",
    "install_as_imgstore",
]

_IMGSTORE = "imgstore_compat.imgstore"
_IMGSTORE_MODULES = ("", ".stores", ".util", ".constants", ".index", ".align", ".apps")


def install_as_imgstore() -> None:
    """Make ``import imgstore`` and ``import imgstore.stores`` give this project in this process.

    Calling it again does nothing.

    Raises
    ------
    ImgStoreError
        The package imgstore is imported already.
    """
    for suffix in _IMGSTORE_MODULES:
        module = importlib.import_module(_IMGSTORE + suffix)
        if sys.modules.setdefault("imgstore" + suffix, module) is not module:
            raise ImgStoreError(
                "the package imgstore is imported already: call "
                "imgstore_compat.install_as_imgstore() before the first `import imgstore`"
            )

"""The names of imgstore 0.4.0, for scripts that say ``import imgstore``.

`imgstore_compat.install_as_imgstore` puts this package in the place of imgstore. What its functions
give are the stores and writers of `imgstore_zarr`.
"""

from imgstore_compat.imgstore.stores import (
    DirectoryImgStore,
    VideoImgStore,
    extract_only_frame,
    get_supported_formats,
    new_for_filename,
    new_for_format,
)
from imgstore_compat.imgstore.util import ensure_color, ensure_grayscale

__version__ = "0.4.0"

__all__ = [
    "DirectoryImgStore",
    "VideoImgStore",
    "__version__",
    "ensure_color",
    "ensure_grayscale",
    "extract_only_frame",
    "get_supported_formats",
    "new_for_filename",
    "new_for_format",
]

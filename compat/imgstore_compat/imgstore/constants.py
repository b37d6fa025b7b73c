"""``imgstore.constants``: the names of files and keys in a recording."""

from subprocess import DEVNULL

from imgstore_compat.metadata import FILE as STORE_MD_FILENAME
from imgstore_compat.metadata import LOCK_FILE as STORE_LOCK_FILENAME
from imgstore_compat.metadata import STORE_KEY as STORE_MD_KEY
from imgstore_zarr.extra import EXTRA_DATA_FILE_EXTENSIONS
from imgstore_zarr.sqlite_index import INDEX_FILE as STORE_INDEX_FILENAME

FRAME_MD = ("frame_number", "frame_time")

__all__ = [
    "DEVNULL",
    "EXTRA_DATA_FILE_EXTENSIONS",
    "FRAME_MD",
    "STORE_INDEX_FILENAME",
    "STORE_LOCK_FILENAME",
    "STORE_MD_FILENAME",
    "STORE_MD_KEY",
]

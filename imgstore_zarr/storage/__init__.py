"""Where recordings lie: directories, object storage, Zarr stores, behind one small interface."""

from imgstore_zarr.storage.access import access_error
from imgstore_zarr.storage.directory import Directory, FileBlob, sync_directory
from imgstore_zarr.storage.guarded import GuardedObject
from imgstore_zarr.storage.icechunk_branch import IcechunkBranch
from imgstore_zarr.storage.locating import locate, locate_urls
from imgstore_zarr.storage.location import METADATA_FILES, Blob, Location
from imgstore_zarr.storage.object_store import ObjectBlob, ObjectStore
from imgstore_zarr.storage.recollection import recollecting
from imgstore_zarr.storage.requests import ReplacedError, RequestError, each, is_far, submit
from imgstore_zarr.storage.zarr_store import StoreBlob, ZarrStore

__all__ = [
    "METADATA_FILES",
    "Blob",
    "Directory",
    "FileBlob",
    "GuardedObject",
    "IcechunkBranch",
    "Location",
    "ObjectBlob",
    "ObjectStore",
    "ReplacedError",
    "RequestError",
    "StoreBlob",
    "ZarrStore",
    "access_error",
    "each",
    "is_far",
    "locate",
    "locate_urls",
    "recollecting",
    "submit",
    "sync_directory",
]

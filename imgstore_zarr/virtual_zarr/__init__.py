"""Any recording as a Zarr v3 group that is made while it is read."""

from imgstore_zarr.virtual_zarr.group import VirtualGroup
from imgstore_zarr.virtual_zarr.recording import virtual_group
from imgstore_zarr.virtual_zarr.store import VirtualZarr

__all__ = ["VirtualGroup", "VirtualZarr", "virtual_group"]

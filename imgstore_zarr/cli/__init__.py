"""The command line: ``imgstore-zarr``."""

from imgstore_zarr.cli.app import main

__all__ = ["main"]

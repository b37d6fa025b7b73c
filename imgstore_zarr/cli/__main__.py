"""``python -m imgstore_zarr.cli``."""

from imgstore_zarr.cli.app import main

main()

"""``python -m imgstore_zarr``: the command line."""

from imgstore_zarr.cli.app import main

main()

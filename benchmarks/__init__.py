"""Side-by-side benchmarks of imgstore_zarr and its peers: ``python -m benchmarks.run``."""

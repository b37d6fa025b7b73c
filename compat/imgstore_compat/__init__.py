"""Motif and imgstore recordings for imgstore_zarr."""

VIDEO_LAYOUT = None

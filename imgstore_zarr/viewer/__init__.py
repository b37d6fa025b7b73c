"""The viewer: a web page on this machine that shows recordings (``imgstore-zarr view``)."""

"""Motif and imgstore recordings for imgstore_zarr, which finds this package by its entry points."""

from imgstore_compat.video_layout import VIDEO_LAYOUT, VideoLayout

__all__ = ["VIDEO_LAYOUT", "VideoLayout"]

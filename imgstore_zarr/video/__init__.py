"""Video files: exact reading by position, and writing; knows nothing of recordings."""

from imgstore_zarr.video.container import listed_frames
from imgstore_zarr.video.cutting import Cut, HasVideo, copy_cuts
from imgstore_zarr.video.encoder import EncoderOptions, VideoEncoder
from imgstore_zarr.video.file import VideoFile
from imgstore_zarr.video.media import Media
from imgstore_zarr.video.packets import PacketTable
from imgstore_zarr.video.remote_media import media_at
from imgstore_zarr.video.remux import copy_frames, whole_frames

__all__ = [
    "Cut",
    "EncoderOptions",
    "HasVideo",
    "Media",
    "PacketTable",
    "VideoEncoder",
    "VideoFile",
    "copy_cuts",
    "copy_frames",
    "listed_frames",
    "media_at",
    "whole_frames",
]

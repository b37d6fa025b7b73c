"""Video files: exact reading by position, and writing; knows nothing of recordings."""

from imgstore_zarr.video.encoder import EncoderOptions, VideoEncoder
from imgstore_zarr.video.file import VideoFile
from imgstore_zarr.video.packets import PacketTable

__all__ = ["EncoderOptions", "PacketTable", "VideoEncoder", "VideoFile"]

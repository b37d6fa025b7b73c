"""The video layout: recordings in chunks of video."""

from imgstore_compat.video.layout import VIDEO_LAYOUT, VideoLayout

__all__ = ["VIDEO_LAYOUT", "VideoLayout"]

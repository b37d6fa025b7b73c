"""How many threads decode a file, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

MOST_THREADS = 8
"""More threads than this make no decoder faster, but each holds a frame."""


# With threads these show other pixels where a file is damaged, and say nothing of it.
_ONE_THREAD = frozenset({"vp8", "ffv1"})


def use_threads(context: VideoCodecContext, threads: int) -> None:
    """Set up a context that was not used yet, for as many threads as its codec can use.

    Slices of one frame are never decoded side by side: FFmpeg then says nothing of damage
    (`enable_er` of its H.264 decoder is off).
    """
    from av.codec.codec import Capabilities

    can = context.codec.capabilities
    # A file in which damage must not be concealed.
    context.options = {"err_detect": "explode"}
    frames = bool(can & Capabilities.frame_threads) and context.name not in _ONE_THREAD
    helps = threads > 1 and (frames or bool(can & Capabilities.auto_threads))
    context.thread_type = "FRAME" if helps and frames else "NONE"
    context.thread_count = min(threads, MOST_THREADS) if helps else 1

"""What this process has open: its decoders, and the frames that they keep; and what a fork inherits."""

from __future__ import annotations

import itertools
import os
import weakref
from typing import Any

from imgstore_zarr.video.frame_cache import CACHE_BYTES, FrameCache

living: weakref.WeakSet[Any] = weakref.WeakSet()
_numbers = itertools.count()
_cache = FrameCache(CACHE_BYTES)
# Never freed: closing a decoder touches what only the process that opened it has.
_inherited: list[object] = []


def frame_cache() -> FrameCache:
    """Return the frames that the decoders of this process keep."""
    return _cache


def register(decoder: object, handles: list[Any]) -> int:
    """Take note of a decoder; return a number that no other one ever has.

    Parameters
    ----------
    decoder
        Anything.
    handles
        What it holds open at any time: a codec context and a container, or nothing. They are closed when
        nobody has the decoder any more.
    """
    number = next(_numbers)
    weakref.finalize(decoder, let_go, number, handles).atexit = False
    living.add(decoder)
    return number


def let_go(number: int, handles: list[Any]) -> None:
    """Close a file, and give up its frames. May run in the middle of anything, as a finalizer."""
    if handles:
        context, container = handles
        handles.clear()
        # Threads of FFmpeg must be idle: it waits for them while PyAV holds the interpreter's lock.
        context.flush_buffers()
        container.close()
    _cache.forget(number)


def _keep_inherited() -> None:
    global _cache
    _inherited.extend(living)
    _inherited.append(_cache)
    living.clear()
    _cache = FrameCache(CACHE_BYTES)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)

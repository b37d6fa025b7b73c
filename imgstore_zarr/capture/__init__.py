"""Capture: frames from cameras, videos, images and stacks of them become a recording.

`open_source` finds out what a source is, and `save` records what it gives.
"""

from imgstore_zarr.capture.opening import open_source
from imgstore_zarr.capture.saving import Saved, State, save
from imgstore_zarr.capture.source import Captured, Source

__all__ = ["Captured", "Saved", "Source", "State", "open_source", "save"]

"""``imgstore.apps``: timecodes of a recording, for tools that join them to a video."""

from __future__ import annotations

import argparse
import sys
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from imgstore_compat.imgstore.stores import new_for_filename
from imgstore_zarr import ImgStore, ImgStoreError

__all__ = ["generate_timecodes", "main_generate_timecodes"]


def generate_timecodes(store: ImgStore, dest_file: TextIO) -> NDArray[np.float64]:
    """Write when each frame is to be shown, as a timecode file of version 2.

    Parameters
    ----------
    store
        The recording.
    dest_file
        A text file, open for writing; times in it are milliseconds.

    Returns
    -------
    ndarray
        float64 (frame,), seconds since the first frame.
    """
    times = store.index.frame_time - store.index.frame_time[:1]
    dest_file.write("# timecode format v2\n")
    dest_file.writelines(f"{time * 1000:.3f}\n" for time in times)
    return times


def main_generate_timecodes() -> None:
    """Print the timecodes of the recording that the command line names."""
    parser = argparse.ArgumentParser(description="print the timecodes (v2) of a recording")
    parser.add_argument("path", help="the recording, or its metadata.yaml")
    arguments = parser.parse_args()
    try:
        with new_for_filename(arguments.path) as store:
            generate_timecodes(store, sys.stdout)
    except ImgStoreError as error:
        parser.error(str(error))

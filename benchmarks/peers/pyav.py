"""PyAV: decodes the packets of one file, converts nothing; and encodes what others are to read."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import av

import imgstore_zarr
from benchmarks.scene import FRAME_RATE, frame_at, load_scene


def versions() -> dict[str, str]:
    return {"av": av.__version__}


def sequential(path: str, count: int) -> float:
    start = perf_counter()
    decoded = 0
    for file in sorted(Path(path).glob("*.mp4")):
        with av.open(file) as container:
            container.streams.video[0].thread_type = "AUTO"
            for _ in container.decode(video=0):
                decoded += 1
    assert decoded == count
    return (perf_counter() - start) / count


def encode(scene: str, path: str, count: int, gop: int, b_frames: int) -> None:
    """Make a recording in one chunk with options that imgstore_zarr does not offer."""
    frames = load_scene(scene)
    video = Path(path).with_name("made.mp4")
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=int(FRAME_RATE))
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        stream.options = {"preset": "veryfast", "sc_threshold": "0"}
        for i in range(count):
            gray = av.VideoFrame.from_ndarray(frame_at(frames, i), format="gray")
            container.mux(stream.encode(gray.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    with imgstore_zarr.create(path, "avc1/mp4", frames.shape[1:], chunksize=count) as writer:
        writer.insert_chunk(video, range(count), [i / FRAME_RATE for i in range(count)], move=True)

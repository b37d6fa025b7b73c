from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
import pickle
import random
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from imgstore_compat.video.frames import OPEN_FILES

import imgstore_zarr
from imgstore_zarr import (
    ChunkMissingError,
    CorruptChunkError,
    RecordingAccessError,
    UnsupportedFormatError,
)
from imgstore_zarr.video import EncoderOptions, VideoEncoder, VideoFile, frame_images
from imgstore_zarr.video.decoder_pool import LANES
from tests.videos import (
    FRAMES,
    KINDS,
    Images,
    Kind,
    barcode,
    encode,
    opencv_frames,
    read_barcode,
    scene,
)

PLAIN, B_FRAMES = KINDS[0], KINDS[1]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def file(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Kind, Path, Images]:
    kind: Kind = request.param
    try:
        av.codec.Codec(kind.codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"PyAV here has no encoder {kind.codec}")
    path = tmp_path_factory.mktemp("video") / f"video{kind.suffix}"
    encode(path, scene(FRAMES), kind)
    return kind, path, opencv_frames(path)


@pytest.fixture
def b_frames(tmp_path: Path) -> tuple[Path, Images]:
    path = encode(tmp_path / "b.mp4", scene(FRAMES), B_FRAMES)
    return path, opencv_frames(path)


def test_every_order_gives_the_frames_of_a_sequential_decode(
    file: tuple[Kind, Path, Images],
) -> None:
    _, path, expected = file
    orders = {
        "sequential": range(FRAMES),
        "reverse": range(FRAMES - 1, -1, -1),
        "random": random.Random(1).sample(range(FRAMES), FRAMES),
        "strided": range(1, FRAMES, 7),
        "back and forth": [30, 29, 31, 28, 32, 27, 0, FRAMES - 1, 0],
    }
    assert len(expected) == FRAMES
    for name, order in orders.items():
        video = VideoFile(path, color=True)
        assert len(video) == FRAMES
        for position in order:
            np.testing.assert_array_equal(
                video.frames[position], expected[position], err_msg=f"{name}, {position}"
            )
        video.close()


def test_the_first_read_may_be_anywhere(file: tuple[Kind, Path, Images]) -> None:
    _, path, expected = file
    for position in range(0, FRAMES, 11):
        video = VideoFile(path, color=True)
        np.testing.assert_array_equal(video.frames[position], expected[position])
        video.close()


def test_frames_are_where_their_barcode_says(file: tuple[Kind, Path, Images]) -> None:
    _, path, _ = file
    with_gaps = VideoFile(path).frames[::5, : scene(1).shape[1] // 2]
    assert [read_barcode(image) for image in with_gaps] == list(range(0, FRAMES, 5))


def test_batches_are_in_the_order_asked_for(file: tuple[Kind, Path, Images]) -> None:
    _, path, expected = file
    positions = [50, 3, 3, 59, 0, 17, 50, 16]
    video = VideoFile(path, color=True)
    np.testing.assert_array_equal(video.frames[positions], expected[positions])
    np.testing.assert_array_equal(video.frames[::-1], expected[::-1])
    assert video.frames[[]].shape == video.frames[7:7].shape == (0, *expected.shape[1:])
    np.testing.assert_array_equal(
        video.frames[20:40, 10:50:3, [1, 5, 5]], expected[20:40, 10:50:3, [1, 5, 5]]
    )


def test_gray_is_what_opencv_makes_of_bgr(file: tuple[Kind, Path, Images]) -> None:
    _, path, expected = file
    gray = VideoFile(path, color=False).frames[::9]
    for image, bgr in zip(gray, expected[::9], strict=True):
        np.testing.assert_array_equal(image, cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY))


def test_gray_is_converted_only_where_there_is_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray = encode(tmp_path / "gray.mp4", scene(FRAMES), PLAIN)
    colour = tmp_path / "colour.mp4"
    encoder = VideoEncoder(colour, "libx264", (96, 128, 3), EncoderOptions())
    for image in scene(5):
        encoder.write(np.dstack([image, image // 2, image // 3]))
    encoder.close()
    expected = [cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY) for bgr in opencv_frames(gray)]
    video = VideoFile(gray, color=False)
    # The first frame of its kind derives the table.
    np.testing.assert_array_equal(video.frames[0], expected[0])
    converted = []
    bgr_of = frame_images._bgr

    def counting(reformatter: object, frame: av.VideoFrame) -> Images:
        converted.append(frame.pts)
        return bgr_of(reformatter, frame)

    monkeypatch.setattr(frame_images, "_bgr", counting)
    np.testing.assert_array_equal(video.frames[...], expected)
    assert converted == []
    np.testing.assert_array_equal(
        VideoFile(colour, color=False).frames[...],
        [cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY) for bgr in opencv_frames(colour)],
    )
    assert len(converted) == 5


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "gray"])
@pytest.mark.parametrize("color_range", [0, 1, 2])
@pytest.mark.parametrize("size", [(128, 96), (130, 97), (17, 5)])
def test_the_gray_of_each_luma(pixel_format: str, color_range: int, size: tuple[int, int]) -> None:
    width, height = size
    rng = np.random.default_rng(width + color_range)
    frame = av.VideoFrame(width, height, pixel_format)
    frame.color_range = color_range
    for i, plane in enumerate(frame.planes):
        memory = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        memory[: plane.height] = 128 if i else rng.integers(0, 256, memory[: plane.height].shape)
    bgr = frame.reformat(format="bgr24", interpolation="BICUBIC", threads=1).to_ndarray()
    image = np.empty((height, width), np.uint8)
    frame_images.FrameImages(color=False).write(frame, (slice(None), slice(None)), image)
    np.testing.assert_array_equal(image, cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg command is not installed")
def test_pixels_are_those_of_the_ffmpeg_command(file: tuple[Kind, Path, Images]) -> None:
    kind, path, _ = file
    # As gray planes, since the command's conversion to BGR differs between versions.
    if kind.pix_fmt != "yuv420p" or kind.codec == "mpeg4":
        pytest.skip("no 8-bit luma plane in limited range, or an IDCT that may differ")
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-fps_mode", "passthrough"]
    command += ["-vf", "extractplanes=y", "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    luma = np.frombuffer(raw, np.uint8).reshape(-1, *scene(1).shape[1:])
    assert len(luma) == FRAMES
    gray = VideoFile(path, color=False).frames[...].astype(float)
    scaled = (luma.astype(float) - 16) * 255 / 219
    # Chroma is neutral, so that the two differ by rounding only.
    assert np.abs(np.clip(scaled, 0, 255) - gray).max() <= 2


def test_decoding_begins_at_clean_entries_only(tmp_path: Path) -> None:
    def entries(name: str) -> list[int]:
        kind = next(kind for kind in KINDS if kind.name == name)
        table = VideoFile(encode(tmp_path / f"{name}{kind.suffix}", scene(FRAMES), kind)).table
        return [int(rank) for rank in table.entries]

    assert entries("plain") == entries("plain-avi") == [0, 12, 24, 36, 48]
    assert entries("mpeg4-avi") == [0, 12, 24, 36, 48]
    assert entries("mjpeg") == list(range(FRAMES))
    assert entries("key-frames") == list(range(FRAMES))
    # Its later I-frames are no IDR: frames after them may refer to frames before.
    assert entries("open-gop") == [0]
    assert entries("intra-refresh") == [0]
    assert entries("b-frames-avi") == [0]
    assert entries("mpeg4-b-frames-avi") == [0]


def test_timestamps_in_the_order_of_decoding_are_not_believed(
    b_frames: tuple[Path, Images],
) -> None:
    path, expected = b_frames
    rewritten = path.with_name("rewritten.mp4")
    with av.open(str(path)) as source, av.open(str(rewritten), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                assert packet.dts is not None
                # Two frames later, since those before 0 would not be shown.
                packet.pts = packet.dts = packet.dts + 1024
                packet.stream = stream
                target.mux(packet)
    for position in (13, 2, 59, 0, 14):
        image = VideoFile(rewritten, color=True).frames[position]
        np.testing.assert_array_equal(image, expected[position])


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg command is not installed")
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_leading_pictures_without_their_past_give_no_frame(tmp_path: Path, suffix: str) -> None:
    try:
        av.codec.Codec("libx265", "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip("PyAV here has no encoder libx265")
    options = "log-level=none:open-gop=1:bframes=4:keyint=12:min-keyint=12"
    kind = Kind("open", "libx265", suffix=".mkv", options={"x265-params": options})
    whole = encode(tmp_path / "whole.mkv", scene(FRAMES), kind)
    cut = tmp_path / f"cut{suffix}"
    command = ["ffmpeg", "-v", "error", "-ss", "1", "-i", str(whole), "-c", "copy", str(cut)]
    subprocess.run(command, check=True)
    with av.open(str(cut)) as container:
        expected = [
            frame.to_ndarray(format="gray").astype(np.uint8, copy=False)
            for frame in container.decode(video=0)
        ]
    video = VideoFile(cut, color=False)
    assert 0 < len(video) == len(expected) < FRAMES
    numbers = [read_barcode(image[: scene(1).shape[1] // 2]) for image in expected]
    for position in [*range(len(video)), *range(len(video) - 1, -1, -5)]:
        image = video.frames[position][: scene(1).shape[1] // 2]
        assert read_barcode(image) == numbers[position]


def test_neighbours_are_decoded_without_a_seek(
    b_frames: tuple[Path, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgstore_zarr.video.decoder import Decoder

    path, expected = b_frames
    video = VideoFile(path, color=True)
    stands: list[int] = []
    sends: list[int] = []
    stand_at, send = Decoder._stand_at, Decoder._send

    def counting_stand(self: Decoder, rank: int) -> None:
        stands.append(rank)
        stand_at(self, rank)

    def counting_send(self: Decoder, packet: object, rank: int) -> list[object]:
        sends.append(rank)
        return list(send(self, packet, rank))  # type: ignore[arg-type]

    assert len(video) == FRAMES
    monkeypatch.setattr(Decoder, "_stand_at", counting_stand)
    monkeypatch.setattr(Decoder, "_send", counting_send)
    for position in (0, 1, 3, 4, 6, 9, 20, 45):
        np.testing.assert_array_equal(video.frames[position], expected[position])
    assert stands == [36]  # over a GOP that nobody wants
    assert len(sends) == len(set(sends))
    sends.clear()
    # What was decoded on the way is still there.
    for position in (44, 42, 41, 43, 45, 37, 36):
        np.testing.assert_array_equal(video.frames[position], expected[position])
    assert sends == []
    assert video.frames[[50, 13, 51, 12, 14]].shape == (5, *expected.shape[1:])
    # Two GOPs of twelve frames, neither of them twice.
    assert len(sends) == len(set(sends)) <= 2 * 12 + 4


@pytest.mark.parametrize("every", [7, 19])
@pytest.mark.parametrize("way", ["steps", "batches"])
def test_an_interruption_spoils_nothing(
    b_frames: tuple[Path, Images], monkeypatch: pytest.MonkeyPatch, every: int, way: str
) -> None:
    from imgstore_zarr.video.decoder import Decoder

    path, expected = b_frames
    sent = itertools.count(1)
    send = Decoder._send

    def interrupted(self: Decoder, packet: object, rank: int) -> list[object]:
        if next(sent) % every == 0:
            raise KeyboardInterrupt
        return list(send(self, packet, rank))  # type: ignore[arg-type]

    monkeypatch.setattr(Decoder, "_send", interrupted)
    video = VideoFile(path, color=True)
    wanted = [[p] for p in range(FRAMES)] if way == "steps" else [[p, p + 1] for p in range(40)]
    interruptions = 0
    for positions in wanted * 2:
        try:
            images = video.frames[positions]
        except KeyboardInterrupt:
            interruptions += 1
            continue
        np.testing.assert_array_equal(images, expected[positions])
    assert interruptions or way == "steps"
    assert next(sent) > every
    video.close()


def test_frames_read_one_after_the_other_are_decoded_once(
    b_frames: tuple[Path, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgstore_zarr.video.decoder import Decoder

    path, expected = b_frames
    video = VideoFile(path, color=True)
    sends: list[int] = []
    send = Decoder._send

    def counting_send(self: Decoder, packet: object, rank: int) -> list[object]:
        sends.append(rank)
        return list(send(self, packet, rank))  # type: ignore[arg-type]

    assert len(video) == FRAMES
    monkeypatch.setattr(Decoder, "_send", counting_send)
    for position in range(FRAMES):
        np.testing.assert_array_equal(video.frames[position], expected[position])
    # GOPs are decoded side by side: each needs a few packets of the next to give its last frames.
    assert set(range(FRAMES)) <= set(sends)
    assert len(sends) <= FRAMES + 5 * 6


@pytest.mark.parametrize("seeks", [True, False])
def test_every_entry_is_decoded_for_the_build_of_the_first_packet(
    tmp_path: Path, seeks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Decoders read 4:4:4 of x264 builds below 151 differently, and the build number stands only in
    # the first packet. Rewriting it makes part of a new file unreadable: the same part from anywhere.
    kind = Kind("old", "libx264", "yuv444p", options={"bf": "2", "g": "12"})
    path = encode(tmp_path / "old.mp4", scene(FRAMES), kind)
    data = path.read_bytes()
    at = data.index(b"x264 - core ") + len(b"x264 - core ")
    path.write_bytes(data[:at] + b"142" + data[at + 3 :])

    def read(video: VideoFile, position: int) -> bytes | None:
        try:
            return video.frames[position].tobytes()
        except CorruptChunkError:
            return None

    video = VideoFile(path, color=True)
    sequential = [read(video, position) for position in range(FRAMES)]
    assert None in sequential
    if not seeks:
        # As in a container that cannot be searched.
        monkeypatch.setattr(
            "imgstore_zarr.video.decoder.Decoder._stamps_before", lambda *_: iter(())
        )
    for position in (13, 25, 37, 59, 0):
        assert read(VideoFile(path, color=True), position) == sequential[position]


def test_threads_never_mix_frames(b_frames: tuple[Path, Images]) -> None:
    path, expected = b_frames
    video = VideoFile(path, color=True)
    positions = random.Random(5).choices(range(FRAMES), k=200)
    with ThreadPoolExecutor(4) as pool:
        for position, image in zip(
            positions, pool.map(lambda p: video.frames[p], positions), strict=True
        ):
            np.testing.assert_array_equal(image, expected[position])


def test_a_pickled_file_opens_again(b_frames: tuple[Path, Images]) -> None:
    path, expected = b_frames
    video = VideoFile(path, color=True)
    np.testing.assert_array_equal(video.frames[7], expected[7])
    copy = pickle.loads(pickle.dumps(video))
    np.testing.assert_array_equal(copy.frames[33], expected[33])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_reads_its_own_frames(b_frames: tuple[Path, Images]) -> None:
    path, expected = b_frames
    video = VideoFile(path, color=True)
    assert video.frames[5].shape == expected.shape[1:]
    child = os.fork()
    if child == 0:
        right = all(np.array_equal(video.frames[p], expected[p]) for p in (40, 6, 59))
        os._exit(0 if right else 1)
    np.testing.assert_array_equal(video.frames[6], expected[6])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(video.frames[7], expected[7])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("kind", [PLAIN, B_FRAMES], ids=lambda kind: kind.name)
def test_a_forked_process_frees_what_it_inherited(tmp_path: Path, kind: Kind) -> None:
    # Images of this size are decoded by several threads, where the decoder may have them.
    path = encode(tmp_path / "big.mp4", scene(4, (576, 704)), kind)
    expected = opencv_frames(path)
    video, dropped = VideoFile(path, color=True), VideoFile(path, color=True)
    np.testing.assert_array_equal(video.frames[1], expected[1])
    np.testing.assert_array_equal(dropped.frames[2], expected[2])
    child = os.fork()
    if child == 0:
        # SIGALRM ends a child that hangs.
        signal.alarm(20)
        del dropped
        right = np.array_equal(video.frames[3], expected[3])
        del video
        gc.collect()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(video.frames[3], expected[3])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc here")
def test_threads_keep_few_chunks_open(tmp_path: Path) -> None:
    def open_files() -> int:
        count = 0
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                count += str(descriptor.readlink()).startswith(str(tmp_path))
        return count

    threads = 6
    with imgstore_zarr.create(tmp_path / "store", "avc1/mp4", (64, 256), chunksize=4) as writer:
        for number in range(100):
            writer.add_image(barcode(number, (64, 256)), number, float(number))
    store = imgstore_zarr.open(tmp_path / "store")
    peaks: list[int] = []

    def read(position: int) -> int:
        number = read_barcode(store.frames[position])
        peaks.append(open_files())
        return number

    positions = random.Random(3).choices(range(100), k=300)
    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(read, positions)) == positions
    assert 0 < max(peaks) <= OPEN_FILES + LANES + threads
    assert 0 < open_files() <= OPEN_FILES + LANES
    store.close()
    assert open_files() == 0


def test_a_file_that_cannot_be_opened_is_not_called_damaged(
    b_frames: tuple[Path, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    path, expected = b_frames
    video = VideoFile(path, color=True)
    video.frames[0]
    video.close()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files") as caught:
            video.frames[3]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert caught.value.errno == errno.EMFILE
    assert not isinstance(caught.value, CorruptChunkError)
    np.testing.assert_array_equal(video.frames[3], expected[3])

    def forbidden(path: str, **_: str) -> None:
        av.error.err_check(-errno.EACCES, path)

    monkeypatch.setattr(av, "open", forbidden)
    with pytest.raises(RecordingAccessError, match="may not be read"):
        len(VideoFile(path))


def test_an_unknown_codec_is_named(tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == "mjpeg")
    path = encode(tmp_path / "unknown.avi", scene(3), kind)
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"ZZZZ"))
    with pytest.raises(UnsupportedFormatError, match=r"no decoder for its codec .*ZZZZ"):
        len(VideoFile(path))


def test_handles_are_released(b_frames: tuple[Path, Images]) -> None:
    path, _ = b_frames
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for _ in range(20):
        video = VideoFile(path)
        assert len(video) == FRAMES
        video.close()
    after = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    assert after <= before + 1


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_truncated_file_serves_what_is_good(tmp_path: Path, tenth: int) -> None:
    kind = Kind("fast", "libx264", options={"bf": "2", "g": "12", "movflags": "faststart"})
    path = encode(tmp_path / "cut.mp4", scene(FRAMES), kind)
    expected = opencv_frames(path)
    data = path.read_bytes()
    media = data.index(b"mdat") + 4
    path.write_bytes(data[: media + (len(data) - media) * tenth // 10])
    video = VideoFile(path, color=True)
    # The container lists them all; what is not there raises.
    assert len(video) == FRAMES
    good = []
    for position in range(len(video)):
        try:
            image = video.frames[position]
        except CorruptChunkError:
            good.append(False)
        else:
            np.testing.assert_array_equal(image, expected[position])
            good.append(True)
    # All that is lost is what needs the packet that was cut, or those behind it.
    whole = video.table.pos + video.table.size <= path.stat().st_size
    assert whole.sum() - 4 <= sum(good) <= whole.sum() < FRAMES
    with pytest.raises(IndexError):
        video.frames[len(video)]


def test_a_video_without_frames_says_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.avi"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuvj420p"
        file.start_encoding()
    with pytest.raises(CorruptChunkError, match="holds a video stream without frames"):
        len(VideoFile(path))


def test_ffmpeg_says_nothing_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = encode(tmp_path / "video.mp4", scene(FRAMES), PLAIN)
    data = bytearray(path.read_bytes())
    media = data.index(b"mdat") + 4
    for at in range(media + 3000, len(data) - 3000, 500):
        data[at] ^= 0x55
    path.write_bytes(data)
    capfd.readouterr()
    video = VideoFile(path, color=True)
    failed = 0
    for position in range(len(video)):
        try:
            video.frames[position]
        except CorruptChunkError:
            failed += 1
    video.close()
    assert failed
    assert capfd.readouterr() == ("", "")


def test_a_file_without_its_header_says_so(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4", scene(FRAMES), PLAIN)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(CorruptChunkError, match=r"video\.mp4 cannot be opened as a video"):
        len(VideoFile(path))


def test_what_is_no_video_says_so(tmp_path: Path) -> None:
    with pytest.raises(ChunkMissingError, match="missing"):
        len(VideoFile(tmp_path / "nothing.mp4"))
    text = tmp_path / "text.mp4"
    text.write_text("no video\n" * 1000)
    with pytest.raises(CorruptChunkError, match="cannot be opened as a video"):
        len(VideoFile(text))
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        assert isinstance(stream, av.AudioStream)
        samples = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(UnsupportedFormatError, match="no video stream"):
        len(VideoFile(sound))


@pytest.mark.parametrize("codec", ["libx264", "mjpeg"])
@pytest.mark.parametrize("color", [False, True])
def test_the_encoder_writes_every_frame(tmp_path: Path, codec: str, color: bool) -> None:
    images = scene(30)
    if color:
        images = np.stack([images, np.roll(images, 5, 2), images[:, ::-1]], axis=-1)
    path = tmp_path / ("video.mp4" if codec == "libx264" else "video.avi")
    encoder = VideoEncoder(path, codec, images.shape[1:], EncoderOptions(fps=30))
    for image in images:
        encoder.write(image)
    encoder.close()
    decoded = opencv_frames(path)
    assert len(decoded) == len(images)
    wanted = images if color else np.repeat(images[..., None], 3, axis=3)
    smooth = [cv2.blur(image, (5, 5)).astype(int) for image in wanted]
    error = [
        np.abs(cv2.blur(d, (5, 5)).astype(int) - s) for d, s in zip(decoded, smooth, strict=True)
    ]
    assert np.mean(error) < 4
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 30


@pytest.mark.parametrize(
    "options", [{"fps": 0}, {"crf": 52}, {"gop": 0}, {"preset": "sluggish"}], ids=str
)
def test_encoder_options_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(UnsupportedFormatError, match=next(iter(options))):
        EncoderOptions(**options)  # type: ignore[arg-type]


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("sleap_flies_small.mp4", 1100),
        ("sleap_single_fly.mp4", 3200),
        ("lp_mirror_mouse.mp4", 994),
        ("tc_bt709_full_range.mp4", 30),
        ("tc_h264_10bits.mp4", 30),
        ("pims_bulk_water.mov", 480),
        ("loopbio_store_mp4/000000.mp4", 100),
        ("loopbio_store_mp4/000001.mp4", 79),
    ],
)
def test_videos_made_by_others(shared_data: Path, name: str, frames: int) -> None:
    path = shared_data / name
    video = VideoFile(path, color=True)
    assert len(video) == frames
    checked = min(frames, 100)
    capture = cv2.VideoCapture(str(path))
    expected = [capture.read()[1] for _ in range(checked)]
    for position in [*range(checked), *random.Random(2).sample(range(checked), checked // 10)]:
        np.testing.assert_array_equal(video.frames[position], expected[position])


@pytest.mark.shared_data
def test_a_damaged_video_made_by_others(shared_data: Path) -> None:
    path = shared_data / "decord_corrupted.mp4"
    video = VideoFile(path, color=True)
    assert len(video) == 50
    expected = opencv_frames(path)
    assert len(expected) == 28
    np.testing.assert_array_equal(video.frames[:28], expected)
    # Position 28 was decoded before the damage, and OpenCV held it back; from 29 on all is lost.
    assert video.frames[28].shape == expected.shape[1:]
    for position in range(29, 50):
        with pytest.raises(CorruptChunkError, match=f"position {position} "):
            video.frames[position]


def test_raw_video_from_the_bottom_up(tmp_path: Path) -> None:
    # Bitmaps in AVI begin with their last row (a positive height in BITMAPINFOHEADER).
    images = scene(4)
    path = tmp_path / "raw.avi"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("rawvideo", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = images.shape[1:]
        stream.pix_fmt = "bgr24"
        for image in images:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.dstack([image] * 3), "bgr24")))
        file.mux(stream.encode(None))
    np.testing.assert_array_equal(VideoFile(path, color=False).frames[...], images)


@pytest.mark.parametrize(
    ("other", "said"), [((64, 128), "64 x 128"), ((96, 128, 3), "yuvj420p 96 x 128")]
)
def test_a_file_whose_images_change(tmp_path: Path, other: tuple[int, ...], said: str) -> None:
    path = tmp_path / "video.mjpeg"
    same, changed = scene(1)[0], np.full(other, 77, np.uint8)
    path.write_bytes(
        b"".join(
            cv2.imencode(".jpg", image)[1].tobytes()
            for image in [same, same, same, changed, changed, same]
        )
    )
    video = VideoFile(path, color=False)
    assert len(video) == 6
    first = video.frames[0]
    for position in (5, 1, 2):
        np.testing.assert_array_equal(video.frames[position], first)
    for position in (4, 3):
        with pytest.raises(CorruptChunkError, match=f"position {position} is .*{said}, those"):
            video.frames[position]
    with pytest.raises(CorruptChunkError, match="position 3 is"):
        video.frames[:]
    video.close()

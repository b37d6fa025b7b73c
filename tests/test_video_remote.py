"""Video files that are read by requests: the same frames, by as few of them as it takes."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from imgstore_zarr import ChunkMissingError, CorruptChunkError, RecordingAccessError
from imgstore_zarr.storage import ObjectStore, RequestError, ZarrStore
from imgstore_zarr.video import VideoFile, remote_bytes
from imgstore_zarr.video.remote_media import RemoteMedia
from tests import ffmpeg
from tests.far import Far, Request, far, in_small_pieces
from tests.ffmpeg import Made
from tests.videos import FRAMES, KINDS, Images, Kind, encode, scene

_X264 = "-c:v libx264 -preset veryfast -pix_fmt yuv420p"

HEAD = 64 * 2**10


def remote(place: Far | Path, key: str = "", **options: Any) -> VideoFile:
    if isinstance(place, Path):
        place, key = far(place.parent), place.name
    return VideoFile(RemoteMedia(place, key, f"chunk 0 ({key})"), **options)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def encoded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Images]:
    kind: Kind = request.param
    path = tmp_path_factory.mktemp("encoded") / f"video{kind.suffix}"
    encode(path, scene(FRAMES), kind)
    return path, VideoFile(path, color=True).frames[...]


@pytest.fixture(params=["in large pieces", "in small pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in small pieces":
        in_small_pieces(monkeypatch)


def check_any_order(path: Path, expected: Images) -> None:
    count = len(expected)
    rng = random.Random(count)
    orders = [list(range(count)), list(range(count - 1, -1, -1)), rng.sample(range(count), count)]
    for order in orders:
        video = remote(path, color=True)
        for position in order:
            np.testing.assert_array_equal(video.frames[position], expected[position], str(position))
    for order in orders:
        batch = order[:: rng.randrange(1, 4)]
        np.testing.assert_array_equal(remote(path, color=True).frames[batch], expected[batch])
    part = remote(path, color=True).frames[::5, :50, 3:]
    np.testing.assert_array_equal(part, expected[::5, :50, 3:])


@pytest.mark.usefixtures("pieces")
def test_the_same_frames_as_from_a_local_file(encoded: tuple[Path, Images]) -> None:
    check_any_order(*encoded)


@ffmpeg.needs_ffmpeg
@pytest.mark.parametrize(
    "made",
    [
        Made("faststart", ".mp4", f"{_X264} -g 12 -bf 2 -movflags faststart"),
        Made("empty-moov", ".mp4", f"{_X264} -g 12 -bf 2 -movflags frag_keyframe+empty_moov"),
        Made("open-gop-mkv", ".mkv", f"{_X264} -g 12 -bf 3 -x264-params open-gop=1"),
        Made("one-gop", ".mp4", f"{_X264} -g 9999 -sc_threshold 0 -bf 2"),
        Made("no-edit-list", ".mp4", f"{_X264} -g 12 -bf 2 -use_editlist 0"),
        Made("with-sound", ".mp4", f"-f lavfi -i sine {_X264} -g 12 -bf 2 -c:a aac -t 2.4"),
        Made(
            "hevc-open-gop", ".mp4", "-c:v libx265 -x265-params log-level=none:keyint=12:open-gop=1"
        ),
        Made("mjpeg", ".mp4", "-c:v mjpeg -q:v 3 -pix_fmt yuvj422p"),
    ],
    ids=lambda made: made.name,
)
def test_what_the_ffmpeg_command_makes(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not ffmpeg.has_encoder(made.encoder):
        pytest.skip(f"the ffmpeg command has no encoder {made.encoder}")
    path = ffmpeg.make(tmp_path / f"video{made.suffix}", scene(60), made)
    in_small_pieces(monkeypatch)
    check_any_order(path, ffmpeg.decode(path))


def outcome(video: VideoFile, position: int) -> bytes | str:
    """A frame, or why there is none."""
    try:
        return video.frames[position].tobytes()
    except CorruptChunkError as error:
        return str(error)


def length(video: VideoFile) -> int | str:
    """How many frames there are, or why there are none."""
    try:
        return len(video)
    except CorruptChunkError as error:
        return str(error)


@pytest.mark.parametrize("part", [0.0, 0.03, 0.3, 0.77, 0.999])
def test_a_file_that_breaks_off(
    encoded: tuple[Path, Images], part: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_pieces(monkeypatch)
    path, _ = encoded
    data = path.read_bytes()
    cut = tmp_path / path.name
    cut.write_bytes(data[: int(part * len(data))])
    local = VideoFile(cut, color=True, name="video")
    other = remote(cut, color=True, name="video")
    count = length(local)
    assert length(other) == count
    if isinstance(count, str):
        return
    for position in random.Random(3).sample(range(count), min(count, 12)):
        assert outcome(other, position) == outcome(local, position)


# Requests, and their bytes.


NOISE = np.random.default_rng(0).integers(0, 255, (120, 96, 128), dtype=np.uint8)
GOP = 20


@pytest.fixture(scope="module", params=["plain", "b-frames", "faststart", "mkv"])
def noisy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[tuple[int, int]]]:
    """A file of GOPs of 200 KiB, and from where to where each of them lies."""
    arguments, suffix = {
        "plain": (f"{_X264} -bf 0", ".mp4"),
        "b-frames": (f"{_X264} -bf 3 -b_strategy 0", ".mp4"),
        "faststart": (f"{_X264} -bf 2 -movflags faststart", ".mp4"),
        "mkv": (f"{_X264} -bf 0", ".mkv"),
    }[request.param]
    path = tmp_path_factory.mktemp("noisy") / f"video{suffix}"
    made = Made("noisy", suffix, f"{arguments} -g {GOP} -sc_threshold 0 -qp 20", (96, 128), 120)
    ffmpeg.make(path, NOISE, made)
    return path, gops(path)


def gops(path: Path) -> list[tuple[int, int]]:
    fields = ["-select_streams", "v:0", "-show_entries", "packet=pos,size,flags"]
    done = subprocess.run(
        ["ffprobe", "-v", "error", *fields, "-of", "csv=p=0", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    packets = [line.split(",") for line in done.stdout.split()]
    starts = [int(pos) for _, pos, flags, *_ in packets if flags.startswith("K")]
    last = max(int(pos) + int(size) for size, pos, *_ in packets)
    return list(zip(starts, [*starts[1:], last], strict=True))


def is_mp4(path: Path) -> bool:
    return path.suffix == ".mp4"


def overlaps(requests: list[Request]) -> bool:
    spans = sorted((request.start, request.start + request.nbytes) for request in requests)
    return any(stop > start for (_, stop), (start, _) in pairwise(spans))


@ffmpeg.needs_ffmpeg
def test_what_one_frame_takes(noisy: tuple[Path, list[tuple[int, int]]]) -> None:
    path, where = noisy
    if not is_mp4(path):
        pytest.skip("it lists no packets")
    place = far(path.parent)
    video = remote(place, path.name)
    with place.watched() as seen:
        video.frames[3 * GOP + 7]
    start, stop = where[3]
    size = path.stat().st_size
    head, *tables, media = seen
    assert head == (path.name, 0, HEAD)
    assert media == (path.name, start, stop - start)
    # Behind the media, unless they are at the front.
    end = where[-1][1]
    assert tables in ([], [(path.name, end, size - end)])
    # Not one after the other, which would be read ahead.
    for position in [*range(3 * GOP, 4 * GOP, 2), *range(4 * GOP - 1, 3 * GOP, -1)]:
        video.frames[position]
    assert place.requests == seen
    # Whichever it is, the last one as well, for which a decoder might want to see what follows.
    for gop, place_in_gop in ((1, GOP - 1), (4, 0), (2, GOP - 1)):
        with place.watched() as seen:
            video.frames[gop * GOP + place_in_gop]
        start, stop = where[gop]
        assert seen == [(path.name, start, stop - start)]
    assert not overlaps(place.requests)


@pytest.mark.parametrize("reordered", [False, True])
def test_a_first_packet_that_is_larger_than_the_head(reordered: bool, tmp_path: Path) -> None:
    options = {"g": "20", "bf": "2" if reordered else "0", "qp": "15", "sc_threshold": "0"}
    images = np.random.default_rng(0).integers(0, 255, (60, 256, 384), dtype=np.uint8)
    kind = Kind("noise", "libx264", options=options | {"b_strategy": "0"})
    path = encode(tmp_path / "video.mp4", images, kind)
    place = far(tmp_path)
    video = remote(place, path.name)
    assert len(video) == 60
    # The head, the sample tables, and the rest of the first packet.
    assert len(place.requests) == 3
    assert place.requests[-1].start == HEAD
    packets = av.open(str(path)).streams.video[0].index_entries
    first = packets[0]
    assert first.size > HEAD
    assert place.requests[-1].start + place.requests[-1].nbytes == first.pos + first.size
    with place.watched() as seen:
        video.frames[47]
    start, stop = packets[40].pos, packets[59].pos + packets[59].size
    assert seen == [(path.name, start, stop - start)]
    expected = VideoFile(path).frames[...]
    np.testing.assert_array_equal(video.frames[...], expected)
    assert not overlaps(place.requests)


@ffmpeg.needs_ffmpeg
@pytest.mark.parametrize("how", ["at once", "one by one", "batch", "side by side"])
def test_no_byte_comes_twice(noisy: tuple[Path, list[tuple[int, int]]], how: str) -> None:
    path, _ = noisy
    place = far(path.parent)
    video = remote(place, path.name)
    rng = random.Random(1)
    expected = VideoFile(path).frames[...]
    if how == "at once":
        np.testing.assert_array_equal(video.frames[...], expected)
    elif how == "one by one":
        np.testing.assert_array_equal(np.stack([video.frames[i] for i in range(120)]), expected)
    elif how == "batch":
        order = rng.sample(range(120), 40)
        np.testing.assert_array_equal(video.frames[order], expected[order])
    else:
        order = rng.sample(range(120), 120)
        with ThreadPoolExecutor(6) as pool:
            images = list(pool.map(lambda i: video.frames[i], order))
        np.testing.assert_array_equal(np.stack(images), expected[order])
    assert not overlaps(place.requests)
    # All bytes of 1.2 MB: the head, the sample tables, and the media in one go.
    if how in ("at once", "one by one") and is_mp4(path):
        assert len(place.requests) <= 4
    # Each GOP once at most, and for Matroska a pass over the file.
    assert len(place.requests) <= 2 + (6 if is_mp4(path) else 5)


@ffmpeg.needs_ffmpeg
def test_requests_for_many_gops_run_side_by_side(
    noisy: tuple[Path, list[tuple[int, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    path, where = noisy
    if not is_mp4(path):
        pytest.skip("it lists no packets")
    # None of two GOPs in one request.
    monkeypatch.setattr(remote_bytes, "LARGEST_REQUEST", max(b - a for a, b in where))
    place = far(path.parent)
    video = remote(place, path.name)
    len(video)
    opened = len(place.requests)
    together = threading.Barrier(5, timeout=30)

    def meet(number: int) -> None:
        # Five are under way, or this raises.
        if opened <= number < opened + 5:
            together.wait()

    place.trouble = meet
    order = [gop * GOP + 3 for gop in range(1, 6)]
    np.testing.assert_array_equal(video.frames[order], VideoFile(path).frames[order])


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "video.mp4", NOISE, Kind("noise", "libx264", options={"g": "5"}))
    monkeypatch.setattr(remote_bytes, "KEPT_BYTES", 300_000)
    monkeypatch.setattr(remote_bytes, "_BEGINNING", 0)
    media = RemoteMedia(far(tmp_path), path.name)
    video = VideoFile(media)
    pool = video._enter()
    most = 0
    # Nobody reads on, so that nothing is requested ahead.
    for position in (37 * i % 120 for i in range(120)):
        video.frames[position]
        most = max(most, pool.media._bytes.held)  # type: ignore[attr-defined]
    headers = HEAD + 10_000
    assert path.stat().st_size > 2 * 300_000
    assert 200_000 < most <= 300_000 + headers
    video.rest()
    assert pool.media._bytes.held <= headers  # type: ignore[attr-defined]


def test_advice_takes_the_headers_alone(tmp_path: Path) -> None:
    kind = Kind("noise", "libx264", options={"g": "20", "bf": "0", "sc_threshold": "0"})
    path = encode(tmp_path / "video.mp4", NOISE, kind)
    place = far(tmp_path)
    video = remote(place, path.name)
    assert video.preferred_chunks[0] == 20
    assert video.boundaries().tolist() == list(range(0, 120, 20))
    assert [request.start > path.stat().st_size // 2 for request in place.requests] == [False, True]
    assert sum(request.nbytes for request in place.requests) < HEAD + 10_000


# What goes wrong on the way.


def broken(number: int) -> Callable[[int], None]:
    def trouble(current: int) -> None:
        if current == number:
            raise RequestError(5, "the connection broke")

    return trouble


def read_all(video: VideoFile, expected: Images, order: list[int]) -> int:
    """Read frames, each again after an error, once; return how many errors there were."""
    errors = 0
    for position in order:
        try:
            image = video.frames[position]
        except RecordingAccessError as error:
            errors += "chunk 0 (video" in str(error) and "the connection broke" in str(error)
            image = video.frames[position]
        np.testing.assert_array_equal(image, expected[position], str(position))
    return errors


TROUBLED = ["plain", "b-frames", "open-gop", "mkv", "fragmented", "mjpeg", "hevc", "plain-avi"]


@pytest.fixture(scope="module", params=TROUBLED)
def troubled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Images]:
    kind = next(kind for kind in KINDS if kind.name == request.param)
    path = encode(tmp_path_factory.mktemp("troubled") / f"video{kind.suffix}", scene(FRAMES), kind)
    return path, VideoFile(path, color=True).frames[...]


@pytest.mark.parametrize("how", ["forward", "random", "batch"])
def test_a_request_that_fails_once(
    troubled: tuple[Path, Images], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_pieces(monkeypatch)
    path, expected = troubled
    order = list(range(len(expected)))
    if how == "random":
        order = random.Random(5).sample(order, len(order) // 3)
    place = far(path.parent)
    expected_requests = 0
    told = 0
    number = 0
    while number <= expected_requests:
        place.requests.clear()
        place.trouble = broken(number)
        video = remote(place, path.name, color=True)
        if how == "batch":
            try:
                images = video.frames[...]
            except RecordingAccessError:
                told += 1
                images = video.frames[...]
            np.testing.assert_array_equal(images, expected)
        else:
            told += read_all(video, expected, order)
        expected_requests = max(expected_requests, len(place.requests) if number == 0 else 0)
        # All of the beginning, and then some.
        number += 1 if number < 12 else 5
    assert told


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 9])
def test_a_network_that_is_gone(
    troubled: tuple[Path, Images], after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_pieces(monkeypatch)
    path, expected = troubled
    place = far(path.parent)

    def gone(number: int) -> None:
        if number >= after:
            raise RequestError(5, "the network is gone")

    place.trouble = gone
    video = remote(place, path.name, color=True)
    errors = 0
    for position in random.Random(after).sample(range(len(expected)), 30):
        try:
            image = video.frames[position]
        except RecordingAccessError as error:
            errors += "the network is gone" in str(error)
            continue
        np.testing.assert_array_equal(image, expected[position])
    # What is read through on opening may be all there is.
    assert errors > 5 or len(place.requests) <= after
    if errors:
        with pytest.raises(RecordingAccessError, match="the network is gone"):
            video.frames[...]
    place.trouble = broken(-1)
    np.testing.assert_array_equal(video.frames[...], expected)


def test_an_interruption_comes_out_of_the_callback(
    troubled: tuple[Path, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_pieces(monkeypatch)
    path, expected = troubled
    place = far(path.parent)

    def interrupt(number: int) -> None:
        if number in (0, 2, 4):
            raise KeyboardInterrupt

    place.trouble = interrupt
    video = remote(place, path.name, color=True)
    caught = 0
    for position in [0, 0, 0, 0, 20, 40, 59, 20, 40, 59]:
        try:
            np.testing.assert_array_equal(video.frames[position], expected[position])
        except KeyboardInterrupt:
            caught += 1
    assert caught >= 1
    np.testing.assert_array_equal(video.frames[...], expected)


def test_threads_while_requests_fail(
    troubled: tuple[Path, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_pieces(monkeypatch)
    path, expected = troubled
    # Else no pass over a file would come to its end.
    monkeypatch.setattr(remote_bytes, "KEPT_BYTES", 2**20)
    place = far(path.parent)
    rng = random.Random(7)

    def trouble(number: int) -> None:
        if number % 4 == 3:
            raise RequestError(5, "the connection broke")

    place.trouble = trouble
    video = remote(place, path.name, color=True)

    def read(position: int) -> int:
        several = [position, (position * 7) % len(expected), (position + 1) % len(expected)]
        try:
            images = video.frames[several if position % 3 else [position]]
        except RecordingAccessError:
            return 1
        np.testing.assert_array_equal(images, expected[several if position % 3 else [position]])
        return 0

    with ThreadPoolExecutor(5) as pool:
        errors = sum(pool.map(read, rng.choices(range(len(expected)), k=120)))
    assert len(place.requests) > 4
    assert errors < 60
    place.trouble = broken(-1)
    np.testing.assert_array_equal(video.frames[...], expected)


# Objects.


@pytest.fixture
def memory(tmp_path: Path) -> tuple[ObjectStore, Images]:
    stores = pytest.importorskip("obstore.store")
    place = ObjectStore(stores.MemoryStore(), "recording", "memory://recording")
    kind = Kind("noise", "libx264", options={"g": "10", "bf": "0"})
    path = encode(tmp_path / "video.mp4", NOISE[:FRAMES], kind)
    place.write("video.mp4", path.read_bytes())
    return place, VideoFile(path, color=True).frames[...]


def in_memory(place: Any, key: str = "video.mp4") -> VideoFile:
    return VideoFile(RemoteMedia(place, key, f"chunk 0 ({key})"), color=True)


def test_an_object_that_is_replaced(memory: tuple[ObjectStore, Images]) -> None:
    place, expected = memory
    video = in_memory(place)
    np.testing.assert_array_equal(video.frames[0], expected[0])
    place.write("video.mp4", place.read("video.mp4"))
    for _ in range(2):
        with pytest.raises(
            CorruptChunkError, match=r"was replaced by another file .*open it again"
        ):
            video.frames[59]
    video.close()
    np.testing.assert_array_equal(video.frames[59], expected[59])


def test_an_object_that_is_not_there(memory: tuple[ObjectStore, Images]) -> None:
    place, _ = memory
    with pytest.raises(ChunkMissingError, match=r"chunk 0 \(nothing\.mp4\) is missing"):
        len(in_memory(place, "nothing.mp4"))


def test_an_object_of_no_bytes(memory: tuple[ObjectStore, Images]) -> None:
    place, _ = memory
    place.write("empty.mp4", b"")
    with pytest.raises(CorruptChunkError, match="cannot be opened as a video"):
        len(in_memory(place, "empty.mp4"))


def test_an_object_in_a_store_of_zarr(memory: tuple[ObjectStore, Images]) -> None:
    from zarr.storage import MemoryStore

    place, expected = memory
    other = ZarrStore(MemoryStore())
    other.write("video.mp4", place.read("video.mp4"))
    video = in_memory(other)
    order = random.Random(2).sample(range(FRAMES), 20)
    images: NDArray[Any] = np.stack([video.frames[i] for i in order])
    np.testing.assert_array_equal(images, expected[order])
    np.testing.assert_array_equal(in_memory(other).frames[...], expected)


def test_pickled(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4", scene(FRAMES), KINDS[1])
    video = remote(path, color=True)
    image = video.frames[33]
    data = pickle.dumps(video)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data).frames[33], image)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_fetches_for_itself(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4", scene(FRAMES), KINDS[1])
    expected = VideoFile(path, color=True).frames[...]
    video = remote(path, color=True)
    video.frames[30]
    child = os.fork()
    if child == 0:
        same = np.array_equal(video.frames[[3, 50]], expected[[3, 50]])
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(video.frames[...], expected)

"""Video files of many kinds, read in any order, against a decode by the ffmpeg command."""

from __future__ import annotations

import random
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from imgstore_zarr import CorruptChunkError
from imgstore_zarr.video import PacketTable, VideoFile
from imgstore_zarr.video.container import open_video
from imgstore_zarr.video.media import LocalMedia
from imgstore_zarr.video.packet_reading import demuxed_table, listed_table
from tests import ffmpeg
from tests.ffmpeg import Made
from tests.videos import Images, decode_in_sequence, read_barcode, scene

pytestmark = ffmpeg.needs_ffmpeg

_X264 = "-c:v libx264 -preset veryfast -pix_fmt yuv420p"
_X265 = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -x265-params log-level=none"

MADE = [
    Made("h264-gop-1", ".mp4", f"{_X264} -g 1"),
    Made("h264-gop-25", ".mp4", f"{_X264} -g 25 -bf 0"),
    Made("h264-gop-250", ".mp4", f"{_X264} -g 250 -bf 3", (64, 64), 520),
    Made("h264-one-gop", ".mp4", f"{_X264} -g 9999 -keyint_min 9999 -sc_threshold 0 -bf 2"),
    Made("h264-pyramid", ".mp4", f"{_X264} -g 12 -bf 4 -x264-params b-pyramid=normal"),
    Made("h264-no-pyramid", ".mp4", f"{_X264} -g 12 -bf 3 -x264-params b-pyramid=none"),
    Made("h264-open-gop", ".mp4", f"{_X264} -g 12 -bf 3 -x264-params open-gop=1"),
    Made("h264-open-gop-mkv", ".mkv", f"{_X264} -g 12 -bf 3 -x264-params open-gop=1"),
    Made("h264-intra-refresh", ".mp4", f"{_X264} -g 12 -x264-params intra-refresh=1"),
    Made("h264-slices", ".mp4", f"{_X264} -g 12 -bf 0 -x264-params slices=4"),
    Made("h264-interlaced", ".mp4", f"{_X264} -g 12 -flags +ilme+ildct"),
    Made("h264-fragmented", ".mp4", f"{_X264} -g 12 -bf 2 -movflags frag_keyframe+empty_moov"),
    Made("h264-faststart", ".mp4", f"{_X264} -g 12 -bf 2 -movflags faststart"),
    Made("h264-negative-offsets", ".mp4", f"{_X264} -g 12 -bf 2 -movflags negative_cts_offsets"),
    Made("h264-no-edit-list", ".mp4", f"{_X264} -g 12 -bf 2 -use_editlist 0"),
    Made("h264-late", ".mp4", f"{_X264} -g 12 -bf 2 -output_ts_offset 7"),
    Made("h264-late-mkv", ".mkv", f"{_X264} -g 12 -bf 2 -output_ts_offset 7"),
    Made("h264-mov", ".mov", f"{_X264} -g 12 -bf 2"),
    Made("h264-mkv", ".mkv", f"{_X264} -g 12 -bf 2"),
    Made("h264-avi", ".avi", f"{_X264} -g 12 -bf 0"),
    Made("h264-avi-b-frames", ".avi", f"{_X264} -g 12 -bf 2"),
    Made("h264-transport-stream", ".ts", f"{_X264} -g 12 -bf 2"),
    Made(
        "h264-variable-rate",
        ".mp4",
        f"{_X264} -g 12 -bf 2 -fps_mode passthrough -vf setpts=(N*N/9+N)/25/TB",
    ),
    Made(
        "h264-variable-rate-mkv",
        ".mkv",
        f"{_X264} -g 12 -bf 2 -fps_mode passthrough -vf setpts=(N*N/9+N)/25/TB",
    ),
    Made("h264-gray", ".mp4", "-c:v libx264 -g 12 -pix_fmt gray"),
    Made("h264-444", ".mp4", "-c:v libx264 -g 12 -pix_fmt yuv444p", (95, 127)),
    Made("h264-10-bit", ".mp4", "-c:v libx264 -g 12 -pix_fmt yuv420p10le"),
    Made("h264-full-range", ".mp4", f"{_X264} -g 12 -vf scale=out_range=full -color_range pc"),
    Made("h264-bt709", ".mp4", f"{_X264} -g 12 -colorspace bt709 -color_range tv"),
    Made("hevc", ".mp4", f"{_X265}:keyint=12:bframes=3:open-gop=0"),
    Made("hevc-open-gop", ".mp4", f"{_X265}:keyint=12:bframes=4:open-gop=1"),
    Made("hevc-open-gop-mkv", ".mkv", f"{_X265}:keyint=12:bframes=4:open-gop=1"),
    Made("hevc-10-bit", ".mkv", f"{_X265}:keyint=12 -pix_fmt yuv420p10le"),
    Made(
        "av1",
        ".mkv",
        "-c:v libaom-av1 -cpu-used 8 -usage realtime -g 12 -pix_fmt yuv420p",
        (64, 64),
        30,
    ),
    Made("av1-mp4", ".mp4", "-c:v libsvtav1 -preset 12 -g 12 -pix_fmt yuv420p", (64, 64), 30),
    Made("mpeg4", ".mp4", "-c:v mpeg4 -g 12 -bf 0 -q:v 4"),
    Made("mpeg4-b-frames", ".mp4", "-c:v mpeg4 -g 12 -bf 2 -q:v 4"),
    Made("mpeg4-avi", ".avi", "-c:v mpeg4 -g 12 -bf 2 -q:v 4"),
    Made("mjpeg-avi", ".avi", "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p", (95, 127)),
    Made("mjpeg-mp4", ".mp4", "-c:v mjpeg -q:v 3 -pix_fmt yuvj422p"),
    Made("ffv1", ".mkv", "-c:v ffv1 -level 3 -g 5 -pix_fmt gray", (95, 127)),
    Made("ffv1-avi", ".avi", "-c:v ffv1 -level 3 -g 1 -pix_fmt yuv420p"),
    Made("vp9", ".webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 12 -pix_fmt yuv420p"),
]


@pytest.fixture(scope="module", params=MADE, ids=lambda made: made.name)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Made, Path, Images]:
    made: Made = request.param
    if not ffmpeg.has_encoder(made.encoder):
        pytest.skip(f"the ffmpeg command has no encoder {made.encoder}")
    path = tmp_path_factory.mktemp("made") / f"video{made.suffix}"
    ffmpeg.make(path, scene(made.count, made.shape), made)
    images = ffmpeg.decode(path)
    assert len(images) == made.count
    return made, path, images


def test_any_way_of_reading(made: tuple[Made, Path, Images]) -> None:
    _, path, expected = made
    count = len(expected)
    rng = random.Random(count)
    orders = {
        "sequential": list(range(count)),
        "reverse": list(range(count - 1, -1, -1)),
        "random": rng.sample(range(count), count),
        "strided": list(range(1, count, 7)),
        "back and forth": [count // 2 + step * (-1) ** step for step in range(count // 3)],
    }
    for name, order in orders.items():
        with_steps = VideoFile(path, color=True)
        assert len(with_steps) == count
        for position in order:
            image = with_steps.frames[position]
            assert np.array_equal(image, expected[position]), f"{name}, {position}"
        with_steps.close()
        batch = VideoFile(path, color=True)
        assert np.array_equal(batch.frames[order], expected[order]), name
        batch.close()


def test_the_first_read_may_be_anywhere(made: tuple[Made, Path, Images]) -> None:
    _, path, expected = made
    for position in range(0, len(expected), max(len(expected) // 6, 1)):
        video = VideoFile(path, color=True)
        np.testing.assert_array_equal(video.frames[position], expected[position])
        video.close()


def test_threads_do_not_mix_frames(made: tuple[Made, Path, Images]) -> None:
    _, path, expected = made
    video = VideoFile(path, color=True)
    rng = random.Random(7)

    def read(order: list[int]) -> list[int]:
        return [p for p in order if not np.array_equal(video.frames[p], expected[p])]

    count = len(expected)
    orders = [list(range(count)), rng.sample(range(count), count // 2)] * 2
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, orders)) == [[]] * 4
    video.close()


def test_frames_are_where_their_barcode_says(made: tuple[Made, Path, Images]) -> None:
    made_so, path, _ = made
    height, width = made_so.shape
    images = VideoFile(path, color=False).frames[::7, : height // 2]
    # The last bar of an odd width lacks a column.
    wide = np.pad(images, ((0, 0), (0, 0), (0, -width % 16)), mode="edge")
    assert [read_barcode(image) for image in wide] == list(range(0, made_so.count, 7))


def _tables(path: Path) -> tuple[PacketTable | None, PacketTable]:
    media = LocalMedia(path)
    video = open_video(media, path.name)
    with video.container:
        listed = listed_table(media, video)
    video = open_video(media, path.name)
    with video.container:
        return listed, demuxed_table(media, video)


def _agree(listed: PacketTable, demuxed: PacketTable) -> None:
    for name in ("pts", "dts", "pos", "size", "shown", "corrupt", "entries", "rank_of_position"):
        np.testing.assert_array_equal(getattr(listed, name), getattr(demuxed, name), name)


def test_what_an_mp4_lists_is_what_is_in_it(made: tuple[Made, Path, Images]) -> None:
    made_so, path, _ = made
    listed, demuxed = _tables(path)
    lists = made_so.suffix in (".mp4", ".mov") and made_so.name not in (
        "h264-fragmented",
        "hevc-open-gop",
    )
    assert (listed is not None) == lists
    if listed is not None:
        _agree(listed, demuxed)


def test_an_mp4_is_opened_without_its_media(tmp_path: Path) -> None:
    made = next(made for made in MADE if made.name == "h264-faststart")
    path = ffmpeg.make(tmp_path / "video.mp4", scene(made.count, made.shape), made)
    listed, _ = _tables(path)
    assert listed is not None
    data = bytearray(path.read_bytes())
    # All media behind the first GOP, in which FFmpeg looks for what it must know of the stream.
    begin = int(listed.pos[12])
    data[begin:] = bytes(len(data) - begin)
    path.write_bytes(data)
    video = VideoFile(path, color=False)
    assert len(video) == made.count
    np.testing.assert_array_equal(video.table.pts, listed.pts)
    video.close()


_CUT = [
    "h264-faststart",
    "h264-fragmented",
    "h264-mkv",
    "h264-avi",
    "hevc",
    "mpeg4-avi",
    "mjpeg-avi",
]


@pytest.mark.parametrize("name", _CUT)
@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_file_that_is_cut_off(tmp_path: Path, name: str, tenth: int) -> None:
    made = next(made for made in MADE if made.name == name)
    whole = ffmpeg.make(tmp_path / f"whole{made.suffix}", scene(made.count), made)
    expected = ffmpeg.decode(whole)
    cut = tmp_path / f"cut{made.suffix}"
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * tenth // 10])
    served = _compare_served(cut, dict(enumerate(expected)))
    with av.open(str(whole)) as file:
        ends = [p.pos + p.size for p in file.demux(video=0) if p.size and p.pos is not None]
    # At most a GOP is lost of what is there.
    assert served is None or served >= sum(end <= cut.stat().st_size for end in ends) - 13


def _compare_served(path: Path, expected: dict[int, Images]) -> int | None:
    """How many frames are served, each as expected; None where the file cannot be opened."""
    video = VideoFile(path, color=True)
    try:
        count = len(video)
    except CorruptChunkError as error:
        # The error names the file.
        return None if path.name in str(error) else 0
    named: list[bool] = []
    order = [*range(0, count, 3), *range(count - 1, -1, -1), *range(count)]
    failed = set()
    for position in order:
        try:
            image = video.frames[position]
        except CorruptChunkError as error:
            named.append(f"position {position} " in str(error))
            failed.add(position)
            continue
        # What could once not be read never can.
        assert position not in failed
        assert np.array_equal(image, expected[position]), position
    video.close()
    assert all(named)
    return len(set(range(count)) - failed)


# FFmpeg does not notice all damage in H.265: what it shows then may be what lay in memory before.
_FLIPPED = [
    *("h264-gop-25", "h264-pyramid", "h264-slices", "h264-mkv", "h264-avi"),
    *("mpeg4", "mjpeg-avi", "ffv1"),
]


@pytest.mark.parametrize("name", _FLIPPED)
@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes(tmp_path: Path, name: str, seed: int) -> None:
    made = next(made for made in MADE if made.name == name)
    path = ffmpeg.make(tmp_path / f"video{made.suffix}", scene(made.count), made)
    data = bytearray(path.read_bytes())
    rng = random.Random(seed)
    for _ in range(3):
        at = rng.randrange(len(data) // 10, len(data) * 9 // 10)
        data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    # Damage that the codec cannot notice changes pixels for everybody in the same way.
    try:
        expected = decode_in_sequence(path)
    except av.FFmpegError:
        expected = {}
    video = VideoFile(path, color=True)
    try:
        stamps = video.table.frame_pts.tolist()
    except CorruptChunkError:
        assert not expected
        return
    finally:
        video.close()
    _compare_served(path, {i: expected[pts] for i, pts in enumerate(stamps) if pts in expected})


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "name",
    [
        "sleap_flies_small.mp4",
        "sleap_single_fly.mp4",
        "lp_mirror_mouse.mp4",
        "tc_bt709_full_range.mp4",
        "tc_h264_10bits.mp4",
        "tc_av1_video.mkv",
        "pims_bulk_water.mov",
        "pims_cine_legacy.cine",
        "loopbio_store_mp4/000000.mp4",
        "loopbio_store_mp4/000001.mp4",
        "shaliulab_imgstore_1/000003.avi",
    ],
)
def test_videos_made_by_others(shared_data: Path, name: str) -> None:
    path = shared_data / name
    expected = [zlib.crc32(image.tobytes()) for image in ffmpeg.frames(path)]
    listed, demuxed = _tables(path)
    if listed is not None:
        _agree(listed, demuxed)
    count = len(expected)
    rng = random.Random(count)
    video = VideoFile(path, color=True)
    assert len(video) == count
    some = rng.sample(range(count), min(count, 60))
    for order in (range(count), range(count - 1, max(count - 200, -1), -1), some):
        wrong = [p for p in order if zlib.crc32(video.frames[p].tobytes()) != expected[p]]
        assert wrong == []
    for order in (some, list(range(1, count, 17)), list(range(count // 3, count // 2))):
        digests = [zlib.crc32(image.tobytes()) for image in video.frames[order]]
        assert digests == [expected[p] for p in order]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda p: zlib.crc32(video.frames[p].tobytes()), some)) == [
            expected[p] for p in some
        ]
    video.close()

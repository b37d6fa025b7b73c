"""The server of the viewer: who may ask, what is answered, and that it is right."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import imgstore_zarr
from tests import servers
from tests.conftest import Record
from tests.ffmpeg import needs_ffmpeg
from tests.ffmpeg import times as video_times
from tests.viewing import Viewing, damaged, mean_of_squares, script

pytestmark = pytest.mark.timeout(240)

START = 1_700_000_000.0
COUNT = 60


def textured(count: int, shape: tuple[int, ...], dtype: Any = np.uint8) -> NDArray[Any]:
    """Smooth images that differ, over most of the range of the dtype."""
    rng = np.random.default_rng(7)
    most = 250 if np.dtype(dtype) == np.uint8 else 40_000
    y, x = np.mgrid[: shape[0], : shape[1]]
    images = []
    for _ in range(count):
        a, b, c = rng.uniform(0.02, 0.08, 3)
        light = (np.sin(a * x + b * y + 60 * c) + 1) / 2
        image = light[..., None] * rng.uniform(0.4, 1, shape[2:] or 1) * most
        images.append(image.reshape(shape).astype(dtype))
    return np.stack(images)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


GRAY = textured(COUNT, (96, 128))
COLOR = textured(COUNT, (96, 128, 3))
DEEP = textured(COUNT, (96, 128), np.uint16)
NUMBERS = np.concatenate([np.arange(100, 130), np.arange(140, 170)])
TIMES = START + NUMBERS / 25


def write(path: Path, images: NDArray[Any], format: str = "zstd/zarr", **options: Any) -> Path:
    with imgstore_zarr.create(
        path, format, images.shape[1:], images.dtype, chunksize=16, **options
    ) as writer:
        for i, image in enumerate(images):
            writer.add_image(image, int(NUMBERS[i]), float(TIMES[i]))
            writer.add_extra_data(temperature=20 + i / 10, label="x")
    return path


@pytest.fixture(scope="module")
def viewing(folder: Path) -> Iterator[Viewing]:
    paths = [
        write(folder / "gray.zarr", GRAY),
        write(folder / "color.zarr", COLOR),
        write(folder / "deep.zarr", DEEP),
        write(folder / "video", GRAY, "avc1/mp4"),
    ]
    with Viewing(*paths) as running:
        yield running


def raw(viewing: Viewing, request: bytes, patience: float = 30) -> bytes:
    """What comes back for bytes that need not be HTTP; the connection is closed by the server."""
    with socket.create_connection(("127.0.0.1", viewing.port), timeout=patience) as client:
        answer = b""
        # Who is sent too much closes at once.
        with contextlib.suppress(ConnectionError):
            client.sendall(request)
            while piece := client.recv(2**16):
                answer += piece
        return answer


def head(path: str, host: str = "127.0.0.1", method: str = "GET", more: str = "") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
    return ("\r\n".join(lines) + "\r\n" + more + "\r\n").encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def decoded(content: bytes) -> NDArray[Any]:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return np.asarray(image)


# Who may ask.


def test_the_address_has_a_line_of_its_own(viewing: Viewing) -> None:
    assert viewing.printed[0] == "Viewing gray.zarr, color.zarr, deep.zarr, video"
    assert viewing.printed[1] == viewing.url
    assert len(viewing.token) >= 32


def test_it_listens_on_this_machine_alone(viewing: Viewing) -> None:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, port = line.split()[1].split(":")
        if int(port, 16) == viewing.port and line.split()[3] == "0A":
            assert address == "0100007F"
            break
    else:
        pytest.fail("nobody listens on the port")


def test_nothing_without_the_token(viewing: Viewing) -> None:
    for path in ("/", "/recordings", f"/{viewing.token[:-1]}/", f"/{viewing.token}x/", "//"):
        assert status(raw(viewing, head(path))) == 403, path
    assert status(raw(viewing, head(f"/{viewing.token}/recordings"))) == 200


@pytest.mark.parametrize(
    "host", ["example.com", "127.0.0.1.example.com", "10.0.0.1", "", "localhost.", "a b"]
)
def test_nothing_for_other_hosts(viewing: Viewing, host: str) -> None:
    assert status(raw(viewing, head(f"/{viewing.token}/recordings", host))) in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "localhost:9999", "127.0.0.1:1", "LOCALHOST"])
def test_a_tunnel_may_have_another_port(viewing: Viewing, host: str) -> None:
    assert status(raw(viewing, head(f"/{viewing.token}/recordings", host))) == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
def test_other_methods_are_refused(viewing: Viewing, method: str) -> None:
    answer = raw(viewing, head(f"/{viewing.token}/recordings", method=method))
    assert status(answer) == 405
    assert b"allow: GET, HEAD, POST" in answer


def test_what_reads_is_not_posted_and_what_changes_is_not_got(viewing: Viewing) -> None:
    for path in ("recordings", "recordings/0/frame?position=0", "", "page/main.js"):
        assert viewing.client.post(path).status_code == 405
    for path in ("quit", "recordings/0/movie", "movie/stop"):
        assert viewing.get(path).status_code == 405
    assert viewing.client.head("recordings").status_code == 200
    assert viewing.json("recordings")


@pytest.mark.parametrize(
    "path",
    [
        "page/../../../../etc/passwd",
        "page/..%2f..%2f..%2fetc%2fpasswd",
        "page/%2e%2e/%2e%2e/pyproject.toml",
        "page//etc/passwd",
        "page/..\\..\\x",
        "../../etc/passwd",
        "recordings/../../etc/passwd",
        "page/main.js%00.css",
        "page/server.py",
        "recordings/0/gray.zarr/zarr.json",
    ],
)
def test_no_path_leads_out(viewing: Viewing, path: str) -> None:
    answer = raw(viewing, head(f"/{viewing.token}/{path}"))
    assert status(answer) in (400, 403, 404)
    assert b"root:" not in answer
    assert len(answer) < 2000


def test_headers_of_every_answer(viewing: Viewing) -> None:
    paths = ["", "page/main.js", "recordings", "recordings/0/frame?position=0", "nothing"]
    for path in paths:
        headers = viewing.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"].startswith("no-store")
        assert "server" not in headers
    assert "content-security-policy" in viewing.client.get("/nothing").headers


BAD = {
    "recordings/9/frame?position=0": 404,
    "recordings/-1/frame?position=0": 404,
    "recordings/99999999999999999999/frame?position=0": 404,
    "recordings/0/frame": 400,
    "recordings/0/frame?position=0&number=100": 400,
    "recordings/0/frame?position=60": 404,
    "recordings/0/frame?position=-1": 404,
    "recordings/0/frame?position=1e3": 400,
    "recordings/0/frame?position=99999999999999999999999": 400,
    "recordings/0/frame?number=135": 404,
    "recordings/0/frame?time=nan": 400,
    "recordings/0/frame?time=1e999": 400,
    "recordings/0/frame?position=0&width=0": 400,
    "recordings/0/frame?position=0&width=100000": 400,
    "recordings/0/frame?position=0&height=-5": 400,
    "recordings/0/frame?position=0&window=0,97,0,10": 400,
    "recordings/0/frame?position=0&window=5,5,0,10": 400,
    "recordings/0/frame?position=0&window=0,10": 400,
    "recordings/0/frame?position=0&gamma=0": 400,
    "recordings/0/frame?position=0&map=jet": 400,
    "recordings/0/frame?position=0&type=exe": 400,
    "recordings/0/frame?position=0&black=x": 400,
    "recordings/0/frame?position=0&ahead=1001": 400,
    "recordings/0/frame?position=0&surprise=1": 400,
    "recordings/0/pixels?position=0&y=96&x=0": 400,
    "recordings/0/pixels?position=0&y=0&x=0&around=500": 400,
    "recordings/0/timeline?bins=1000000": 400,
    "recordings/0/timeline?start=a": 400,
    "recordings/0/curves/7?start=0&stop=1": 404,
    "recordings/0/curves/0?start=1&stop=0": 400,
    "recordings/0/curves/0?start=0": 400,
    "recordings/0/find?local=yesterday": 400,
    "recordings/0/find": 400,
    "recordings/0/levels?position=1000": 404,
    "recordings/0/original?position=1000": 404,
    "movie/file": 404,
    "movie": 404,
    "page/nothing.js": 404,
    "nothing": 404,
}


@pytest.mark.parametrize("path", BAD)
def test_what_cannot_be_answered(viewing: Viewing, path: str, folder: Path) -> None:
    answer = viewing.get(path)
    assert answer.status_code == BAD[path], answer.text
    assert str(folder) not in answer.text
    assert "Traceback" not in answer.text
    assert len(answer.text) < 300


@pytest.mark.parametrize(
    ("range_", "expected"),
    [
        ("start=0&stop=61", 400),
        ("start=5&stop=5", 400),
        ("start=-1&stop=5", 400),
        ("start=0", 400),
        ("start=0&stop=5&rate=0", 400),
        ("start=0&stop=5&width=9", 400),
    ],
)
def test_movies_that_cannot_be(viewing: Viewing, range_: str, expected: int) -> None:
    assert viewing.client.post(f"recordings/0/movie?{range_}").status_code == expected


def test_bodies_and_long_heads_are_refused(viewing: Viewing) -> None:
    path = f"/{viewing.token}/quit"
    body = raw(viewing, head(path, method="POST", more="Content-Length: 5\r\n") + b"hello")
    assert status(body) == 413
    endless = head(f"/{viewing.token}/").removesuffix(b"\r\n") + b"X-Long: " + b"a" * 2**20
    assert not (answer := raw(viewing, endless)) or status(answer) in (400, 431)
    assert status(raw(viewing, head("/" + "a" * 9000))) == 414
    assert not (answer := raw(viewing, b"\x16\x03\x01nonsense\r\n\r\n")) or status(answer) == 400
    assert viewing.json("recordings")


def test_refusals_are_logged_without_the_token(viewing: Viewing) -> None:
    raw(viewing, head("/recordings-of-nobody"))
    viewing.get("recordings/0/frame", position=12345)
    said = viewing.stderr()
    assert "recordings-of-nobody" in said
    assert "404" in said
    assert viewing.token not in said
    assert "Traceback" not in said


def test_slow_clients_are_dropped_and_hold_up_nobody(viewing: Viewing) -> None:
    slow = [socket.create_connection(("127.0.0.1", viewing.port), timeout=60) for _ in range(20)]
    try:
        for client in slow[:10]:
            client.sendall(f"GET /{viewing.token}/ HT".encode())
        for position in range(20):
            assert viewing.get("recordings/0/frame", position=position).status_code == 200
        # The server, not the client, ends every one of them.
        for client in slow:
            while client.recv(4096):
                pass
    finally:
        for client in slow:
            client.close()
    assert viewing.json("recordings")


# What is answered.


def test_facts(viewing: Viewing) -> None:
    gray, color, deep, video = viewing.json("recordings")["recordings"]
    assert [f["name"] for f in (gray, color, deep, video)] == [
        "gray.zarr",
        "color.zarr",
        "deep.zarr",
        "video",
    ]
    assert (gray["frames"], gray["height"], gray["width"]) == (COUNT, 96, 128)
    assert (color["channels"], deep["dtype"], video["layout"]) == (3, "uint16", "video")
    assert gray["rate"] == pytest.approx(25)
    assert gray["axis"] == "time"
    zone = zoneinfo.ZoneInfo(gray["zone"]) if gray["zone"] != "UTC" else dt.UTC
    local = dt.datetime.fromtimestamp(TIMES[0], zone)
    assert gray["first"] == {
        "position": 0,
        "number": 100,
        "time": TIMES[0],
        "local": local.strftime("%Y-%m-%d %H:%M:%S.000 ") + local.strftime("%Z"),
    }
    assert gray["last"]["number"] == 169


def which(answer: Any) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(answer.headers["x-frame"])
    return frame


@pytest.mark.parametrize("file_type", ["jpeg", "webp", "png"])
@pytest.mark.parametrize(("recording", "images"), [(0, GRAY), (1, COLOR)])
def test_frames_are_the_right_ones(
    viewing: Viewing, recording: int, images: NDArray[np.uint8], file_type: str
) -> None:
    for position in (0, 29, 30, 59, 17):
        answer = viewing.get(
            f"recordings/{recording}/frame", position=position, width=64, height=48, type=file_type
        )
        assert answer.headers["content-type"] == f"image/{file_type}"
        assert which(answer)["position"] == position
        assert which(answer)["number"] == NUMBERS[position]
        picture = decoded(answer.content)
        if images.ndim == 3 and picture.ndim == 3:
            picture = picture[..., 0]
        expected = mean_of_squares(images[position], 2)
        assert picture.shape == expected.shape
        tolerance = 0.6 if file_type == "png" else 6
        assert np.abs(picture - expected).mean() < tolerance
        others = [mean_of_squares(images[p], 2) for p in range(COUNT) if p != position]
        assert min(np.abs(picture - other).mean() for other in others) > 8


def test_a_picture_is_never_larger_than_the_frame(viewing: Viewing) -> None:
    picture = decoded(viewing.get("recordings/0/frame", position=3, width=4096, type="png").content)
    np.testing.assert_array_equal(picture, GRAY[3])


def test_a_window_of_a_frame(viewing: Viewing) -> None:
    answer = viewing.get("recordings/1/frame", position=5, window="10,50,20,90", type="png")
    np.testing.assert_array_equal(decoded(answer.content), COLOR[5, 10:50, 20:90])


@pytest.mark.parametrize(
    ("black", "white", "gamma"), [(0, 40_000, 1), (5_000, 30_000, 1), (100, 60_000, 2.2)]
)
def test_levels_of_uint16(viewing: Viewing, black: float, white: float, gamma: float) -> None:
    answer = viewing.get(
        "recordings/2/frame", position=9, type="png", black=black, white=white, gamma=gamma
    )
    light = np.clip((DEEP[9].astype(float) - black) / (white - black), 0, 1)
    expected = 255 * light ** (1 / gamma)
    assert np.abs(decoded(answer.content) - expected).max() <= 0.51


def test_levels_and_colors_of_uint8(viewing: Viewing) -> None:
    answer = viewing.get("recordings/0/frame", position=9, type="png", black=50, white=150)
    expected = np.clip((GRAY[9].astype(float) - 50) / 100, 0, 1) * 255
    assert np.abs(decoded(answer.content) - expected).max() <= 0.51
    colored = decoded(
        viewing.get("recordings/0/frame", position=9, type="png", map="viridis").content
    )
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0]
    np.testing.assert_array_equal(colored, table[GRAY[9]])
    same = decoded(viewing.get("recordings/1/frame", position=9, type="png", map="viridis").content)
    np.testing.assert_array_equal(same, COLOR[9])


def test_floats_with_holes(record: Record) -> None:
    images = np.linspace(-3, 5, 4 * 40 * 60).reshape(4, 40, 60).astype(np.float32)
    images[:, :4, :4] = np.nan
    images[:, 4:8, :4] = np.inf
    with Viewing(record(images)) as running:
        levels = running.json("recordings/0/levels", position=1)
        finite = images[1][np.isfinite(images[1])]
        assert levels["low"] == pytest.approx(finite.min())
        assert levels["high"] == pytest.approx(finite.max())
        assert levels["low"] <= levels["black"] < levels["white"] <= levels["high"]
        assert sum(levels["counts"]) == len(finite)
        asked = {"position": 1, "black": -3, "white": 5, "type": "png"}
        picture = decoded(running.get("recordings/0/frame", **asked).content)
        expected = np.clip((images[1].astype(float) + 3) / 8, 0, 1) * 255
        expected[~np.isfinite(images[1])] = 127.5
        assert np.abs(picture - expected).max() <= 0.51
        small = decoded(running.get("recordings/0/frame", **asked, width=30).content)
        assert small.shape == (20, 30)
        assert small[0, 0] == 128
        block = running.json("recordings/0/pixels", position=1, y=4, x=4, around=1)
        assert block["values"][0][0] is None
        assert block["values"][2][2] == pytest.approx(images[1, 5, 5])
        assert "uint8 and uint16" in running.json("recordings/0/original", position=1)["trouble"]


def test_pixels_are_exact(viewing: Viewing) -> None:
    block = viewing.json("recordings/2/pixels", position=20, y=1, x=127, around=3)
    assert (block["y"], block["x"]) == (0, 124)
    np.testing.assert_array_equal(block["values"], DEEP[20, 0:5, 124:128])
    one = viewing.json("recordings/1/pixels", position=20, y=50, x=60)
    np.testing.assert_array_equal(one["values"], COLOR[20, 50:51, 60:61])


@pytest.mark.parametrize(("recording", "images"), [(0, GRAY), (1, COLOR), (2, DEEP)])
def test_a_saved_frame_has_its_own_pixels(
    viewing: Viewing, recording: int, images: NDArray[Any]
) -> None:
    answer = viewing.get(f"recordings/{recording}/original", position=31)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"].endswith('-141.png"')
    saved = decoded(answer.content)
    assert saved.dtype == images.dtype
    np.testing.assert_array_equal(saved, images[31])


def finished(running: Viewing) -> dict[str, Any]:
    for _ in range(600):
        state: dict[str, Any] = running.json("movie")
        if state["finished"] or state["trouble"]:
            return state
        time.sleep(0.05)
    raise AssertionError("the movie takes too long")


@needs_ffmpeg
def test_a_movie_has_all_frames_of_its_range(viewing: Viewing, tmp_path: Path) -> None:
    begun = viewing.client.post("recordings/2/movie?start=10&stop=43&rate=20&black=0&white=40000")
    assert begun.status_code == 200
    state = finished(viewing)
    assert (state["done"], state["total"], state["trouble"]) == (33, 33, None)
    answer = viewing.get("movie/file")
    assert answer.headers["content-type"] == "video/mp4"
    path = tmp_path / "movie.mp4"
    path.write_bytes(answer.content)
    times = video_times(path)
    assert len(times) == 33
    np.testing.assert_allclose(np.diff(times), 1 / 20, atol=1e-3)
    capture = cv2.VideoCapture(str(path))
    for position in range(10, 43):
        there, image = capture.read()
        assert there
        expected = DEEP[position].astype(float) / 40_000 * 255
        assert np.abs(image[..., 0] - expected).mean() < 4
    assert not capture.read()[0]
    capture.release()
    assert viewing.client.post("movie/stop").status_code == 200
    assert viewing.get("movie").status_code == 404
    assert viewing.get("movie/file").status_code == 404


def test_one_movie_at_a_time_and_it_can_be_stopped(record: Record) -> None:
    images = np.random.default_rng(1).integers(0, 255, (300, 241, 321), np.uint8)
    with Viewing(record(images, chunksize=50)) as running:
        assert running.client.post("recordings/0/movie?start=0&stop=300").status_code == 200
        again = running.client.post("recordings/0/movie?start=0&stop=300")
        assert again.status_code == 409
        assert "another movie" in again.text
        assert running.client.post("movie/stop").status_code == 200
        # Its image has an odd size; the movie leaves the last row and column out.
        assert running.client.post("recordings/0/movie?start=0&stop=2").status_code == 200
        assert finished(running)["done"] == 2


@pytest.mark.parametrize(
    ("asked", "position"),
    [
        ({"position": 12}, 12),
        ({"number": 129}, 29),
        ({"number": 140}, 30),
        ({"time": TIMES[44] + 0.01}, 44),
        ({"time": 0}, 0),
        ({"time": 1e12}, 59),
    ],
)
def test_finding(viewing: Viewing, asked: dict[str, Any], position: int) -> None:
    found = viewing.json("recordings/0/find", **asked)["frame"]
    assert (found["position"], found["number"]) == (position, NUMBERS[position])
    assert found["time"] == TIMES[position]


def test_finding_by_the_clock(viewing: Viewing) -> None:
    name = viewing.json("recordings")["recordings"][0]["zone"]
    moment = dt.datetime.fromtimestamp(TIMES[40], zoneinfo.ZoneInfo(name))
    for text in (f"{moment:%Y-%m-%d %H:%M:%S.%f}", f"{moment:%H:%M:%S.%f}"):
        found = viewing.json("recordings/0/find", local=text)["frame"]
        assert found["position"] == 40


def test_a_number_that_is_not_there(viewing: Viewing) -> None:
    found = viewing.json("recordings/0/find", number=133)
    assert found["frame"] is None
    assert found["nearest"]["number"] == 129


@pytest.mark.parametrize("bins", [1, 7, 100, 4096])
def test_the_timeline_counts_every_frame_once(viewing: Viewing, bins: int) -> None:
    line = viewing.json("recordings/0/timeline", bins=bins)
    edges = np.linspace(TIMES[0], TIMES[-1], bins + 1)
    expected, _ = np.histogram(TIMES, edges)
    assert line["frames"] == expected.tolist()
    assert sum(line["dropped"]) == 10
    assert [(g["position"], g["missing"]) for g in line["gaps"]] == [(30, 10)]
    assert line["gaps"][0]["start"] == TIMES[29]
    assert line["chunks"] == [TIMES[i] for i in (0, 16, 32, 48)]
    assert line["problems"] == []


def test_a_part_of_the_timeline(viewing: Viewing) -> None:
    start, stop = float(TIMES[10]), float(TIMES[20])
    line = viewing.json("recordings/0/timeline", start=start, stop=stop, bins=5)
    expected, _ = np.histogram(TIMES, np.linspace(start, stop, 6))
    assert line["frames"] == expected.tolist()
    assert line["position"][0] == 10
    assert line["gaps"] == []


def test_times_that_go_back_are_shown_by_position(record: Record) -> None:
    images = textured(12, (16, 16))
    times = [5.0, 4.0, float("nan"), *range(9)]
    with Viewing(record(images, frame_time=times)) as running:
        facts = running.json("recordings")["recordings"][0]
        assert (facts["axis"], facts["unix"]) == ("position", False)
        line = running.json("recordings/0/timeline", bins=3)
        assert sum(line["frames"]) == 11 or sum(line["frames"]) == 12
        assert running.json("recordings/0/find", position=2)["frame"]["time"] is None


def test_curves_have_the_extremes_of_each_column(viewing: Viewing) -> None:
    channels = viewing.json("recordings/0/curves")["channels"]
    assert [channel["name"] for channel in channels] == ["temperature"]
    start, stop = float(TIMES[0]), float(TIMES[-1])
    curve = viewing.json("recordings/0/curves/0", start=start, stop=stop, bins=9)
    edges = np.linspace(start, stop, 10)
    values = 20 + np.arange(COUNT) / 10
    for i in range(9):
        last = i == 8
        inside = (edges[i] <= TIMES) & ((edges[i + 1] > TIMES) | last)
        if inside.any():
            assert curve["low"][i] == pytest.approx(values[inside].min())
            assert curve["high"][i] == pytest.approx(values[inside].max())
        else:
            assert curve["low"][i] is None
            assert curve["high"][i] is None


# What goes wrong while somebody looks.


@pytest.mark.parametrize("format", ["raw/zarr", "avc1/mp4"])
def test_a_damaged_chunk_is_said_and_never_shown(tmp_path: Path, format: str) -> None:
    path = write(tmp_path / "bad", GRAY, format)
    name = "000001.mp4" if format == "avc1/mp4" else "image/c/1/0/0"
    with damaged(path / name), Viewing(path) as running:
        answers = [running.get("recordings/0/frame", position=i, type="png") for i in range(COUNT)]
        bad = [i for i, a in enumerate(answers) if a.headers["content-type"] == "application/json"]
        assert bad
        assert all(16 <= i < 32 for i in bad)
        damage = answers[bad[0]].json()["damaged"]
        assert damage["chunk"] == 1
        assert damage["moment"]["position"] == bad[0]
        assert damage["message"].startswith("bad")
        assert str(tmp_path) not in answers[bad[0]].text
        for i in set(range(COUNT)) - set(bad):
            assert np.abs(decoded(answers[i].content).astype(float) - GRAY[i]).mean() < 6
        assert running.json("changes")["recordings"][0]["damaged"] == len(bad)
        marks = running.json("recordings/0/timeline", bins=10)["problems"]
        at = {mark["start"] for mark in marks if mark["kind"] == "frame-damaged"}
        assert at == {float(TIMES[i]) for i in bad}
        assert "damaged" in running.json("recordings/0/pixels", position=bad[0], y=0, x=0)
        assert "damaged" in running.json("recordings/0/levels", position=bad[0])
        assert "damaged" in running.json("recordings/0/original", position=bad[0])
        running.client.post("recordings/0/movie?start=0&stop=60")
        assert "bad" in finished(running)["trouble"]
        assert str(tmp_path) not in running.get("movie").text


def test_a_missing_chunk_is_on_the_timeline(tmp_path: Path) -> None:
    path = write(tmp_path / "hole", GRAY)
    (path / "image/c/2/0/0").unlink()
    with Viewing(path) as running:
        for _ in range(200):
            line = running.json("recordings/0/timeline", bins=10)
            if line["inspected"]:
                break
            time.sleep(0.05)
        (mark,) = line["problems"]
        assert (mark["kind"], mark["chunk"]) == ("chunk-missing", 2)
        assert (mark["start"], mark["stop"]) == (TIMES[32], TIMES[47])
        assert str(tmp_path) not in json.dumps(line)


def test_a_recording_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    with imgstore_zarr.create(path, "raw/zarr", (96, 128), chunksize=8) as writer:
        for i in range(10):
            writer.add_image(GRAY[i], i, START + i)
        writer.flush()
        with Viewing(path) as running:
            assert running.json("recordings")["recordings"][0]["frames"] == 10
            for i in range(10, 25):
                writer.add_image(GRAY[i], i, START + i)
            writer.flush()
            for _ in range(200):
                (now,) = running.json("changes")["recordings"]
                if now["frames"] == 25:
                    break
                time.sleep(0.05)
            assert (now["frames"], now["generation"], now["trouble"]) == (25, 0, None)
            answer = running.get("recordings/0/frame", position=24, type="png")
            np.testing.assert_array_equal(decoded(answer.content), GRAY[24])
            assert sum(running.json("recordings/0/timeline", bins=4)["frames"]) == 25


def test_a_recording_that_goes_away(tmp_path: Path) -> None:
    path = write(tmp_path / "gone", GRAY)
    with Viewing(path) as running:
        assert running.get("recordings/0/frame", position=0).status_code == 200
        shutil.rmtree(path)
        for _ in range(200):
            (now,) = running.json("changes")["recordings"]
            if now["trouble"]:
                break
            time.sleep(0.05)
        assert "gone" in now["trouble"]
        assert str(tmp_path) not in now["trouble"]
        assert now["frames"] == COUNT
        assert running.get("recordings/0/frame", position=50).status_code == 200


def test_a_recording_of_a_web_server(tmp_path: Path) -> None:
    write(tmp_path / "far.zarr", GRAY)
    write(tmp_path / "video", GRAY, "avc1/mp4")
    place = servers.web(tmp_path)
    with Viewing(place.below("far.zarr").url, place.below("video").url) as running:
        zarr, video = running.json("recordings")["recordings"]
        assert (zarr["name"], zarr["frames"], video["frames"]) == ("far.zarr", COUNT, COUNT)
        answer = running.get("recordings/0/frame", position=33, type="png")
        np.testing.assert_array_equal(decoded(answer.content), GRAY[33])
        answer = running.get("recordings/1/frame", position=33, type="png")
        assert np.abs(decoded(answer.content).astype(float) - GRAY[33]).mean() < 4
        (tmp_path / "far.zarr/image/c/3/0/0").unlink()
        gone = running.get("recordings/0/frame", position=55)
        assert gone.json()["damaged"]["chunk"] == 3
        assert place.url not in gone.text


def test_a_recording_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    imgstore_zarr.create(path, "raw/zarr", (8, 8)).close()
    with Viewing(path) as running:
        facts = running.json("recordings")["recordings"][0]
        assert (facts["frames"], facts["first"]) == (0, None)
        assert running.json("recordings/0/timeline")["problems"] == []
        assert running.get("recordings/0/frame", position=0).status_code == 404
        assert running.json("recordings/0/find", number=3) == {"frame": None, "nearest": None}


# How it begins and ends.


def command(
    *arguments: str | Path, name: str = "imgstore-zarr"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script(name), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_a_port_that_is_taken(viewing: Viewing, folder: Path) -> None:
    done = command("view", folder / "gray.zarr", "--no-browser", "--port", str(viewing.port))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "--port" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_asked_for(folder: Path, viewing: Viewing) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Viewing(folder / "gray.zarr", "--port", str(port)) as running:
        assert running.port == port
        assert running.json("recordings")


def test_no_recording(tmp_path: Path) -> None:
    done = command("view", tmp_path / "nothing", "--no-browser")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""
    assert command("view").returncode == 2


def test_ctrl_c_ends_it(folder: Path, viewing: Viewing) -> None:
    with Viewing(folder / "gray.zarr") as running:
        assert running.json("recordings")
        assert running.end() == 0
        assert running.stderr() == ""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_whatever_ends_it_leaves_nothing_behind(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    recording = record(np.random.default_rng(1).integers(0, 255, (300, 240, 320), np.uint8))
    number = getattr(signal, name)
    # Where the tests run in the background it may be ignored, which a process inherits.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with Viewing(recording) as running:
            assert running.client.post("recordings/0/movie?start=0&stop=300").status_code == 200
            assert [*tmp_path.glob("imgstore-view-*")]
            running.process.send_signal(number)
            assert running.process.wait(30) == 0
            assert running.stderr() == ""
    finally:
        signal.signal(number, before)
    assert [*tmp_path.glob("imgstore-view-*")] == []


def test_the_page_ends_it(folder: Path, viewing: Viewing) -> None:
    with Viewing(folder / "gray.zarr") as running:
        assert running.client.post("quit").json() == {}
        assert running.process.wait(30) == 0
        assert running.stderr() == ""


def test_the_script_takes_what_imgstore_takes(folder: Path, viewing: Viewing) -> None:
    options = ["--fps", "12.5", "--hide-statusbar"]
    with Viewing(folder / "gray.zarr", *options, command=("imgstore-view",)) as running:
        begin = running.json("recordings")["begin"]
        assert begin == {"fps": 12.5, "playing": True, "status_bar": False}
        assert "no display" in "".join(running.process.stdout.readline() for _ in range(2))  # type: ignore[union-attr]
    with Viewing(folder / "gray.zarr", command=("imgstore-view",)) as running:
        assert running.json("recordings")["begin"]["fps"] == 30
    assert command("a", "b", name="imgstore-view").returncode == 2


def test_without_the_extra(folder: Path, viewing: Viewing) -> None:
    code = (
        "import sys; sys.modules['starlette'] = sys.modules['uvicorn'] = None\n"
        "from imgstore_zarr.cli import main\n"
        f"sys.argv = ['imgstore-zarr', 'view', {str(folder / 'gray.zarr')!r}]\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "pip install 'imgstore-zarr[viewer]'" in done.stderr
    assert done.stderr.count("\n") == 1

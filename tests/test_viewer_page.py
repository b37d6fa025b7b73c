"""The page of the viewer, driven in a real Chromium."""

from __future__ import annotations

import io
import json
import os
import re
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr.cli.scene import RATE, moments
from tests.campaign import rounds
from tests.chromium import chromium, needs_chromium
from tests.ffmpeg import needs_ffmpeg
from tests.ffmpeg import times as video_times
from tests.videos import barcode, read_barcode, scene
from tests.viewing import Viewing, damaged

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [needs_chromium, pytest.mark.timeout(1200)]

START = 1_700_000_000.0
SHAPE = (96, 128)
COUNT = 200
SKIPPED = range(120, 140)
NUMBERS = np.array([n for n in range(100, 100 + COUNT + len(SKIPPED)) if n - 100 not in SKIPPED])
TIMES = START + NUMBERS / 25
PICTURES = Path(__file__).parents[1] / "docs"
UPDATE = os.environ.get("IMGSTORE_UPDATE_PICTURES") == "1"

WIDTH = 1100
"""Of pictures in the documentation."""

SCRUBS = rounds(150)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames with a barcode of their position, uint8."""
    path = tmp_path_factory.mktemp("barcodes") / "bars.zarr"
    return write(path, scene(COUNT, SHAPE), temperature=True)


def write(
    path: Path,
    images: NDArray[Any],
    format: str = "zstd/zarr",
    *,
    numbers: NDArray[np.int64] = NUMBERS,
    times: NDArray[np.float64] = TIMES,
    chunksize: int = 32,
    temperature: bool = False,
) -> Path:
    with imgstore_zarr.create(
        path, format, images.shape[1:], images.dtype, chunksize=chunksize
    ) as writer:
        for i, image in enumerate(images):
            writer.add_image(image, int(numbers[i]), float(times[i]))
            if temperature:
                writer.add_extra_data(temperature=20 + i / 10, humidity=50 - i / 20)
    return path


class Looked:
    """A page that is open, with everything that went wrong in it."""

    def __init__(self, page: Page, viewing: Viewing) -> None:
        self.page, self.viewing = page, viewing
        self.wrong: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(viewing.url)
        self.settle()

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.wrong.append(f"{kind}: {text}")

    def canvas(self, recording: int = 0) -> Any:
        return self.page.locator(".pane canvas").nth(recording)

    def settle(self, recording: int = 0) -> None:
        """Wait until a frame is there in the size of the screen."""
        self.page.wait_for_selector(
            f":nth-match(.pane canvas, {recording + 1})"
            ":is([data-quality=sharp], [data-quality=damaged])",
            timeout=60_000,
        )

    def wait_for(self, position: int, recording: int = 0) -> None:
        """Wait until a position is shown, sharp."""
        self.page.wait_for_selector(
            f':nth-match(.pane canvas, {recording + 1})[data-position="{position}"]'
            ":is([data-quality=sharp], [data-quality=damaged])",
            timeout=60_000,
        )

    def position(self, recording: int = 0) -> int:
        return int(self.canvas(recording).get_attribute("data-position"))

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def picture(self, recording: int = 0) -> NDArray[np.uint8]:
        """The pixels of the screen where the image is, BGR, when the whole image is shown."""
        png = self.canvas(recording).screenshot()
        screen = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        assert screen is not None
        height, width = screen.shape[:2]
        facts = self.viewing.json("recordings")["recordings"][recording]
        scale = min(width / facts["width"], height / facts["height"])
        y, x = round(facts["height"] * scale), round(facts["width"] * scale)
        top, left = (height - y) // 2, (width - x) // 2
        return np.asarray(screen[top : top + y, left : left + x], np.uint8)

    def barcode(self, recording: int = 0) -> int:
        """The number that is seen in the upper half of the image."""
        image = self.picture(recording)
        # The name of the recording is at the upper left corner.
        band = image[image.shape[0] // 4 : image.shape[0] * 2 // 5]
        wide = band.shape[1] - band.shape[1] % 16
        return read_barcode(np.asarray(cv2.resize(band, (wide, band.shape[0])), np.uint8))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def place(self, value: float) -> tuple[float, float]:
        """Where a frame time is on the timeline, as a place on the page."""
        box = self.page.locator("#timeline-canvas").bounding_box()
        assert box is not None
        line = self.viewing.json("recordings/0/timeline", bins=1)
        start, stop = line["extent"]
        return box["x"] + (value - start) / (stop - start) * box["width"], box["y"] + 12


@contextmanager
def looking(
    browser: Browser, *arguments: str | Path, wrong: str | None = None, **options: Any
) -> Iterator[Looked]:
    """Open the page, and see afterwards that nothing went wrong in it but what matches `wrong`."""
    settings = {"viewport": {"width": 1280, "height": 800}} | options
    with Viewing(*arguments) as viewing:
        context = browser.new_context(**settings)
        try:
            looked = Looked(context.new_page(), viewing)
            yield looked
            unexpected = [w for w in looked.wrong if wrong is None or not re.search(wrong, w)]
            assert unexpected == []
            outside = [url for url in looked.asked if not url.startswith((viewing.url, "blob:"))]
            assert outside == []
        finally:
            context.close()


@pytest.fixture(scope="module")
def shared(browser: Browser, recording: Path) -> Iterator[Looked]:
    with looking(browser, recording) as looked:
        yield looked


@pytest.fixture
def looked(shared: Looked) -> Looked:
    """The page, as it is when it was opened just now."""
    shared.page.reload()
    shared.page.wait_for_selector(".pane canvas[data-position='0'][data-quality=sharp]")
    shared.page.wait_for_selector("#curves div.curve:nth-child(2)")
    return shared


# The frames that are shown.


def test_the_first_frame_and_what_is_said_of_it(looked: Looked) -> None:
    assert looked.barcode() == 0
    assert looked.text("#number") == "#100"
    facts = looked.viewing.json("recordings")["recordings"][0]
    assert looked.text("#local") == facts["first"]["local"]
    assert looked.text("#place").startswith("0 of 200")
    assert looked.text("#speed-text") == "25 frames/s"
    assert looked.text("#title") == "bars.zarr"
    assert "zstd/zarr" in looked.text("#subtitle")
    assert "128 \u00d7 96" in looked.text("#facts")


@pytest.mark.parametrize(
    ("keys", "position"),
    [
        (["ArrowRight"], 1),
        (["ArrowRight"] * 7, 7),
        (["ArrowRight", "ArrowRight", "ArrowLeft"], 1),
        (["ArrowLeft"], 0),
        (["Shift+ArrowRight"] * 2, 20),
        (["Shift+ArrowRight", "Shift+ArrowLeft"], 0),
        (["End"], 199),
        (["End", "ArrowRight"], 199),
        (["End", "Shift+ArrowLeft"], 189),
        (["End", "Home"], 0),
    ],
)
def test_keys_that_move(looked: Looked, keys: list[str], position: int) -> None:
    looked.press(*keys)
    looked.wait_for(position)
    assert looked.barcode() == position
    assert looked.text("#number") == f"#{NUMBERS[position]}"
    assert looked.page.get_attribute("#timeline", "aria-valuenow") == str(position)


def test_keys_that_lead_to_gaps(looked: Looked) -> None:
    looked.press("n")
    looked.wait_for(120)
    looked.press("n")
    looked.page.wait_for_function(
        "() => document.getElementById('status').textContent.includes('No gap or damage')"
    )
    looked.press("End")
    looked.wait_for(199)
    looked.press("b")
    looked.wait_for(120)
    assert looked.barcode() == 120


@pytest.mark.parametrize(
    ("buttons", "position"),
    [(["forward"] * 3, 3), (["last"], 199), (["last", "back"], 198), (["last", "first"], 0)],
)
def test_buttons_that_move(looked: Looked, buttons: list[str], position: int) -> None:
    for button in buttons:
        looked.page.click(f"#{button}")
    looked.wait_for(position)
    assert looked.barcode() == position


@pytest.mark.parametrize(
    ("kind", "given", "position"),
    [
        ("position", "150", 150),
        ("number", "245", 125),
        ("time", "+1.0", 25),
        ("time", repr(float(TIMES[77])), 77),
    ],
)
def test_going_to_a_frame(looked: Looked, kind: str, given: str, position: int) -> None:
    looked.page.select_option("#jump-kind", kind)
    looked.page.locator("#jump-kind").blur()
    looked.press("g")
    looked.page.keyboard.type(given)
    looked.press("Enter")
    looked.wait_for(position)
    assert looked.barcode() == position


def test_going_by_the_clock(looked: Looked) -> None:
    local = looked.viewing.json("recordings/0/find", position=88)["frame"]["local"]
    looked.page.select_option("#jump-kind", "time")
    looked.page.fill("#jump-text", local[:23])
    looked.page.click("#jump button")
    looked.wait_for(88)


def test_going_where_nothing_is(looked: Looked) -> None:
    looked.page.fill("#jump-text", "225")
    looked.press("Enter")
    looked.page.wait_for_function("() => document.getElementById('status').textContent")
    assert "There is no frame 225; the nearest is 219" in looked.text("#status")
    looked.page.fill("#jump-text", "soon")
    looked.press("Enter")
    looked.page.wait_for_function(
        "() => document.getElementById('status').textContent.includes('integer')"
    )
    assert looked.position() == 0


def test_dragging_along_the_timeline(looked: Looked) -> None:
    qualities = looked.page.evaluate_handle(
        """() => {
            const seen = [];
            document.addEventListener("shown", ({ target, detail }) =>
                seen.push([detail.position, target.dataset.quality]));
            return seen;
        }"""
    )
    x, y = looked.place(float(TIMES[10]))
    looked.page.mouse.move(x, y)
    looked.page.mouse.down()
    for position in (30, 60, 90, 160, 175):
        looked.page.mouse.move(*looked.place(float(TIMES[position])))
        looked.page.wait_for_timeout(120)
    looked.page.mouse.up()
    looked.page.wait_for_selector(".pane canvas[data-quality=sharp]")
    at = looked.position()
    assert abs(at - 175) <= 1
    looked.wait_for(at)
    assert looked.barcode() == at
    seen = qualities.json_value()
    assert [kind for _, kind in seen].count("preview") >= 3
    assert seen[-1] == [at, "sharp"]


def test_a_small_picture_where_the_pointer_is(looked: Looked) -> None:
    looked.page.mouse.move(*looked.place(float(TIMES[50])))
    looked.page.wait_for_function("() => document.getElementById('peek-text').textContent")
    assert looked.page.is_visible("#peek")
    number = int(looked.text("#peek-text").split(" ")[0])
    assert abs(number - NUMBERS[50]) <= 1
    looked.page.mouse.move(*looked.place(float(TIMES[119]) + 0.4))
    looked.page.wait_for_function(
        "() => document.getElementById('peek-text').textContent.includes('20 frames dropped')"
    )
    looked.page.mouse.move(640, 200)
    assert not looked.page.is_visible("#peek")


# Playing.


def test_playing_shows_every_frame_in_order(looked: Looked) -> None:
    seen = looked.page.evaluate_handle(
        """() => {
            const seen = [];
            document.addEventListener("shown", ({ detail }) => seen.push(detail.position));
            return seen;
        }"""
    )
    looked.press(" ")
    assert looked.page.get_attribute("#play", "aria-label") == "Pause"
    looked.page.wait_for_function("seen => seen.length >= 40", arg=seen)
    looked.press(" ")
    # Before, the first one may have been shown again, in another size.
    shown = [position for position in seen.json_value() if position]
    assert shown[:39] == list(range(1, 40))
    at = looked.position()
    looked.wait_for(at)
    assert looked.barcode() == at
    looked.page.wait_for_timeout(300)
    assert looked.position() == at


def test_a_range_is_played_again_and_again(looked: Looked) -> None:
    seen = looked.page.evaluate_handle(
        """() => {
            const seen = [];
            document.addEventListener("shown", ({ detail }) => seen.push(detail.position));
            return seen;
        }"""
    )
    looked.press("Shift+ArrowRight")
    looked.wait_for(10)
    looked.press("i", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight")
    looked.wait_for(14)
    looked.press("o", "l", "ArrowUp")
    assert looked.page.get_attribute("#loop", "aria-pressed") == "true"
    assert looked.page.input_value("#speed") == "2"
    before = len(seen.json_value())
    looked.press(" ")
    looked.page.wait_for_function("([seen, n]) => seen.length >= n", arg=[seen, before + 12])
    looked.press(" ")
    played = seen.json_value()[before : before + 12]
    assert played == [10, 11, 12, 13, 14, 10, 11, 12, 13, 14, 10, 11]
    looked.press("l")
    looked.page.click("#play")
    looked.page.wait_for_selector("#play[aria-pressed=false]")
    assert looked.position() == 14


def test_speed(looked: Looked) -> None:
    looked.press("ArrowDown", "ArrowDown")
    assert looked.page.input_value("#speed") == "0.25"
    assert looked.text("#speed-text") == "6.25 frames/s"
    looked.page.select_option("#speed", "16")
    looked.page.locator("#speed").blur()
    looked.press(" ")
    looked.page.wait_for_selector("#play[aria-pressed=false]")
    # Not every frame can be shown at 400 frames/s.
    assert looked.position() >= 190


# The image.


def test_zoom_and_pan(looked: Looked) -> None:
    box = looked.canvas().bounding_box()
    # The middle of the image stays where it is.
    looked.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    looked.press("1")
    assert looked.text(".zoom") == "100 %"
    looked.press("+", "+")
    assert looked.text(".zoom") == "225 %"
    looked.page.mouse.wheel(0, -700)
    looked.page.wait_for_function(
        "() => parseInt(document.querySelector('.zoom').textContent) > 900"
    )
    before = looked.page.inner_text("#pixel-place")
    looked.page.mouse.down()
    looked.page.mouse.move(box["x"] + box["width"] / 2 + 120, box["y"] + box["height"] / 2, steps=4)
    looked.page.mouse.up()
    looked.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    looked.page.wait_for_function(
        "before => document.getElementById('pixel-place').textContent !== before", arg=before
    )
    x0, x1 = (int(re.search(r"x (\d+)", t)[1]) for t in (looked.text("#pixel-place"), before))  # type: ignore[index]
    assert x0 < x1
    looked.press("d", "w", "a", "s", "-")
    looked.press("f")
    assert not looked.page.is_visible(".zoom")
    looked.wait_for(0)
    assert looked.barcode() == 0


def test_single_pixels_are_exact_on_the_screen(looked: Looked, recording: Path) -> None:
    looked.press("1", *"++++++++")
    # Only what is seen is asked for, without loss.
    looked.page.wait_for_function(
        "() => parseInt(document.querySelector('.zoom').textContent) > 2000"
    )
    with looked.page.expect_response(lambda r: "type=png" in r.url and "window=" in r.url):
        looked.press("+")
    looked.page.wait_for_timeout(400)
    box = looked.canvas().bounding_box()
    screen = cv2.imdecode(np.frombuffer(looked.canvas().screenshot(), np.uint8), 0)
    assert screen is not None
    with imgstore_zarr.open(recording) as store:
        image = store.frames[0]
    for dx, dy in [(-150, -100), (0, 0), (130, 90), (200, -60), (-220, 140)]:
        x, y = box["width"] / 2 + dx, box["height"] / 2 + dy
        looked.page.mouse.move(box["x"] + x, box["y"] + y)
        looked.page.wait_for_timeout(150)
        px, py = map(int, re.findall(r"\d+", looked.text("#pixel-place")))
        assert int(looked.text("#pixel-value")) == image[py, px]
        assert screen[round(y), round(x)] == image[py, px]


def test_the_pixel_that_the_keyboard_points_at(looked: Looked, recording: Path) -> None:
    with imgstore_zarr.open(recording) as store:
        images = store.frames[:5]
    looked.press("p")
    assert looked.text("#pixel-place") == "x 64, y 48"
    looked.press("Alt+ArrowRight", "Alt+Shift+ArrowDown", "Alt+ArrowUp")
    assert looked.text("#pixel-place") == "x 65, y 57"
    value = "() => document.getElementById('pixel-value').textContent === String(%d)"
    looked.page.wait_for_function(value % images[0, 57, 65])
    cells = looked.page.locator("#pixel-table td").all_inner_texts()
    assert [int(c) for c in cells] == images[0, 55:60, 63:68].ravel().tolist()
    looked.press("ArrowRight", "ArrowRight")
    looked.wait_for(2)
    looked.page.wait_for_function(value % images[2, 57, 65])


# Contrast.


def moving_half(looked: Looked, recording: int = 0) -> NDArray[np.float64]:
    """The lower half of the image on the screen, without its edge."""
    image = looked.picture(recording).astype(float)
    height = image.shape[0]
    return np.asarray(image[height * 55 // 100 : height * 95 // 100, 10:-40])


def test_levels_gamma_and_colors(looked: Looked) -> None:
    plain = moving_half(looked)
    assert np.ptp(plain, axis=2).max() <= 2
    looked.page.fill("#black", "100")
    looked.page.fill("#white", "140")
    looked.press("Tab")
    looked.page.wait_for_timeout(500)
    steep = moving_half(looked)
    assert steep.std() > 2 * plain.std()
    looked.page.click("#reset")
    looked.page.wait_for_timeout(500)
    assert np.abs(moving_half(looked) - plain).mean() < 1
    looked.page.locator("#gamma").fill("40")
    looked.page.wait_for_timeout(500)
    assert looked.text("#gamma-text") == "2.51"
    assert moving_half(looked).mean() > plain.mean() + 20
    looked.page.click("#reset")
    looked.page.locator("#reset").blur()
    looked.press("m")
    looked.page.wait_for_timeout(500)
    assert looked.page.input_value("#map") == "viridis"
    assert np.ptp(moving_half(looked), axis=2).mean() > 30
    looked.page.select_option("#map", "gray")
    looked.page.locator("#map").blur()
    looked.press("u")
    looked.page.wait_for_timeout(500)
    levels = looked.viewing.json("recordings/0/levels", position=0)
    assert float(looked.page.input_value("#black")) == pytest.approx(levels["black"])
    assert float(looked.page.input_value("#white")) == pytest.approx(levels["white"])
    looked.page.locator("#white-slider").fill("500")
    looked.page.wait_for_timeout(300)
    assert float(looked.page.input_value("#white")) == 128
    looked.press("c")
    assert not looked.page.is_visible("#panel")


def test_uint16_is_seen_at_once(browser: Browser, tmp_path: Path) -> None:
    images = scene(8, SHAPE).astype(np.uint16) * 3 + 200
    path = write(tmp_path / "deep", images)
    with looking(browser, path) as looked:
        assert looked.barcode() == 0
        picture = looked.picture()
        assert picture.min() < 10
        assert picture.max() > 245
        looked.press("ArrowRight")
        looked.wait_for(1)
        assert looked.barcode() == 1
        looked.press("p")
        looked.page.wait_for_function(
            f"() => document.getElementById('pixel-value').textContent === '{images[1, 48, 64]}'"
        )


# Extra data, several recordings.


def test_curves_and_their_cursor(looked: Looked) -> None:
    assert looked.page.locator("#channels button").all_inner_texts() == ["temperature", "humidity"]
    assert looked.page.locator("#curves canvas").count() == 2
    looked.page.click("#channels button:nth-child(1)")
    assert looked.page.locator("#curves canvas").count() == 1
    looked.page.click("#channels button:nth-child(1)")
    looked.press("End")
    looked.wait_for(199)
    canvas = looked.page.locator("#curves canvas").first
    box = canvas.bounding_box()
    assert box is not None
    looked.page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + 30)
    looked.page.wait_for_function(
        "() => document.querySelector('.pane canvas').dataset.position < 100"
    )
    expected = np.abs(TIMES - (TIMES[0] + (TIMES[-1] - TIMES[0]) * 0.25)).argmin()
    looked.wait_for(looked.position())
    assert abs(looked.position() - expected) <= 1


def test_recordings_are_locked_in_time(browser: Browser, tmp_path: Path, recording: Path) -> None:
    # Every second frame, and it begins and ends within the other one.
    part = slice(20, 180, 2)
    other = write(
        tmp_path / "other",
        scene(COUNT, SHAPE)[part],
        numbers=NUMBERS[part],
        times=TIMES[part] + 0.004,
    )
    apart = write(tmp_path / "apart", scene(50, SHAPE), times=TIMES[:50] + 1e6)
    with looking(browser, recording, other, apart) as looked:
        looked.page.wait_for_selector("#curves div.curve:nth-child(2)")
        for position in (60, 81, 150, 0, 199):
            looked.page.select_option("#jump-kind", "position")
            looked.page.fill("#jump-text", str(position))
            looked.press("Enter")
            looked.wait_for(position)
            nearest = int(np.abs(TIMES[part] + 0.004 - TIMES[position]).argmin())
            looked.wait_for(nearest, 1)
            looked.wait_for(min(position, 49), 2)
            assert looked.barcode(0) == position
            assert looked.barcode(1) == 20 + 2 * nearest
            assert looked.barcode(2) == min(position, 49)
        looked.page.select_option("#jump-kind", "position")
        looked.page.fill("#jump-text", "60")
        looked.press("Enter")
        looked.wait_for(20, 1)
        assert "+4.0 ms" in looked.page.locator(".pane .label").nth(1).inner_text()
        looked.press("Home")
        looked.wait_for(0)
        looked.press(" ")
        looked.page.wait_for_function(
            "() => [...document.querySelectorAll('.pane canvas')][0].dataset.position > 60"
        )
        looked.press(" ")
        at = looked.position()
        looked.wait_for(int(np.abs(TIMES[part] + 0.004 - TIMES[at]).argmin()), 1)
        assert looked.barcode(0) == at
        # The keys that change the contrast are for the recording that is active.
        looked.press("r")
        assert looked.text("#contrast-name") == "other"
        looked.press("m")
        looked.page.wait_for_timeout(500)
        assert np.ptp(moving_half(looked, 1), axis=2).mean() > 30
        assert np.ptp(moving_half(looked, 0), axis=2).max() <= 2


# Files.


def test_saving_a_frame(looked: Looked, recording: Path, tmp_path: Path) -> None:
    looked.press("End")
    looked.wait_for(199)
    with looked.page.expect_download() as waiting:
        looked.press("k")
    assert waiting.value.suggested_filename == "bars.zarr-319.png"
    waiting.value.save_as(tmp_path / "frame.png")
    with imgstore_zarr.open(recording) as store:
        saved = cv2.imread(str(tmp_path / "frame.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(saved, store.frames[199])


@needs_ffmpeg
def test_saving_a_movie(looked: Looked, tmp_path: Path) -> None:
    looked.press("e")
    looked.page.fill("#movie-start", "20")
    looked.page.fill("#movie-stop", "59")
    looked.page.fill("#movie-rate", "10")
    with looked.page.expect_download() as waiting:
        looked.press("Enter")
    assert waiting.value.suggested_filename == "bars.zarr-20-59.mp4"
    waiting.value.save_as(tmp_path / "movie.mp4")
    assert len(video_times(tmp_path / "movie.mp4")) == 40
    looked.page.wait_for_function(
        "() => document.getElementById('movie-text').textContent.includes('Saved')"
    )
    looked.page.fill("#movie-stop", "5")
    looked.page.click("#movie-go")
    assert "must not be before" in looked.text("#movie-text")
    looked.press("Escape")
    assert not looked.page.is_visible("#movie")
    # Escape closed the dialog, and not the viewer.
    assert looked.viewing.json("recordings")


# Help, keyboard alone, ends.


def test_help(looked: Looked) -> None:
    looked.press("?")
    assert looked.page.is_visible("#help")
    assert "Play, pause" in looked.text("#help")
    looked.press("ArrowRight", "Escape")
    assert not looked.page.is_visible("#help")
    assert looked.position() == 0


def test_everything_is_reached_by_tab(looked: Looked) -> None:
    reached = []
    for _ in range(60):
        looked.press("Tab")
        here = looked.page.evaluate(
            """() => {
                const at = document.activeElement;
                const style = getComputedStyle(at);
                const name = at.getAttribute("aria-label") || at.textContent.trim()
                    || at.labels?.[0]?.textContent;
                return [at.id || at.tagName, style.outlineStyle, name ?? ""];
            }"""
        )
        if here[0] == "BODY":
            break
        reached.append(here)
    ids = [name for name, _, _ in reached]
    wanted = looked.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, [tabindex]")]
            .filter((e) => e.offsetParent && e.tabIndex >= 0 && !e.disabled)
            .map((e) => e.id || e.tagName)"""
    )
    assert sorted(set(wanted)) == sorted(set(ids))
    assert all(outline != "none" for _, outline, _ in reached)
    assert all(label for _, _, label in reached)


@pytest.mark.parametrize("key", ["q", "Escape"])
def test_the_keyboard_ends_it(browser: Browser, recording: Path, key: str) -> None:
    with looking(browser, recording) as looked:
        looked.press(key)
        looked.page.wait_for_selector("#ended:not([hidden])")
        assert looked.viewing.process.wait(30) == 0


def test_the_page_sees_that_it_has_ended(browser: Browser, recording: Path) -> None:
    with looking(browser, recording, wrong="ERR_") as looked:
        assert looked.viewing.end() == 0
        looked.page.wait_for_selector("#ended:not([hidden])", timeout=60_000)


def test_as_imgstore_plays(browser: Browser, recording: Path) -> None:
    with Viewing(
        recording, "--fps", "0", "--hide-statusbar", command=("imgstore-view",)
    ) as viewing:
        page = browser.new_page()
        page.goto(viewing.url)
        page.wait_for_function(
            "() => document.querySelector('.pane canvas')?.dataset.position === '199'"
        )
        assert not page.is_visible("#readout")
        page.close()


# Recordings that break or grow.


def test_a_damaged_frame_is_a_card_and_not_a_picture(browser: Browser, tmp_path: Path) -> None:
    path = write(tmp_path / "bad", scene(COUNT, SHAPE))
    with damaged(path / "image/c/1/0/0"), looking(browser, path) as looked:
        bad = [
            i
            for i in range(32, 64)
            if "damaged" in looked.viewing.get("recordings/0/frame", position=i).text
        ]
        assert bad
        looked.page.select_option("#jump-kind", "position")
        looked.page.fill("#jump-text", str(bad[0] - 1))
        looked.press("Enter")
        looked.wait_for(bad[0] - 1)
        looked.press("ArrowRight")
        looked.wait_for(bad[0])
        assert looked.canvas().get_attribute("data-quality") == "damaged"
        card = looked.text(".card")
        assert "cannot be read" in card
        assert "Chunk 1" in card
        assert f"position {bad[0]}" in card
        assert str(tmp_path) not in card
        # Nothing of another frame is left behind the card.
        drawn = looked.page.evaluate(
            """() => {
                const canvas = document.querySelector(".pane canvas");
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                return data.some((value) => value !== 0);
            }"""
        )
        assert not drawn
        # Playing goes on over it.
        looked.press(" ")
        looked.page.wait_for_function(
            f"() => document.querySelector('.pane canvas').dataset.position > {bad[-1] + 5}"
        )
        looked.press(" ")
        at = looked.position()
        looked.wait_for(at)
        assert looked.barcode() == at
        assert not looked.page.is_visible(".card")


def test_a_recording_that_grows_and_goes(browser: Browser, tmp_path: Path) -> None:
    images = scene(COUNT, SHAPE)
    path = tmp_path / "growing"
    with imgstore_zarr.create(path, "raw/zarr", SHAPE, chunksize=16) as writer:
        for i in range(20):
            writer.add_image(images[i], i, START + i / 25)
        writer.flush()
        with looking(browser, path) as looked:
            assert "of 20" in looked.text("#place")
            for i in range(20, 60):
                writer.add_image(images[i], i, START + i / 25)
            writer.flush()
            looked.page.wait_for_function(
                "() => document.getElementById('place').textContent.includes('of 60')",
                timeout=60_000,
            )
            assert looked.position() == 0
            looked.press("End")
            looked.wait_for(59)
            assert looked.barcode() == 59
            path.rename(tmp_path / "elsewhere")
            looked.page.wait_for_selector("#notice:not([hidden])", timeout=60_000)
            assert "growing" in looked.text("#notice")
            assert str(tmp_path) not in looked.text("#notice")
            (tmp_path / "elsewhere").rename(path)
            looked.page.wait_for_selector("#notice", state="hidden", timeout=60_000)
            looked.press("Home")
            looked.wait_for(0)


# Memory and rates.


@pytest.fixture(scope="module")
def motif(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Motif recording of 1024 x 1024, with a barcode in each frame."""
    path = tmp_path_factory.mktemp("motif") / "motif"
    rng = np.random.default_rng(3)
    ground = cv2.GaussianBlur(rng.integers(0, 255, (1024, 2048), dtype=np.uint8), (0, 0), 3)
    with imgstore_zarr.create(path, "avc1/mp4", (1024, 1024), chunksize=250, fps=25) as writer:
        for i in range(500):
            image = ground[:, 2 * i % 1024 : 2 * i % 1024 + 1024].copy()
            image[:512] = barcode(i, (512, 1024))
            writer.add_image(image, i, START + i / 25)
    return path


MEASURE = """
async (places) => {
    const canvas = document.querySelector("#timeline-canvas");
    const box = canvas.getBoundingClientRect();
    const point = (kind, x) => canvas.dispatchEvent(new PointerEvent(kind, {
        clientX: box.left + x * box.width, clientY: box.top + 12, button: 0, buttons: 1,
        pointerId: 1, bubbles: true,
    }));
    canvas.setPointerCapture = () => {};
    const took = [];
    point("pointerdown", places[0]);
    for (const x of places.slice(1)) {
        const begun = performance.now();
        const shown = new Promise((resolve) =>
            document.addEventListener("shown", resolve, { once: true }));
        point("pointermove", x);
        await shown;
        // What is on the canvas now is on the screen with its next picture.
        await new Promise((resolve) => requestAnimationFrame(resolve));
        took.push(performance.now() - begun);
        await new Promise((resolve) => setTimeout(resolve, 150));
    }
    point("pointerup", places.at(-1));
    return took;
}
"""


def test_how_fast_scrubbing_and_playing_are(
    browser: Browser, motif: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Printed, and written to docs/benchmarks.md by whoever runs it; counted here."""
    with looking(browser, motif) as looked:
        places = np.random.default_rng(5).uniform(0.01, 0.99, 41).tolist()
        looked.asked.clear()
        took = looked.page.evaluate(MEASURE, places)
        looked.settle()
        at = looked.position()
        looked.wait_for(at)
        assert looked.barcode() == at
        frames = [url for url in looked.asked if "/frame?" in url]
        # At most a preview and a sharp picture for each place.
        assert 40 <= len(frames) <= 2 * 41 + 2
        looked.press("Home")
        looked.wait_for(0)
        looked.asked.clear()
        looked.press(" ")
        looked.page.wait_for_function(
            "() => document.querySelector('.pane canvas').dataset.position >= 200", timeout=120_000
        )
        rate = looked.text("#speed-text")
        looked.press(" ")
        asked = [u for u in looked.asked if "/frame?" in u and "ahead=" in u]
        # Every frame is asked for once.
        assert 200 <= len(asked) <= looked.position() + 12
        assert len(set(asked)) == len(asked)
    with capsys.disabled():
        ordered = sorted(took)
        print(
            f"\nscrubbing 1024 x 1024 Motif video: median {statistics.median(took):.0f} ms to the next "
            f"frame on the screen, 90 % below {ordered[int(0.9 * len(ordered))]:.0f} ms; playing: {rate}"
        )


def test_scrubbing_for_long_leaves_memory_bounded(browser: Browser, motif: Path) -> None:
    with looking(browser, motif) as looked:
        session = looked.page.context.new_cdp_session(looked.page)

        def heap() -> float:
            session.send("HeapProfiler.collectGarbage")
            used = session.send("Runtime.getHeapUsage")
            return float(used["usedSize"]) + float(used.get("backingStorageSize", 0))

        places = np.random.default_rng(9).uniform(0.01, 0.99, SCRUBS + 60).tolist()
        quick = MEASURE.replace("setTimeout(resolve, 150)", "setTimeout(resolve, 1)")
        looked.page.evaluate(quick, places[:60])
        server, page = looked.viewing.memory, heap()
        looked.page.evaluate(quick, places[60:])
        looked.page.wait_for_selector(".pane canvas[data-quality=sharp]")
        at = looked.position()
        looked.wait_for(at)
        assert looked.barcode() == at
        # 192 MiB of frames and pictures, and the caches of the decoder. Those of the page are not in
        # its heap, but what leads to them is.
        assert looked.viewing.memory - server < 320 * 2**20
        assert heap() - page < 8 * 2**20


# Screenshots for the documentation.


@pytest.fixture(scope="module")
def geckos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """What a behaviour experiment looks like: video, the same scene in uint16, and a damaged one."""
    folder = tmp_path_factory.mktemp("geckos")
    overhead, infrared = folder / "overhead", folder / "infrared.zarr"
    shape = (600, 800)
    with (
        imgstore_zarr.create(overhead, "avc1/mp4", shape, chunksize=60, fps=RATE) as video,
        imgstore_zarr.create(infrared, "zstd/zarr", shape, np.uint16, chunksize=60) as deep,
    ):
        for moment in moments(240, shape, start=1_790_000_000.0):
            # Without the grain of the sensor, which makes pictures large.
            calm = cv2.GaussianBlur(moment.image, (0, 0), 1.2)
            video.add_image(calm, moment.frame_number, moment.frame_time)
            temperature = round(moment.temperature, 2)
            video.add_extra_data(temperature=temperature)
            if moment.frame_number % 2 == 0:
                heat = 9000 + 14 * (255 - calm[:, ::-1].astype(np.uint16))
                deep.add_image(heat, moment.frame_number // 2, moment.frame_time + 0.003)
    broken = folder / "damaged"
    subprocess.run(["cp", "-r", str(overhead), str(broken)], check=True)
    chunk = broken / "000001.mp4"
    good = chunk.read_bytes()
    chunk.write_bytes(good[: len(good) // 2] + bytes(30_000) + good[len(good) // 2 + 30_000 :])
    return overhead, infrared, broken


def one(looked: Looked) -> None:
    looked.press("p", "Alt+Shift+ArrowLeft", "Alt+Shift+ArrowUp")


def several(looked: Looked) -> None:
    looked.press("r", "m", "m")
    looked.page.mouse.move(*looked.place(1_790_000_000.0 + 7.5))
    looked.page.wait_for_function("() => document.getElementById('peek-text').textContent")


def broken(looked: Looked) -> None:
    bad = next(
        i
        for i in range(60, 120)
        if "damaged" in looked.viewing.get("recordings/0/frame", position=i, width=64).text
    )
    looked.page.select_option("#jump-kind", "position")
    looked.page.fill("#jump-text", str(bad))
    looked.press("Enter")
    for position in range(bad, bad + 6):
        looked.wait_for(position)
        looked.press("ArrowRight")
    looked.page.fill("#jump-text", "")
    looked.page.locator("#jump-text").blur()
    # The mark of the frame is on the timeline by then.
    looked.page.wait_for_timeout(3500)


@pytest.mark.parametrize(
    ("name", "which", "scheme", "prepare"),
    [
        ("one", [0], "dark", one),
        ("several", [0, 1], "light", several),
        ("damaged", [2], "light", broken),
    ],
)
def test_pictures_of_the_documentation(
    browser: Browser,
    geckos: tuple[Path, Path, Path],
    tmp_path: Path,
    name: str,
    which: list[int],
    scheme: str,
    prepare: Callable[[Looked], None],
) -> None:
    with looking(browser, *(geckos[i] for i in which), color_scheme=scheme) as looked:
        # They move what is above them.
        looked.page.wait_for_selector("#curves div.curve")
        looked.page.select_option("#jump-kind", "position")
        looked.page.fill("#jump-text", "150")
        looked.press("Enter")
        looked.wait_for(150)
        looked.page.fill("#jump-text", "")
        looked.page.locator("#jump-text").blur()
        looked.page.select_option("#jump-kind", "number")
        looked.page.locator("#jump-kind").blur()
        prepare(looked)
        looked.page.wait_for_timeout(1200)
        made = tmp_path / "screen.png"
        looked.page.screenshot(path=made)
    screen = cv2.imread(str(made))
    assert screen is not None
    picture = PICTURES / f"viewer-{name}.png"
    if UPDATE:
        picture.write_bytes(small_png(screen))
    kept = cv2.imread(str(picture))
    again = (
        "to take the new one: IMGSTORE_UPDATE_PICTURES=1 python -m pytest tests/test_viewer_page.py"
    )
    assert kept is not None, f"{picture.name} is not there; {again}"
    assert abs(kept.shape[1] / kept.shape[0] - screen.shape[1] / screen.shape[0]) < 0.01
    same = cv2.resize(screen, kept.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert cv2.absdiff(same, kept).mean() < 12, f"{picture.name} differs; {again}"


def small_png(screen: NDArray[Any]) -> bytes:
    """A PNG for the documentation: smaller, and of few colours."""
    from PIL import Image

    height, width = screen.shape[:2]
    size = WIDTH, round(height * WIDTH / width)
    picture = Image.fromarray(cv2.cvtColor(screen, cv2.COLOR_BGR2RGB)).resize(
        size, Image.Resampling.LANCZOS
    )
    file = io.BytesIO()
    few = picture.quantize(256, Image.Quantize.MAXCOVERAGE, 3, dither=Image.Dither.NONE)
    few.save(file, "PNG", optimize=True)
    return file.getvalue()


def test_the_pictures_are_shown_and_small() -> None:
    text = (PICTURES / "viewer.md").read_text()
    there = sorted(PICTURES.glob("viewer-*.png"))
    assert sorted(re.findall(r"\((viewer-[\w-]+\.png)\)", text)) == [path.name for path in there]
    assert all(path.stat().st_size < 200_000 for path in there)


def test_a_small_screen(browser: Browser, recording: Path) -> None:
    with looking(browser, recording, viewport={"width": 400, "height": 780}) as looked:
        assert looked.page.evaluate("document.documentElement.scrollWidth") <= 400
        looked.press("ArrowRight")
        looked.wait_for(1)
        box = looked.canvas().bounding_box()
        assert box["width"] >= 390
        assert box["height"] >= 150


def test_what_the_facts_are_made_of(recording: Path) -> None:
    """The page takes all it knows from here, so that it is whole JSON for any browser."""
    with Viewing(recording) as viewing:
        json.loads(viewing.get("recordings").content, parse_constant=pytest.fail)

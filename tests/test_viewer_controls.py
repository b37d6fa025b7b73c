"""What the page does beside showing frames: buttons, ticks, problems, and what goes wrong."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import imgstore_zarr
from tests.chromium import chromium, needs_chromium
from tests.test_viewer_page import COUNT, NUMBERS, SHAPE, START, Looked, looking, write
from tests.videos import scene
from tests.viewing import Viewing

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [needs_chromium, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def shared(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looked]:
    path = tmp_path_factory.mktemp("controls") / "bars.zarr"
    with looking(browser, write(path, scene(COUNT, SHAPE))) as looked:
        yield looked


@pytest.fixture
def looked(shared: Looked) -> Looked:
    shared.page.reload()
    shared.page.wait_for_selector(".pane canvas[data-position='0'][data-quality=sharp]")
    return shared


def says(looked: Looked, text: str) -> None:
    """Wait until the page says something."""
    looked.page.wait_for_function(
        "text => document.getElementById('status').textContent.includes(text)", arg=text
    )


def test_buttons_of_the_head(looked: Looked) -> None:
    page = looked.page
    page.click("#panel-button")
    assert not page.is_visible("#panel")
    page.click("#panel-button")
    assert page.is_visible("#panel")
    page.click("#help-button")
    assert page.is_visible("#help")
    page.click("#help button")
    assert not page.is_visible("#help")
    with page.expect_download() as waiting:
        page.click("#png-button")
    assert waiting.value.suggested_filename == f"bars.zarr-{NUMBERS[0]}.png"
    page.click("#movie-button")
    assert page.is_visible("#movie")
    page.click("#movie-close")
    assert not page.is_visible("#movie")


def test_levels_by_buttons_and_sliders(looked: Looked) -> None:
    levels = looked.viewing.json("recordings/0/levels", position=0)
    looked.page.click("#auto")
    looked.page.wait_for_function(
        "low => Math.abs(document.getElementById('black').value - low) < 1", arg=levels["black"]
    )
    looked.page.locator("#black-slider").fill("200")
    assert float(looked.page.input_value("#black")) == round(0.2 * 255)
    # The keys of a slider are its own.
    looked.page.focus("#black-slider")
    looked.press("End")
    assert float(looked.page.input_value("#black")) == 255
    looked.press("Home", "ArrowRight")
    assert float(looked.page.input_value("#black")) <= 1
    assert looked.position() == 0


def test_levels_set_by_hand_outlast_those_asked_for_before(looked: Looked) -> None:
    page = looked.page
    held: list[Any] = []
    page.locator("#black-slider").fill("400")
    page.wait_for_load_state("networkidle")
    page.route("**/recordings/0/levels?*", lambda route: held.append(route))
    with page.expect_request("**/recordings/0/levels?*"):
        page.click("#auto")
    page.locator("#black-slider").fill("200")
    # Those that are held go on.
    with page.expect_response("**/recordings/0/levels?*"):
        page.unroute("**/recordings/0/levels?*")
    page.wait_for_timeout(300)
    assert held
    assert float(page.input_value("#black")) == round(0.2 * 255)


def test_the_timeline_comes_closer(looked: Looked) -> None:
    page = looked.page

    def span_asked_for(act: Any) -> float:
        with page.expect_request(lambda r: "/timeline?" in r.url) as waiting:
            act()
        start, stop = (
            float(re.search(rf"{name}=([\d.]+)", waiting.value.url)[1])  # type: ignore[index]
            for name in ("start", "stop")
        )
        return stop - start

    first = span_asked_for(lambda: looked.press("z"))
    assert first == pytest.approx((NUMBERS[-1] - NUMBERS[0]) / 25 / 2, rel=0.01)
    assert span_asked_for(lambda: looked.press("x")) == pytest.approx(2 * first, rel=0.01)
    page.mouse.move(*looked.place(START + 5))
    closer = span_asked_for(lambda: page.mouse.wheel(0, -300))
    assert closer < 2 * first
    assert span_asked_for(lambda: page.mouse.dblclick(*looked.place(START + 5))) == pytest.approx(
        2 * first, rel=0.01
    )


def test_the_button_that_ends_it(browser: Browser, tmp_path: Path) -> None:
    with looking(browser, write(tmp_path / "bars", scene(COUNT, SHAPE))) as looked:
        looked.page.click("#quit-button")
        looked.page.wait_for_selector("#ended:not([hidden])")
        assert looked.viewing.process.wait(30) == 0


def test_playing_that_fails_is_said(looked: Looked) -> None:
    looked.page.route(
        "**/frame?*position=7&*", lambda route: route.fulfill(status=503, body="too much at once")
    )
    looked.press(" ")
    says(looked, "too much at once")
    looked.page.wait_for_selector("#play[aria-pressed=false]")
    assert looked.position() == 6
    looked.page.unroute("**/frame?*position=7&*")
    # The browser itself notes the answer that was made up here.
    looked.wrong[:] = [wrong for wrong in looked.wrong if "503" not in wrong]
    assert looked.wrong == []


def test_answers_that_were_overtaken_are_no_errors(looked: Looked) -> None:
    for path in ("levels", "pixels", "original"):
        looked.page.route(f"**/{path}?*", lambda route: route.fulfill(status=204))
    looked.press("u", "p")
    looked.page.wait_for_timeout(300)
    assert looked.text("#status") == ""
    looked.press("k")
    says(looked, "save it again")
    looked.press("p")
    for path in ("levels", "pixels", "original"):
        looked.page.unroute(f"**/{path}?*")
    assert looked.wrong == []


TICKS = """
async ([zone, start, stop, width]) => {
    const text = await import(new URL("page/text.js", document.baseURI));
    const zero = -text.offset(zone, start);
    const step = text.step(stop - start, Math.max(width / 110, 1), true);
    const facts = { axis: "time", unix: true, zone };
    const ticks = [];
    for (let n = Math.ceil((start - zero) / step); zero + n * step <= stop; n += 1) {
        ticks.push([zero + n * step, text.tick(zero + n * step, step, facts, start)]);
    }
    return ticks;
}
"""


@pytest.mark.parametrize("name", ["Europe/Berlin", "Asia/Kolkata", "America/New_York", "UTC"])
def test_ticks_are_round_on_the_clock_of_the_recording(looked: Looked, name: str) -> None:
    zone = zoneinfo.ZoneInfo(name)
    begin = dt.datetime(2026, 6, 1, 14, 7, 3, 250_000, zone).timestamp()
    for seconds, width in [(7 * 86400, 1900), (7 * 86400, 900), (3 * 86400, 900), (7200, 900)]:
        ticks = looked.page.evaluate(TICKS, [name, begin, begin + seconds, width])
        assert 3 <= len(ticks) <= width / 110 + 1
        for time, label in ticks:
            local = dt.datetime.fromtimestamp(time, zone)
            assert local.second == 0
            if (local.hour, local.minute) == (0, 0):
                assert label == f"{local.day} {local:%b}"
            else:
                assert label == f"{local:%H:%M}"
        if seconds > 86400:
            assert any(re.fullmatch(r"\d+ Jun", label) for _, label in ticks)


def test_problems_are_listed(browser: Browser, tmp_path: Path) -> None:
    path = write(tmp_path / "bad", scene(COUNT, SHAPE))
    shard = path / "image/c/2/0/0"
    kept = shard.read_bytes()
    shard.unlink()
    with looking(browser, path) as looked:
        looked.page.wait_for_selector("#problems li", timeout=60_000)
        (line,) = looked.page.locator("#problems li").all_inner_texts()
        assert "chunk 2" in line
        assert "missing" in line
        assert str(tmp_path) not in line
    shard.write_bytes(kept)
    with looking(browser, path) as looked:
        assert not looked.page.is_visible("#problems-section")


def test_uint16_that_begins_with_damage_is_seen(browser: Browser, tmp_path: Path) -> None:
    path = write(tmp_path / "deep", scene(COUNT, SHAPE).astype(np.uint16) * 100)
    shard = path / "image/c/0/0/0"
    good = shard.read_bytes()
    shard.write_bytes(bytes(64) + good[64:])
    with looking(browser, path) as looked:
        assert looked.canvas().get_attribute("data-quality") == "damaged"
        # The next one is asked for again, with levels.
        with looked.page.expect_request(lambda r: "/frame?" in r.url and "white=" in r.url):
            looked.press("ArrowRight")
        looked.wait_for(1)
        assert looked.barcode() == 1


def test_uint16_that_has_no_frames_yet(browser: Browser, tmp_path: Path) -> None:
    images = scene(4, SHAPE).astype(np.uint16) * 100
    path = tmp_path / "new"
    with imgstore_zarr.create(path, "raw/zarr", SHAPE, np.uint16) as writer:
        writer.flush()
        page = {"viewport": {"width": 1280, "height": 800}}
        context = browser.new_context(**page)  # type: ignore[arg-type]
        with Viewing(path) as viewing:
            one = context.new_page()
            wrong: list[str] = []
            one.on("pageerror", lambda error: wrong.append(str(error)))
            one.goto(viewing.url)
            one.wait_for_selector("#notice:not([hidden])")
            # There is nothing to mark, to save or to play.
            for key in ("i", "o", " ", "ArrowRight", "End", "u", "p", "e", "n"):
                one.keyboard.press(key)
            for i, image in enumerate(images):
                writer.add_image(image, i, START + i / 25)
            with one.expect_request(lambda r: "/frame?" in r.url and "white=" in r.url):
                writer.flush()
            one.wait_for_selector(".pane canvas[data-quality=sharp]", timeout=60_000)
            assert wrong == []
        context.close()


def test_a_key_before_the_timeline_is_there(looked: Looked) -> None:
    """The page waits for the timeline, and does not say that it has no gaps."""
    held: list[Any] = []
    looked.page.route("**/timeline?*", lambda route: held.append(route))
    looked.page.reload()
    looked.page.wait_for_selector(".pane canvas[data-position='0'][data-quality=sharp]")
    looked.press("n")
    looked.page.wait_for_timeout(300)
    assert looked.text("#status") == ""
    assert len(held) >= 2
    # Those that are held go on.
    looked.page.unroute("**/timeline?*")
    looked.wait_for(120)

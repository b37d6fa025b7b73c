"""Parts of the viewer by themselves: what is done first, what is kept, what users are told."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import threading
import webbrowser
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr.bounded_cache import BoundedCache
from imgstore_zarr.viewer import browser
from imgstore_zarr.viewer.desk import MOST_AHEAD, MOST_NOW, Desk, SupersededError
from imgstore_zarr.viewer.moments import local_text, time_of
from imgstore_zarr.viewer.pictures import (
    FileType,
    Framing,
    Look,
    encoded_picture,
    levels_of,
    shrunk,
)
from imgstore_zarr.viewer.viewed import Viewed, short_names


class Held:
    """A desk whose two threads are held up until it is released, and what it did."""

    def __init__(self, turns: int = 2) -> None:
        self.desk = Desk("test", threading.Semaphore(turns))
        self.release = threading.Event()
        self.done: list[object] = []
        self.begun = threading.Semaphore(0)
        self.blockers = [
            self.desk.ask(("block", ahead), self._block, ahead=ahead) for ahead in (False, True)
        ]
        for _ in range(turns):
            assert self.begun.acquire(timeout=30)

    def _block(self) -> None:
        self.begun.release()
        assert self.release.wait(30)

    def ask(self, name: object, *, ahead: bool = False):  # type: ignore[no-untyped-def]
        def work() -> object:
            self.done.append(name)
            return name

        return self.desk.ask(name, work, ahead=ahead)


def test_the_newest_wish_is_answered_first_and_the_oldest_is_dropped() -> None:
    held = Held()
    futures = [held.ask(i) for i in range(MOST_NOW + 3)]
    for future in futures[:3]:
        with pytest.raises(SupersededError):
            future.result(1)
    held.release.set()
    assert [future.result(30) for future in futures[3:]] == list(range(3, MOST_NOW + 3))
    # Two threads take them from the newest on.
    assert held.done[0] in (MOST_NOW + 2, MOST_NOW + 1)
    assert set(held.done) == set(range(3, MOST_NOW + 3))
    held.desk.close()


def test_what_is_read_ahead_keeps_its_order() -> None:
    held = Held()
    futures = [held.ask(i, ahead=True) for i in range(MOST_AHEAD + 2)]
    for future in futures[:2]:
        with pytest.raises(SupersededError):
            future.result(1)
    held.release.set()
    for future in futures[2:]:
        future.result(30)
    assert held.done == list(range(2, MOST_AHEAD + 2))
    held.desk.close()


def test_the_same_wish_is_done_once() -> None:
    held = Held()
    first, second = held.ask("x"), held.ask("x")
    assert first is second
    ahead = held.ask("y", ahead=True)
    # What will be wanted is wanted now, and does not wait behind the others any more.
    assert held.ask("y") is ahead
    held.release.set()
    assert (first.result(30), ahead.result(30)) == ("x", "y")
    assert sorted(map(str, held.done)) == ["x", "y"]
    held.desk.close()


def test_an_error_goes_to_whoever_asked_and_the_desk_goes_on() -> None:
    desk = Desk("test", threading.Semaphore(1))

    def fail() -> None:
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError):
        desk.ask("bad", fail).result(30)
    assert desk.ask("good", lambda: 1).result(30) == 1
    desk.close()


def test_what_waits_when_the_desk_closes() -> None:
    held = Held()
    waiting = held.ask(1)
    held.desk.close()
    with pytest.raises(SupersededError):
        waiting.result(1)
    held.release.set()
    assert [blocker.result(30) for blocker in held.blockers] == [None, None]
    assert held.done == []


def test_desks_take_turns() -> None:
    """Never more than so many work at the same time, over all recordings."""
    turns = threading.Semaphore(2)
    desks = [Desk(str(i), turns) for i in range(4)]
    lock, now, most = threading.Lock(), [0], [0]
    both = threading.Barrier(2)

    def work() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        both.wait(30)
        with lock:
            now[0] -= 1

    futures = [desk.ask(i, work, ahead=i == 1) for desk in desks for i in range(2)]
    for future in futures:
        future.result(30)
    assert most[0] == 2
    for desk in desks:
        desk.close()


def test_the_cache_is_bounded() -> None:
    cache: BoundedCache[str] = BoundedCache(10)
    for name in "abc":
        cache.put(name, name, 3)
    assert cache.get("a") == "a"
    cache.put("d", "d", 3)
    assert [cache.get(name) for name in "abcd"] == ["a", None, "c", "d"]
    cache.put("e", "e", 11)
    assert cache.get("e") is None
    cache.put("a", "A", 1)
    assert (cache.get("a"), cache.used) == ("A", 7)
    rng = np.random.default_rng(0)
    for key, size in zip(rng.integers(0, 50, 500), rng.integers(0, 12, 500), strict=True):
        cache.put(int(key), "", int(size))
        assert cache.used <= 10


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"DISPLAY": ":0"}, None),
        ({"WAYLAND_DISPLAY": "wayland-0"}, None),
        ({}, "no display"),
        (
            {"SSH_CONNECTION": "10.0.0.2 5000 10.0.0.9 22", "USER": "bea", "DISPLAY": ":10"},
            "ssh -N -L 8123:127.0.0.1:8123 bea@10.0.0.9",
        ),
    ],
)
def test_what_to_do_without_a_screen(
    environment: dict[str, str], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    advice = browser.advice(8123, environment)
    assert (advice is None) if said is None else (advice is not None and said in advice)


def test_a_screen_without_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    opened: list[str] = []

    class Browser:
        def open(self, address: str) -> bool:
            opened.append(address)
            return True

    monkeypatch.setattr(webbrowser, "get", Browser)
    assert browser.what_to_do("http://127.0.0.1:1/x/", 1) is None
    assert opened == ["http://127.0.0.1:1/x/"]

    def none() -> None:
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(webbrowser, "get", none)
    assert "open the address above" in (browser.what_to_do("http://127.0.0.1:1/x/", 1) or "")


def test_names_tell_nothing_of_folders() -> None:
    given = [
        "/data/secret/bees",
        "/other/bees/",
        "s3://bucket/a/wasps.zarr",
        "https://h/x?key=1",
        "/",
    ]
    assert short_names(given) == ["bees", "bees (2)", "wasps.zarr", "x", "recording"]


def test_times_as_people_write_them() -> None:
    zone = zoneinfo.ZoneInfo("Europe/Vienna")
    start = dt.datetime(2026, 3, 28, 23, 50, tzinfo=zone).timestamp()
    assert time_of("23:55", start, zone) == start + 300
    # The next day, and there the clock is put forward by an hour at 2:00.
    assert time_of("04:00:00", start, zone) == start + 600 + 3 * 3600
    assert time_of("2026-03-29 04:00:00", start, zone) == start + 600 + 3 * 3600
    assert time_of("2026-03-28T22:50:00Z", start, zone) == start
    with pytest.raises(ValueError, match=r"isoformat|Invalid"):
        time_of("noon", start, zone)
    assert local_text(start, zone) == "2026-03-28 23:50:00.000 CET"
    assert local_text(12.5, zone) is None


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint64", "float32"]
)
@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 3), (40, 60, 1), (40, 60, 4), (40, 60, 2)])
def test_any_pixels_become_pictures(dtype: str, shape: tuple[int, ...]) -> None:
    image = (np.random.default_rng(1).random(shape) * 100).astype(dtype)
    levels = levels_of(image)
    assert levels.low <= levels.black < levels.white <= levels.high
    file_type: FileType
    for file_type in ("jpeg", "png", "webp"):
        look = Look(levels.black, levels.white, 1.5, "inferno")
        assert encoded_picture(image, Framing(20, 30, None, file_type), look)
    small = shrunk(image[..., 0] if len(shape) == 3 else image, 20, 30)
    plain = image[..., 0] if len(shape) == 3 else image
    expected = plain.astype(np.float64).reshape(20, 2, 30, 2).mean(axis=(1, 3))
    assert np.abs(small.astype(np.float64) - expected).max() <= 0.5


def test_pixels_that_are_all_alike_have_levels() -> None:
    levels = levels_of(np.full((8, 8), 7, np.uint16))
    assert (levels.black, levels.white) == (7, 8)
    nothing = levels_of(np.full((8, 8), np.nan))
    assert nothing.black < nothing.white
    huge = np.array([[-1.7e308, 1.7e308], [0, np.inf]])
    assert np.isfinite(list(vars(levels_of(huge)).values())[:4]).all()


def test_the_viewer_is_not_imported_until_it_is_asked_for() -> None:
    code = "import imgstore_zarr, imgstore_zarr.cli, sys; print('starlette' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


class Growing(NamedTuple):
    """A writer with three frames, numbers 0, 1, 2, and the recording as the viewer has it."""

    writer: imgstore_zarr.ImgStoreWriter
    viewed: Viewed


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Growing]:
    path = tmp_path / "growing"
    with imgstore_zarr.create(path, "raw/zarr", (4, 6)) as writer:
        for i in range(3):
            writer.add_image(np.zeros((4, 6), np.uint8), i, i / 25)
        writer.flush()
        place = imgstore_zarr.locate(path)
        with imgstore_zarr.open(place) as store:
            viewed = Viewed(store, place, "growing", BoundedCache(2**28), threading.Semaphore(1))
            yield Growing(writer, viewed)
            viewed.close()


def test_an_inspection_that_the_end_overtakes_says_nothing(
    growing: Growing, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, viewed = growing

    def late() -> None:
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(viewed.store, "report", late, raising=False)
    with pytest.raises(RuntimeError):
        viewed.inspect()
    viewed.close()
    viewed.inspect()
    assert (viewed.report, viewed.trouble) == (None, None)


def test_an_inspection_that_fails_is_told_until_the_end(
    growing: Growing, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, viewed = growing

    def refused() -> None:
        raise PermissionError("nobody may look into growing")

    monkeypatch.setattr(viewed.store, "report", refused, raising=False)
    viewed.inspect()
    writer.add_image(np.zeros((4, 6), np.uint8), 3, 3 / 25)
    writer.flush()
    viewed._look()
    assert len(viewed.index) == 4
    assert "nobody may look" in str(viewed.uninspected)


def test_what_an_old_index_said_is_not_kept_for_the_new_one(growing: Growing) -> None:
    writer, viewed = growing
    slow = viewed._found
    assert viewed.gaps.missing.tolist() == []
    writer.add_image(np.zeros((4, 6), np.uint8), 10, 10 / 25)
    writer.flush()
    viewed._look()
    # Who began before the look ends after it.
    assert slow.gaps.missing.tolist() == []
    assert viewed.gaps.missing.tolist() == [7]
    assert viewed.gaps.position.tolist() == [3]

"""What the server of the viewer answers: facts and positions as JSON, frames as pictures."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import math
import signal
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from importlib.resources import files
from typing import Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from imgstore_zarr.errors import ImgStoreError, UnsupportedFormatError
from imgstore_zarr.viewer.curves import Curves
from imgstore_zarr.viewer.desk import SupersededError
from imgstore_zarr.viewer.moments import time_of
from imgstore_zarr.viewer.movie import MOST_FRAMES, Movie, MovieSpec
from imgstore_zarr.viewer.parameters import MOVIE, PICTURE, BadRequestError, Parameters
from imgstore_zarr.viewer.pictures import COLOR_MAPS, Framing, Look, original_png
from imgstore_zarr.viewer.playing import Playing
from imgstore_zarr.viewer.summary import MOST_BINS, summary
from imgstore_zarr.viewer.viewed import DamagedError, Viewed

_log = logging.getLogger("imgstore_zarr.viewer")

MOST_AROUND = 12
"""Pixels on each side of the one whose value is asked for."""

_AHEAD = 6
_LARGEST = 2**63 - 1
_NUMBERS = -_LARGEST - 1, _LARGEST
_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}

_Result = TypeVar("_Result")
Handler = Callable[[Request], Awaitable[Response]]


class Answers:
    """The requests that the page makes, one method each.

    Parameters
    ----------
    recordings
        What can be looked at; nothing else is ever read.
    playing
        How the page begins.
    """

    def __init__(self, recordings: Sequence[Viewed], playing: Playing) -> None:
        self._recordings = recordings
        self._playing = playing
        self._curves = [Curves(viewed) for viewed in recordings]
        self._movie: Movie | None = None
        self._page = _page_files()

    def app(self) -> Starlette:
        """Return the application."""
        gets: dict[str, Handler] = {
            "/recordings": self.facts,
            "/changes": self.changes,
            "/recordings/{i:int}/timeline": self.timeline,
            "/recordings/{i:int}/find": self.find,
            "/recordings/{i:int}/frame": self.frame,
            "/recordings/{i:int}/pixels": self.pixels,
            "/recordings/{i:int}/levels": self.levels,
            "/recordings/{i:int}/curves": self.channels,
            "/recordings/{i:int}/curves/{channel:int}": self.curve,
            "/recordings/{i:int}/original": self.original,
            "/movie": self.movie,
            "/movie/file": self.movie_file,
            "/": self.page,
            "/page/{name}": self.page,
        }
        posts: dict[str, Handler] = {
            "/recordings/{i:int}/movie": self.make_movie,
            "/movie/stop": self.stop_movie,
            "/quit": self.quit,
        }
        app = Starlette(
            routes=[
                *(Route(path, _answering(handler)) for path, handler in gets.items()),
                *(Route(p, _answering(h), methods=["POST"]) for p, h in posts.items()),
            ],
            exception_handlers={HTTPException: _refused},
        )
        app.router.redirect_slashes = False
        return app

    async def page(self, request: Request) -> Response:
        """Answer with a file of the page; they are in memory, so that no path can lead elsewhere."""
        name = request.path_params.get("name", "index.html")
        if name not in self._page:
            raise BadRequestError("no such file", 404)
        content, media_type = self._page[name]
        return Response(content, media_type=media_type)

    async def facts(self, request: Request) -> Response:
        """Answer with what is known of the recordings."""
        Parameters(request.query_params, ())
        facts = await _in_thread(lambda: [viewed.facts() for viewed in self._recordings])
        return _json(
            {
                "recordings": facts,
                "color_maps": list(COLOR_MAPS),
                "most_movie_frames": MOST_FRAMES,
                "begin": self._playing,
            }
        )

    async def changes(self, request: Request) -> Response:
        """Answer with how the recordings are now; looks for new frames."""
        Parameters(request.query_params, ())

        def look() -> list[dict[str, Any]]:
            for viewed in self._recordings:
                viewed.follow()
            return [
                {
                    "frames": len(viewed.index),
                    "generation": viewed.generation,
                    "trouble": viewed.trouble or viewed.uninspected,
                    "inspected": viewed.report is not None,
                    "damaged": len(viewed.damaged),
                }
                for viewed in self._recordings
            ]

        return _json({"recordings": await _in_thread(look)})

    async def timeline(self, request: Request) -> Response:
        """Answer with a part of a recording in bins."""
        viewed = self._viewed(request)
        given = Parameters(request.query_params, ("start", "stop", "bins"))
        start, stop = given.number("start"), given.number("stop")
        bins = given.integer("bins", 1, MOST_BINS, 1024)
        if not len(viewed.index):
            return _json({"axis": viewed.axis, "extent": None, "problems": []})
        return _json(await _in_thread(lambda: summary(viewed, start, stop, bins)))

    async def find(self, request: Request) -> Response:
        """Answer with the frame of a position, a number, or the nearest time."""
        viewed = self._viewed(request)
        given = Parameters(request.query_params, ("position", "number", "time", "local"))
        position = _position(viewed, given)
        if position is None:
            nearest = None
            if "number" in given:
                number = given.integer("number", *_NUMBERS)
                nearest = viewed.index.position_nearest_number(number)
            return _json(
                {"frame": None, "nearest": None if nearest is None else viewed.moment(nearest)}
            )
        return _json({"frame": viewed.moment(position)})

    async def frame(self, request: Request) -> Response:
        """Answer with a frame as a picture; ``x-frame`` says which one it is.

        One that cannot be read is answered by JSON with what is wrong; a request that newer ones
        have overtaken by 204.
        """
        viewed = self._viewed(request)
        given = Parameters(request.query_params, PICTURE)
        framing, look = given.framing(viewed.store.image_shape), given.look()
        stride = given.integer("ahead", -1000, 1000, 0)
        position = _needed_position(viewed, given)
        key = viewed.picture_key(position, framing, look)
        picture = viewed.kept_picture(key)
        if picture is None:
            picture = await _asked(
                viewed,
                key,
                lambda: viewed.picture(position, framing, look, ahead=stride != 0),
                ahead=stride != 0,
            )
        if stride:
            _read_ahead(viewed, position, stride, framing, look)
        which = json.dumps(dataclasses.asdict(viewed.moment(position)))
        return Response(
            picture, media_type=f"image/{framing.file_type}", headers={"x-frame": which}
        )

    async def pixels(self, request: Request) -> Response:
        """Answer with the values of pixels around one."""
        viewed = self._viewed(request)
        given = Parameters(request.query_params, ("position", "y", "x", "around"))
        position = _needed_position(viewed, given)
        height, width = viewed.store.image_shape[:2]
        y, x = given.integer("y", 0, height - 1), given.integer("x", 0, width - 1)
        around = given.integer("around", 0, MOST_AROUND, 0)
        image = await _asked(viewed, ("pixels", position), lambda: viewed.image(position))
        y0, x0 = max(y - around, 0), max(x - around, 0)
        part = image[y0 : y + around + 1, x0 : x + around + 1]
        return _json({"y": y0, "x": x0, "values": part.tolist()})

    async def levels(self, request: Request) -> Response:
        """Answer with the range and the histogram of a frame."""
        viewed = self._viewed(request)
        given = Parameters(request.query_params, ("position",))
        position = _needed_position(viewed, given)
        return _json(await _asked(viewed, ("levels", position), lambda: viewed.levels(position)))

    async def channels(self, request: Request) -> Response:
        """Answer with the channels of extra data."""
        curves = self._curves_of(request)
        Parameters(request.query_params, ())
        channels = await _in_thread(curves.channels)
        named = [{"name": c.name, "samplerate": c.samplerate} for c in channels]
        return _json({"channels": named, "trouble": curves.trouble})

    async def curve(self, request: Request) -> Response:
        """Answer with a channel in bins."""
        viewed, curves = self._viewed(request), self._curves_of(request)
        given = Parameters(request.query_params, ("start", "stop", "bins"))
        start, stop = given.needed("start"), given.needed("stop")
        bins = given.integer("bins", 1, MOST_BINS, 1024)
        channel = int(request.path_params["channel"])
        if not start < stop:
            raise BadRequestError("start must be before stop")
        if channel >= len(await _in_thread(curves.channels)):
            raise BadRequestError("no such channel", 404)
        try:
            curve = await _in_thread(lambda: curves.curve(channel, start, stop, bins))
        except (ImgStoreError, OSError) as error:
            return _json({"trouble": viewed.without_path(str(error))})
        return _json(curve)

    async def original(self, request: Request) -> Response:
        """Answer with a frame as a PNG of its own pixels, to be saved."""
        viewed = self._viewed(request)
        given = Parameters(request.query_params, ("position",))
        position = _needed_position(viewed, given)

        def made() -> bytes:
            return original_png(viewed.image(position), viewed.name)

        try:
            png = await _asked(viewed, ("original", position), made)
        except UnsupportedFormatError as error:
            return _json({"trouble": viewed.without_path(str(error))})
        number = viewed.moment(position).number
        return Response(
            png, media_type="image/png", headers=_attachment(f"{viewed.name}-{number}.png")
        )

    async def make_movie(self, request: Request) -> Response:
        """Begin a movie; one at a time."""
        viewed = self._viewed(request)
        given = Parameters(request.query_params, MOVIE)
        start = given.integer("start", 0, max(len(viewed.index) - 1, 0))
        stop = given.integer("stop", start + 1, len(viewed.index))
        if stop - start > MOST_FRAMES:
            raise BadRequestError(
                f"a movie from here has at most {MOST_FRAMES} frames; longer ones are made by "
                "imgstore-zarr convert",
                413,
            )
        rate = given.number("rate", viewed.rate or 25.0)
        assert rate is not None
        if not 0.01 <= rate <= 1000:
            raise BadRequestError("rate must be from 0.01 to 1000 frames per second")
        if self._movie is not None and self._movie.running:
            raise BadRequestError("another movie is being made; wait for it, or stop it", 409)
        before, self._movie = self._movie, Movie(viewed, MovieSpec(start, stop, rate, given.look()))
        state = self._movie.state()
        if before is not None:
            await _in_thread(before.close)
        return _json(state)

    async def movie(self, request: Request) -> Response:
        """Answer with how far the movie is."""
        Parameters(request.query_params, ())
        if self._movie is None:
            raise BadRequestError("no movie is being made", 404)
        return _json(self._movie.state())

    async def movie_file(self, request: Request) -> Response:
        """Answer with the movie, to be saved."""
        Parameters(request.query_params, ())
        if self._movie is None or not self._movie.finished:
            raise BadRequestError("no movie is finished", 404)
        return FileResponse(
            self._movie.path, media_type="video/mp4", headers=_attachment(self._movie.name)
        )

    async def stop_movie(self, request: Request) -> Response:
        """Stop making the movie."""
        Parameters(request.query_params, ())
        movie, self._movie = self._movie, None
        if movie is not None:
            await _in_thread(movie.close)
        return _json({})

    async def quit(self, request: Request) -> Response:
        """End the server."""
        Parameters(request.query_params, ())
        # The server ends as by Ctrl-C, after this answer.
        signal.raise_signal(signal.SIGINT)
        return _json({})

    def close(self) -> None:
        """Read nothing more, and remove what was made."""
        if self._movie is not None:
            self._movie.close()
        for viewed in self._recordings:
            viewed.close()

    def _number(self, request: Request) -> int:
        number = int(request.path_params["i"])
        if number >= len(self._recordings):
            raise BadRequestError("no such recording", 404)
        return number

    def _viewed(self, request: Request) -> Viewed:
        return self._recordings[self._number(request)]

    def _curves_of(self, request: Request) -> Curves:
        """The extra data of a recording, as they are since it grew."""
        number = self._number(request)
        if not self._curves[number].fresh:
            self._curves[number] = Curves(self._recordings[number])
        return self._curves[number]


def _page_files() -> dict[str, tuple[bytes, str]]:
    """The files of the page with their media types, by name."""
    found = {}
    for file in files("imgstore_zarr.viewer").joinpath("page").iterdir():
        ending = file.name[file.name.rfind(".") :]
        if ending in _TYPES:
            found[file.name] = (file.read_bytes(), _TYPES[ending])
    return found


def _read_ahead(viewed: Viewed, position: int, stride: int, framing: Framing, look: Look) -> None:
    """Have the frames read that will be asked for next."""
    for step in range(1, _AHEAD + 1):
        following = position + step * stride
        if not 0 <= following < len(viewed.index):
            return
        key = viewed.picture_key(following, framing, look)
        if viewed.kept_picture(key) is None:
            work = _Picture(viewed, following, framing, look)
            # Whoever asks for it later gets what became of it.
            viewed.desk.ask(key, work, ahead=True).add_done_callback(_forgotten)


@dataclasses.dataclass(frozen=True)
class _Picture:
    """Makes one picture ahead of time."""

    viewed: Viewed
    position: int
    framing: Framing
    look: Look

    def __call__(self) -> bytes:
        return self.viewed.picture(self.position, self.framing, self.look, ahead=True)


def _forgotten(future: Any) -> None:
    future.exception()


async def _asked(
    viewed: Viewed, key: Hashable, work: Callable[[], _Result], *, ahead: bool = False
) -> _Result:
    """Have work done by the desk of a recording."""
    answered = asyncio.wrap_future(viewed.desk.ask(key, work, ahead=ahead))
    # Others may wait for the same.
    result: _Result = await asyncio.shield(answered)
    return result


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    return await asyncio.to_thread(work)


def _position(viewed: Viewed, given: Parameters) -> int | None:
    """The position that is asked for in one of four ways; None where there is no such frame."""
    if sum(name in given for name in ("position", "number", "time", "local")) != 1:
        raise BadRequestError("give one of position, number, time and local")
    index = viewed.index
    if "position" in given:
        position = given.integer("position", -_LARGEST, _LARGEST)
        return position if 0 <= position < len(index) else None
    if "number" in given:
        return index.position_of_number(given.integer("number", *_NUMBERS))
    if "time" in given:
        return index.position_nearest_time(given.needed("time"))
    return index.position_nearest_time(_unix_time(viewed, given.text("local")))


def _unix_time(viewed: Viewed, text: str) -> float:
    """What the clock in the recording's zone showed, with or without a date, as a frame time."""
    if not viewed.unix:
        raise BadRequestError("the frame times of this recording are no dates; give seconds")
    try:
        return time_of(text, float(viewed.index.frame_time[0]), viewed.store.info.timezone)
    except ValueError as error:
        raise BadRequestError(
            "a time is like 14:03:20, 2026-01-31 14:03:20, seconds, or +seconds from the start"
        ) from error


def _needed_position(viewed: Viewed, given: Parameters) -> int:
    position = _position(viewed, given)
    if position is None:
        raise BadRequestError(f"{viewed.name} has no such frame", 404)
    return position


def _answering(handler: Handler) -> Handler:
    """Turn what a handler raises into an answer, without a traceback or a path."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except BadRequestError as error:
            return PlainTextResponse(str(error), error.status)
        except SupersededError:
            return Response(status_code=204)
        except DamagedError as error:
            _log.warning("%s", error)
            return _json({"damaged": error.damage})

    return answer


async def _refused(_: Request, error: Exception) -> Response:
    """Answer what no route takes."""
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code, error.headers)


def _json(value: Any) -> JSONResponse:
    return JSONResponse(_plain(value))


def _plain(value: Any) -> Any:
    """What JSON can hold, and JavaScript can read without loss."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        return str(value)
    return value


def _attachment(name: str) -> dict[str, str]:
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)
    return {"content-disposition": f'attachment; filename="{safe}"'}

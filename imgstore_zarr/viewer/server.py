"""The server of the viewer: on this machine alone, for as long as somebody looks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import imgstore_zarr
from imgstore_zarr.bounded_cache import BoundedCache
from imgstore_zarr.cores import CORES
from imgstore_zarr.serving.guard import Guard, new_token
from imgstore_zarr.serving.server import address_of, listening, run
from imgstore_zarr.storage import locate_urls
from imgstore_zarr.viewer.answers import Answers
from imgstore_zarr.viewer.playing import Playing
from imgstore_zarr.viewer.viewed import Viewed, short_names

HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        b"form-action 'none'; frame-ancestors 'none'",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)
"""Of every answer: nothing from elsewhere is part of the page, and the page is part of nothing."""

CACHE_BYTES = 192 * 2**20
"""How much memory the frames and pictures of all recordings take together."""

_METHODS = frozenset({"GET", "HEAD", "POST"})
_HOST = "127.0.0.1"


def view(
    locations: Sequence[object],
    *,
    storage_options: Mapping[str, Any] | None = None,
    port: int = 0,
    playing: Playing | None = None,
    ready: Callable[[str, int, list[str]], None],
) -> None:
    """Serve recordings to a browser until somebody ends it.

    Parameters
    ----------
    locations
        The recordings, as `imgstore_zarr.open` takes them.
    storage_options
        Of URLs of object storage.
    port
        To listen on; 0 is any that is free.
    playing
        How the page begins.
    ready
        Called with the address of the page, the port and the names of the recordings, before the
        first request is answered.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(listening(_HOST, port)))
        recordings = _opened(locations, storage_options, stack)
        answers = Answers(recordings, playing or Playing())
        stack.callback(answers.close)
        token = new_token()
        for viewed in recordings:
            threading.Thread(target=viewed.inspect, name="view-inspect", daemon=True).start()
        names = [viewed.name for viewed in recordings]
        ready(f"{address_of(listener)}/{token}/", listener.getsockname()[1], names)
        run(Guard(answers.app(), token, _HOST, _METHODS, headers=HEADERS), listener)


def _opened(
    locations: Sequence[object],
    storage_options: Mapping[str, Any] | None,
    stack: contextlib.ExitStack,
) -> list[Viewed]:
    places = [imgstore_zarr.locate(one) for one in locate_urls(storage_options, *locations)]
    stores = [stack.enter_context(imgstore_zarr.open(place)) for place in places]
    names = short_names([store.filename for store in stores])
    cache: BoundedCache[Any] = BoundedCache(CACHE_BYTES)
    turns = threading.Semaphore(CORES + 1)
    return [
        Viewed(store, place, name, cache, turns)
        for store, place, name in zip(stores, places, names, strict=True)
    ]

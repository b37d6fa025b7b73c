"""Listings of web servers: the page that Apache, nginx, Caddy or Python show for a folder."""

from __future__ import annotations

import errno
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urljoin, urlsplit

from imgstore_zarr.storage.requests import RequestError

NO_LISTING = (
    "turn listings on (nginx: autoindex on), or open the recording by another address; Zarr formats "
    "need none"
)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [
            value for name, value in attributes if tag == "a" and name == "href" and value
        ]


def linked_names(page: bytes, folder: str) -> list[str]:
    """Return the names to which the page of a folder links directly below it, sorted.

    Parameters
    ----------
    page
        HTML.
    folder
        Its path on the server.

    Raises
    ------
    RequestError
        That is no page of links.
    """
    text = page.decode("utf-8", "replace")
    if "<a" not in text.lower() and "<html" not in text.lower():
        raise RequestError(
            errno.ENOTSUP,
            "the server shows no listing of its folders",
            NO_LISTING,
        )
    links = _Links()
    links.feed(text)
    # Links may be absolute or relative: what counts is that they lie directly below the folder.
    tail = quote("/".join(("", *filter(None, folder.split("/")), "")))
    names = set()
    for link in links.found:
        parts = urlsplit(urljoin(f"http://server{tail}", link))
        if parts.query or parts.fragment:
            continue  # other ways to sort the page
        # However the server quotes, and wherever it is mounted.
        path = quote(unquote(parts.path))
        cut = path.partition if path.startswith(tail) else path.rpartition
        _, there, below = cut(tail)
        if there and below and "/" not in below.rstrip("/") and below.strip("/") not in ("..", "."):
            names.add(unquote(below))
    return sorted(names, key=lambda name: name.rstrip("/"))

"""A web server for the files of a folder, as nginx is: with ranges, and listings if wanted."""

from __future__ import annotations

import re
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from tests.servers.processes import end_with_parent


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    listings = True

    def send_head(self) -> BytesIO | BinaryIO | None:
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            if self.listings:
                return super().send_head()
            self.send_error(403)
            return None
        if not path.is_file():
            self.send_error(404)
            return None
        data = path.read_bytes()
        tag = f'"{path.stat().st_mtime_ns:x}-{len(data):x}"'
        if self.headers.get("If-Match", tag) != tag:
            self.send_error(412)
            return None
        start, stop = 0, len(data)
        wanted = None
        if self.headers.get("If-Range", tag) == tag:
            wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            first, last = wanted.groups()
            start = int(first) if first else max(0, len(data) - int(last))
            stop = min(len(data), int(last) + 1) if first and last else len(data)
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", tag)
        self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        return BytesIO(data[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        return


class _WithoutListings(_Handler):
    listings = False


class _Server(ThreadingHTTPServer):
    request_queue_size = 512


def main(root: str, listings: str) -> None:
    """Listen on a free port, and print it."""
    end_with_parent()
    handler = _Handler if listings == "listings" else _WithoutListings
    server = _Server(("127.0.0.1", 0), partial(handler, directory=root))
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])

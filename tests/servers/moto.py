"""An S3 server: moto's, with keep-alive and without a log."""

from __future__ import annotations

import logging
import os
import sys

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.servers.processes import end_with_parent


class _Handler(WSGIRequestHandler):
    # Head and body are two writes, the second of which would wait for the client.
    disable_nagle_algorithm = True


def main(page: str) -> None:
    """Listen on a free port, and print it; listings have pages of so many names."""
    end_with_parent()
    os.environ["MOTO_S3_DEFAULT_MAX_KEYS"] = page
    logging.disable()
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Handler)
    print(server.port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])

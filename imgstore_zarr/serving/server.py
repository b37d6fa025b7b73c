"""A server of this machine: where it listens, and how it runs."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
from collections.abc import Iterator

import uvicorn

from imgstore_zarr.serving.guard import Guard
from imgstore_zarr.serving.patience import PatientProtocol

CONNECTIONS = 128
"""How many there are at most; others are told to come again."""

_KEPT_SECONDS = 30
_ENDING_SECONDS = 5
_LONGEST_HEAD = 16 * 1024

# Being told to end, and a terminal that is closed.
_ENDS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; who connects waits until the server runs.

    Parameters
    ----------
    host
        A name or an address of this machine.
    port
        0 takes one that is free.

    Raises
    ------
    OSError
        That cannot be; the message says what to do.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        raise OSError(_advice(error, host, port)) from error


def _advice(error: Exception, host: str, port: int) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken by another program; give another --port, or none, "
            "which takes one that is free"
        )
    if number == errno.EACCES:
        return f"port {port} is not for everybody; give a --port of at least 1024"
    return f"nobody can listen on port {port} of {host!r} here ({error}); give another --host"


def address_of(listener: socket.socket) -> str:
    """Return the beginning of addresses: ``http://127.0.0.1:8000``."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(guard: Guard, listener: socket.socket) -> None:
    """Answer requests until Ctrl-C, or until this process is asked to end; for the main thread."""
    config = uvicorn.Config(
        guard,
        http=PatientProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        # Whoever wants to see more sets up logging.
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=_KEPT_SECONDS,
        timeout_graceful_shutdown=_ENDING_SECONDS,
        h11_max_incomplete_event_size=_LONGEST_HEAD,
    )
    with _ended_as_by_ctrl_c(), contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Have what else ends a process leave nothing behind, too; uvicorn hands signals on at its end."""
    before = {}
    for number in _ENDS:
        # Who started it may have made it deaf, as nohup does.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

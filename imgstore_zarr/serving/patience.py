"""PatientProtocol: HTTP connections that nobody can hold for as long as they like."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

REQUEST_SECONDS = 10.0
"""How long a client may take to send the head of a request."""

STALLED_SECONDS = 30.0
"""How long a client may take nothing of what is being sent to it."""

CLOSING_SECONDS = 1.0
"""How long an answer may go on when the server ends."""

_log = logging.getLogger("imgstore_zarr.serving")


class PatientProtocol(H11Protocol):
    """Drops a client that sends no request, or takes no answer."""

    _waiting: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request; the next one has its own time."""
        super().data_received(data)
        if self._is_answering:
            self._waiting = _stopped(self._waiting)
        elif self._waiting is None:
            self._wait_for_request()

    @property
    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _wait_for_request(self) -> None:
        self._waiting = self.loop.call_later(REQUEST_SECONDS, self._drop, "sent no request")

    def pause_writing(self) -> None:
        """Begin to wait for a client that takes less than there is for it."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self._drop, "took no answer")

    def resume_writing(self) -> None:
        """Go on: the client has taken what there was."""
        self._stalled = _stopped(self._stalled)
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that is not used; what its client has not taken by now is dropped."""
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size():
            self._drop("took no answer")

    def shutdown(self) -> None:
        """Finish, when the server ends, the answer that is being sent, if the client takes it soon."""
        super().shutdown()
        self.loop.call_later(CLOSING_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._waiting, self._stalled = _stopped(self._waiting), _stopped(self._stalled)
        super().connection_lost(exc)

    def _drop(self, why: str) -> None:
        _log.warning("dropped %s, who %s", (self.client or ("somebody",))[0], why)
        self.transport.abort()


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None

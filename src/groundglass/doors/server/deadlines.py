"""uvicorn's HTTP/1.1 protocol with deadlines: uvicorn itself waits for ever for a request and for a reader."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from groundglass.doors.server.guard import Guard
from groundglass.doors.server.problem import TITLES, Problem
from groundglass.doors.server.settings import Bounds

_CODES = {400: "malformed", 408: "too_slow", 431: "headers_too_large"}
_REASONS = {
    400: ("an HTTP/1.1 request", "something else", "send one"),
    408: ("a whole request head within the deadline", "less", "send it faster"),
    431: ("smaller request headers", "more than the limit", "send fewer"),
}


def protocol(bounds: Bounds, guard: Guard) -> type[H11Protocol]:
    """The protocol class with these deadlines; the guard completes and logs what it answers itself."""

    class Deadlines(H11Protocol):
        """Closes a connection whose request head is late, and one whose reader has stopped."""

        _late: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None
        _began = 0.0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # What the kernel does not take at once counts as a reader that is behind. Not 0: asyncio's TLS transport
            # pauses at "size >= high", so that an empty buffer would stop the answer until the next byte came in.
            transport.set_write_buffer_limits(high=1, low=0)
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._late, self._stuck):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._late is None and not self._in_request():
                self._await_head()
            super().data_received(data)
            if self._late is not None and (self._in_request() or self._idle()):
                self._late.cancel()
                self._late = None

        def _await_head(self) -> None:
            self._began = time.monotonic()
            self._late = self.loop.call_later(bounds.header_seconds, self._head_is_late)

        def _in_request(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _idle(self) -> bool:
            """Between two requests, with nothing of the next one received: the keep-alive timer is running."""
            return self.timeout_keep_alive_task is not None

        def _head_is_late(self) -> None:
            self._late = None
            if not self._in_request():
                self._refuse(408)

        def send_400_response(self, msg: str) -> None:
            fault = sys.exc_info()[1]  # uvicorn calls this while it handles what h11 raised
            hint = fault.error_status_hint if isinstance(fault, h11.RemoteProtocolError) else 400
            self._refuse(hint if hint in _CODES else 400)

        def _refuse(self, status: int) -> None:
            if self.transport.is_closing():
                return  # it has been answered
            scope: Any = self.cycle.scope if self._in_request() else None
            if scope is not None and self.cycle.response_started:
                self.transport.close()
                return
            problem = Problem(status, _CODES[status], *_REASONS[status])
            headers, content = guard.below(problem, scope, self._began)
            lines = [f"HTTP/1.1 {status} {TITLES[status]}".encode(), *(b": ".join(header) for header in headers)]
            self.transport.write(b"\r\n".join([*lines, b"", content]))
            self.transport.close()
            if scope is not None:
                self.cycle.disconnected = True
                self.cycle.message_event.set()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch_reader(self.transport.get_write_buffer_size())

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._stuck is not None:
                self._stuck.cancel()
                self._stuck = None

        def _watch_reader(self, left: int) -> None:
            def look() -> None:
                now = self.transport.get_write_buffer_size()
                if now >= left:
                    self.transport.abort()
                else:
                    self._watch_reader(now)

            self._stuck = self.loop.call_later(bounds.write_seconds, look)

    return Deadlines

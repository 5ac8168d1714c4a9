"""Before every route: access, the size and the time of a request, and the headers of every answer."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundglass.doors.server.clients import Clients
from groundglass.doors.server.problem import MEDIA_TYPE, Problem, body
from groundglass.doors.server.settings import Settings
from groundglass.read.limits import MIB

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), usb=(), payment=()",
}
# Open without a token: the state of the service and the page with its parts, because they hold no data.
_OPEN_PATHS = ("/health/live", "/health/ready", "/", "/help")
_OPEN_BELOW = "/static/"
_REQUEST_ID, _MODEL_HEADER = "x-request-id", "x-groundglass-model"

Headers = list[tuple[bytes, bytes]]


class Guard:
    """ASGI around the routes. `model` gives the name and hash of the loaded model for every answer.

    `refuse_if_full` raises Problem (503) if there is no room for more work. It is called first, because a refusal must
    cost next to nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        *,
        log: logging.Logger,
        counted: Callable[[str, int], None],
        model: Callable[[], str],
        refuse_if_full: Callable[[], None],
    ) -> None:
        self._app, self._settings, self._log, self._counted, self._model = app, settings, log, counted, model
        self._refuse_if_full = refuse_if_full
        self._active = 0
        self._clients = None if settings.local else Clients(settings.bounds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        if "exchange" in state:
            return  # the protocol has answered it already
        exchange = state["exchange"] = Exchange(self._settings, scope, receive, send, self._model())
        self._active += 1
        client = _client_of(scope, self._settings.behind_proxy)
        entered = False
        try:
            self._admit(scope, exchange)
            if self._clients is not None and scope["method"] == "POST":
                self._clients.enter(client)
                entered = True
            exchange.check_size()
            if scope["method"] == "POST" and scope["path"].startswith("/v1/"):
                self._refuse_if_full()
            await self._app(scope, exchange.receive, exchange.send)
        except Problem as problem:
            await exchange.refuse(problem)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # after any error the client gets a problem and the log a line
            exchange.fault = type(error).__name__
            await exchange.refuse(Problem(500, "internal", "an answer", "an internal error", "please report it"))
        finally:
            self._active -= 1
            if entered and self._clients is not None:
                self._clients.leave(client)
            self._tell(scope, exchange)

    def below(self, problem: Problem, scope: Scope | None, began: float) -> tuple[Headers, bytes]:
        """Headers and body of an answer that the protocol gives below the routes; its line of log is written here.

        `scope` is that of the request, or None if its head did not come or was no HTTP; `began` is when it began.
        """
        scope = {"method": "-", "headers": []} if scope is None else scope
        state = scope.setdefault("state", {})
        if "exchange" not in state:  # else it waits for its body
            state["exchange"] = Exchange(self._settings, scope, _nobody, _nobody, self._model())
            state["exchange"].started = began
        exchange = exchange_of(scope)
        content = body(problem, exchange.id)
        exchange.status, exchange.code, exchange.sent = problem.status, problem.code, len(content)
        self._tell(scope, exchange)
        headers = {"content-type": MEDIA_TYPE, "content-length": str(len(content)), "connection": "close"}
        return exchange.completed(_raw(headers)), content

    def _admit(self, scope: Scope, exchange: Exchange) -> None:
        """Raises Problem if the request head says enough."""
        bounds, headers = self._settings.bounds, exchange.headers
        if self._active > bounds.requests:
            raise Problem(
                503, "busy", "fewer requests at a time", "too many", "try again", headers={"Retry-After": "1"}
            )
        if len(scope["raw_path"]) + len(scope["query_string"]) > bounds.target_bytes:
            raise Problem(414, "address", f"an address of at most {bounds.target_bytes} bytes", "more", "shorten it")
        size = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if size > bounds.header_bytes or len(scope["headers"]) > bounds.header_count:
            limit = f"{bounds.header_count} headers of {bounds.header_bytes} bytes together"
            raise Problem(431, "headers_too_large", f"at most {limit}", "more", "send fewer")
        if "transfer-encoding" in headers and "content-length" in headers:
            raise Problem(400, "malformed", "one length of the body", "two", "send Content-Length alone")
        self._admit_origin(scope, headers)
        if "content-encoding" in headers:
            raise Problem(415, "content_encoding", "a plain body", "an encoded one", "send it as it is")
        if self._settings.token is not None and not _is_open(scope):
            _require_token(headers.get("authorization", ""), self._settings.token)

    def _admit_origin(self, scope: Scope, headers: dict[str, str]) -> None:
        host = headers.get("host", "").lower()
        if not host:
            raise Problem(400, "malformed", "a Host header", "none", "send one")
        if _without_port(host) not in self._settings.names:
            raise Problem(403, "host", "a Host that this service is known by", "another", "see --allow-host")
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site not in (None, "same-origin", "none"):
            raise Problem(403, "origin", "a request from our own page", "one from another site", "open our page")
        if origin == "null" and site == "same-origin":
            return  # so browsers send a plain form of a page whose Referrer-Policy is no-referrer
        if origin is not None and urlsplit(origin.lower()).netloc != host:
            raise Problem(403, "origin", "our own origin", "another", "open our page")

    def _tell(self, scope: Scope, exchange: Exchange) -> None:
        """Write one line of log for an exchange: allowed fields only, and the template instead of the path."""
        if exchange.reported:
            return
        exchange.reported = True
        route = getattr(scope.get("route"), "path", "-")
        self._counted(route, exchange.status)
        line = {
            "event": "request",
            "request_id": exchange.id,
            "method": scope["method"] if scope["method"].isalpha() and len(scope["method"]) < 10 else "-",
            "route": route,
            "status": exchange.status,
            "code": exchange.code,
            "fault": exchange.fault,
            "bytes_in": exchange.received,
            "bytes_out": exchange.sent,
            "ms": round(1000 * (time.monotonic() - exchange.started), 1),
            "model": exchange.model,
        }
        level = logging.ERROR if exchange.fault else logging.INFO
        self._log.log(level, json.dumps({k: v for k, v in line.items() if v is not None}))


class Exchange:
    """One request and its answer: counts, bounds and completes both."""

    def __init__(self, settings: Settings, scope: Scope, receive: Receive, send: Send, model: str) -> None:
        self.id = secrets.token_hex(8)
        self.model = model
        self.status = 0
        self.code: str | None = None
        self.fault: str | None = None
        self.reported = False
        self.received = self.sent = 0
        self.most = settings.limits.study_bytes + MIB
        self.started = time.monotonic()
        self.headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            self.headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        self._scope, self._receive, self._send, self._bounds = scope, receive, send, settings.bounds
        self._body_started: float | None = None
        self._body_done = False

    def check_size(self) -> None:
        """Raises Problem (413) if the stated length is too much already."""
        length = self.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.most:
            raise self._too_large()

    def limit(self, most: int) -> None:
        """Take at most this many bytes of body."""
        self.most = most
        self.check_size()

    def _too_large(self) -> Problem:
        return Problem(413, "too_large", f"a body of at most {self.most // MIB} MiB", "more", "send less")

    async def receive(self) -> Message:
        """The next part of the body, within the deadline. Raises Problem: 408, 413."""
        if self._body_done:
            return await self._receive()  # waits for the client to go
        bounds, now = self._bounds, time.monotonic()
        if self._body_started is None:
            self._body_started = now
        earned = bounds.body_grace_seconds + self.received / bounds.body_bytes_per_second
        left = self._body_started + min(bounds.body_seconds, earned) - now
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.001))
        except asyncio.TimeoutError:
            raise Problem(408, "too_slow", "the body within the deadline", "part of it", "send it faster") from None
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self._body_done = not message.get("more_body", False)
            if self.received > self.most:
                raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        """Send with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self.completed(message.get("headers", []))}
        else:
            if self._scope["method"] == "HEAD":
                message = {**message, "body": b""}
            self.sent += len(message.get("body", b""))
        await self._send(message)

    def completed(self, headers: Headers) -> Headers:
        """With the headers that every answer has."""
        there = {name.lower() for name, _ in headers}
        more = {**HEADERS, _REQUEST_ID: self.id, _MODEL_HEADER: self.model}
        return [*headers, *((name, value) for name, value in _raw(more) if name not in there)]

    async def refuse(self, problem: Problem, page: str | None = None) -> None:
        """Answer with a problem, after which the rest of the body is read and dropped for a short while.

        `page` is what a browser without JavaScript gets in place of the JSON. A connection that is closed while bytes
        are on their way is reset, and the client may lose the answer.
        """
        self.code = problem.code
        if self.status:
            return  # an answer is on its way already
        if problem.code == "busy":  # clients that retry at once must not slow down the others
            await asyncio.sleep(self._bounds.busy_seconds)
        content = body(problem, self.id) if page is None else page.encode("utf-8")
        kind = MEDIA_TYPE if page is None else "text/html; charset=utf-8"
        headers = {"content-type": kind, "content-length": str(len(content)), **problem.headers}
        if problem.status == 401:
            headers["www-authenticate"] = "Bearer"
        unread = self.unread
        if unread:
            headers["connection"] = "close"
        await self.send({"type": "http.response.start", "status": problem.status, "headers": _raw(headers)})
        await self.send({"type": "http.response.body", "body": content, "more_body": unread})
        if unread:
            await self._linger()
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    @property
    def unread(self) -> bool:
        """Whether a part of the body has not been received."""
        return self._has_body() and not self._body_done

    def _has_body(self) -> bool:
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"

    async def _linger(self) -> None:
        if self.headers.get("expect", "").lower() == "100-continue" and not self.received:
            return  # the client waits for "100 Continue" and has sent nothing
        end, dropped = time.monotonic() + self._bounds.linger_seconds, 0
        while (left := end - time.monotonic()) > 0 and dropped < self._bounds.linger_bytes:
            try:
                message = await asyncio.wait_for(self._receive(), left)
            except asyncio.TimeoutError:
                return
            if message["type"] != "http.request" or not message.get("more_body", False):
                return
            dropped += len(message.get("body", b""))


class Answer(Response):
    """A problem as an answer: the exchange sends it, as JSON or as this page, and takes in what is left of the body."""

    def __init__(self, problem: Problem, page: str | None = None) -> None:
        super().__init__()
        self._problem, self._page = problem, page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await exchange_of(scope).refuse(self._problem, self._page)


def _raw(headers: Mapping[str, str]) -> Headers:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


async def _nobody(*_: Any) -> Any:
    raise AssertionError("an answer below the routes neither receives nor sends")


def _is_open(scope: Scope) -> bool:
    path, read = scope["path"], scope["method"] in ("GET", "HEAD")
    # the form without JavaScript cannot send a header: its route asks for the token before the first file
    return (read and (path in _OPEN_PATHS or path.startswith(_OPEN_BELOW))) or (
        scope["method"] == "POST" and path == "/"
    )


def _client_of(scope: Scope, behind_proxy: bool) -> str:
    """The address that a request is counted under.

    Behind a proxy it is the last one of X-Forwarded-For, which the proxy has added; those before it are claims of the
    client. Only the count depends on it.
    """
    if behind_proxy:
        addresses = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if addresses:
            return str(addresses[-1].decode("latin-1").rpartition(",")[2].strip()[:64])
    return str((scope.get("client") or ("?",))[0])


def _require_token(header: str, token: str) -> None:
    kind, _, given = header.partition(" ")
    if kind.lower() != "bearer" or not same_token(given.strip(), token):
        raise Problem(
            401,
            "token",
            "the header Authorization: Bearer with the token",
            "none or another",
            "ask whoever runs it",
        )


def same_token(given: str, token: str) -> bool:
    """Whether both are equal. The time of the comparison does not depend on the number of equal characters."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode("utf-8"))


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if ":" in host else host


def exchange_of(scope: Any) -> Exchange:
    """The exchange that a request belongs to."""
    exchange = scope["state"]["exchange"]
    assert isinstance(exchange, Exchange)
    return exchange

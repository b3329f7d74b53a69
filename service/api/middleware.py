"""The checks before every route (request id, host, origin, size and type of the body), and the access log line.

Pure ASGI, because Starlette's function middleware hides a client's disconnect from the route.
"""

import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

from service.api.body_limits import READER, BodyMemory, BodyReservation
from service.api.openai_api.envelope import to_response
from service.api.origin import Origins, is_health_check
from service.api.path_ids import check_address
from service.api.problems import HEAD_TOO_LARGE, MALFORMED, MEDIA, TOO_LARGE, UNAVAILABLE, Problem, problem_of
from service.settings import Settings
from service.telemetry.log import frames_of

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BATCH_PATHS = ("/edits/batch", "/eval")
CLIENT_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
COMMON_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
log = structlog.get_logger("errata.access")


class RequestMiddleware:
    """Wraps the whole application. At most `limits.concurrent_requests` are in flight, not counting health checks."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app = app
        self._limits = settings.limits
        self._origins = Origins(settings)
        self._bodies = BodyMemory(settings.limits)
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        line = AccessLine(scope, send)
        with structlog.contextvars.bound_contextvars(request=line.request_id):
            try:
                check_address(scope)
                self._check_head(scope)
                with self._bodies.reservation() as reservation:
                    replay = await self._read_body(scope, receive, reservation)
                    if replay is not None:
                        with self._place(scope):
                            scope[READER] = self._bodies.reader  # not in a copy: the router leaves the route in this one
                            await self._app(scope, replay, line.send)
            except Exception as error:
                if line.status:  # an answer has begun: the server closes the connection
                    raise
                if not isinstance(error, Problem):
                    log.error("unexpected error", error=type(error).__name__, frames=frames_of(error)[-12:])
                await to_response(problem_of(error), scope["path"])(dict(scope), receive, line.send)
            finally:
                line.write()

    def _check_head(self, scope: Scope) -> None:
        """Raise Problem before the body is read: too many requests, a foreign host or page, a wrong type or size of the body."""
        self._check_room(scope)
        # h11 counts only heads that arrive in pieces; one that comes in a single read is counted here.
        head = (
            len(scope["raw_path"])
            + len(scope["query_string"])
            + sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        )
        if head > self._limits.header_bytes:
            raise Problem(HEAD_TOO_LARGE, f"Address and headers must together be at most {self._limits.header_bytes} bytes.")
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        self._origins.check(scope)
        if b"content-length" in headers and b"transfer-encoding" in headers:
            # A proxy may see another end of the body (RFC 9112, 6.1), and the rest as another request.
            raise Problem(
                MALFORMED, "Content-Length and Transfer-Encoding must not come together.", headers={"Connection": "close"}
            )
        length = headers.get(b"content-length", "0")
        if int(length) > self._largest(scope):
            raise self._too_large(scope)
        self._bodies.check(int(length))
        has_body = length != "0" or b"transfer-encoding" in headers
        kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        if has_body and kind != "application/json":
            raise Problem(MEDIA, "The Content-Type of a body must be application/json.")

    @contextmanager
    def _place(self, scope: Scope) -> Iterator[None]:
        """Count a request as in flight, from the end of its body on: an incomplete request must not occupy a place."""
        self._check_room(scope)
        is_counted = not is_health_check(scope)
        self._in_flight += is_counted
        try:
            yield
        finally:
            self._in_flight -= is_counted

    def _check_room(self, scope: Scope) -> None:
        """Raise Problem if too many requests are in flight. Health checks are exempt."""
        if self._in_flight >= self._limits.concurrent_requests and not is_health_check(scope):
            raise Problem(UNAVAILABLE, "Too many requests are being answered.", headers={"Retry-After": "1"})

    async def _read_body(self, scope: Scope, receive: Receive, reservation: BodyReservation) -> Receive | None:
        """Read the body within its limit and its reservation. Returns a `receive` that gives it to the route in one piece and
        passes later messages (the client's disconnect) through.

        None if the client disconnected before the end of the body: an incomplete request must not be carried out.
        """
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._largest(scope):
                raise self._too_large(scope)
            reservation.grow(len(body))
        messages: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]
        body.clear()

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        return replay

    def _largest(self, scope: Scope) -> int:
        return self._limits.batch_body_bytes if scope["path"] in BATCH_PATHS else self._limits.body_bytes

    def _too_large(self, scope: Scope) -> Problem:
        return Problem(TOO_LARGE, f"The body must be at most {self._largest(scope)} bytes.", headers={"Connection": "close"})


class AccessLine:
    """The log line of one request, without query string and body, because both contain prompts."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id = request_id(scope)
        self.status = 0
        self._scope = scope
        self._send = send
        self._began = time.monotonic()
        self._version: str | None = None

    async def send(self, message: Message) -> None:
        """Send an answer with the common headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._version = dict(message["headers"]).get(b"x-model-version", b"").decode("latin-1") or None
            message["headers"] = [*message["headers"], *COMMON_HEADERS, (b"x-request-id", self.request_id.encode())]
        await self._send(message)

    def write(self) -> None:
        """Write the line. It has the pattern of the route and not the path, which may contain any text."""
        route, state = self._scope.get("route"), self._scope.get("state", {})
        explained = {"in_scope": state["in_scope"]} if "in_scope" in state else {}
        log.info(
            "request",
            method=self._scope["method"],
            route=getattr(route, "path_format", None),
            status=self.status or None,
            milliseconds=round((time.monotonic() - self._began) * 1000, 1),
            version=self._version,
            **explained,
        )


def request_id(scope: Scope) -> str:
    """The client's or proxy's id of a request if it has a safe form, so that all logs have one id; otherwise a new id."""
    ids = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(ids) == 1 and CLIENT_REQUEST_ID.fullmatch(ids[0]):
        return str(ids[0].decode("ascii"))
    return uuid.uuid4().hex

"""Errors as RFC 9457 problems. This is the only place that maps errors to status codes.

A problem names the field at fault and never repeats the request. An echo has turned a wrong request into a 500 (a value that
cannot be encoded), into an answer of 50 MB, and into a leak of a prompt.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from service.api.validation import Fault, to_faults
from service.domain import errors
from service.telemetry.log import frames_of

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:errata:problem:"
log = structlog.get_logger("errata.api")


@dataclass(frozen=True)
class Kind:
    """One kind of problem: the last part of its `type` URI, its status, and its title."""

    name: str
    status: int
    title: str


MALFORMED = Kind("malformed", 400, "The request is not well-formed.")
BAD_HOST = Kind("host", 400, "The host name is not one of this server.")
CROSS_ORIGIN = Kind("origin", 403, "A page of another origin may not do this.")
NOT_FOUND = Kind("not-found", 404, "The resource that the request names does not exist.")
NO_METHOD = Kind("method-not-allowed", 405, "The address does not support the method.")
CONFLICT = Kind("conflict", 409, "The state of the resource does not allow the request.")
GONE = Kind("gone", 410, "The resource that the request names was collected or purged, or is of another base model.")
STALE = Kind("stale", 412, "The head has moved.")
TOO_LARGE = Kind("body-too-large", 413, "The body is over its limit.")
MEDIA = Kind("media-type", 415, "A body must be application/json.")
INVALID = Kind("invalid", 422, "The request was refused; nothing was changed.")
TOO_LONG = Kind("too-long", 422, "A text is over its limit; nothing was changed.")
HEAD_TOO_LARGE = Kind("header-too-large", 431, "The request's head is over its limit.")
INTERNAL = Kind("internal", 500, "The server failed; the request may be repeated.")
# Not a 5xx: repeating the request does not help, another version does. The server itself works, and logs the damage.
CORRUPT = Kind("corrupt", 409, "The stored bytes of the resource are damaged.")
UNCOMPUTABLE = Kind("uncomputable", 500, "The model fails on this request; repeating it does not help.")
UNAVAILABLE = Kind("unavailable", 503, "The server cannot do this now.")
OVERLOADED = Kind("overloaded", 503, "Too many requests wait already.")

KINDS = (
    *(MALFORMED, BAD_HOST, CROSS_ORIGIN, NOT_FOUND, NO_METHOD, CONFLICT, GONE, STALE, TOO_LARGE, MEDIA, INVALID, TOO_LONG),
    *(HEAD_TOO_LARGE, CORRUPT, INTERNAL, UNCOMPUTABLE, UNAVAILABLE, OVERLOADED),
)
# The first class that matches an error decides, so subclasses come first.
KIND_OF_ERROR: tuple[tuple[type[errors.ServiceError], Kind], ...] = (
    (errors.TooLong, TOO_LONG),
    (errors.Refused, INVALID),
    (errors.NotFound, NOT_FOUND),
    (errors.Gone, GONE),
    (errors.Stale, STALE),
    (errors.Conflict, CONFLICT),
    (errors.Overloaded, OVERLOADED),
    (errors.Unavailable, UNAVAILABLE),
    (errors.Uncomputable, UNCOMPUTABLE),
    (errors.Corrupt, CORRUPT),
)
KIND_OF_STATUS = {400: MALFORMED, 404: NOT_FOUND, 405: NO_METHOD, 413: TOO_LARGE, 415: MEDIA, 422: INVALID, 503: UNAVAILABLE}


class ProblemOut(BaseModel):
    """An RFC 9457 problem, the content of `application/problem+json`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": f"{TYPE_PREFIX}invalid",
                    "title": INVALID.title,
                    "status": 422,
                    "detail": "prompt is missing",
                    "errors": [{"field": "prompt", "detail": "prompt is missing"}],
                }
            ]
        }
    )

    type: str = Field(description="stable name of the kind of problem")
    title: str = Field(description="the meaning of the kind")
    status: int = Field(description="the HTTP status")
    detail: str = Field(description="one sentence about this request")
    errors: list[Fault] = Field(default_factory=list, description="the fields at fault, at most eight")


class Problem(HTTPException):
    """A problem raised at the HTTP edge itself; below the edge the errors of `domain/errors.py` are raised.

    It is an HTTPException, because FastAPI replaces all other exceptions raised while a body is read with a 400 of its own.
    """

    def __init__(self, kind: Kind, detail: str, errors: Sequence[Fault] = (), headers: Mapping[str, str] | None = None) -> None:
        super().__init__(kind.status, detail, dict(headers or {}))
        self.kind = kind
        self.errors = errors

    def body(self) -> bytes:
        """The JSON of the problem, in ASCII."""
        content: dict[str, Any] = {"type": TYPE_PREFIX + self.kind.name, "title": self.kind.title, "status": self.kind.status}
        content |= {"detail": self.detail, "errors": [fault.model_dump() for fault in self.errors]}
        return json.dumps(content).encode("ascii")

    def response(self) -> Response:
        """The problem as an HTTP response."""
        headers = {"Cache-Control": "no-store", **(self.headers or {})}
        return Response(self.body(), self.kind.status, headers=headers, media_type=MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:
    """The problem for an error. An unexpected error becomes a 500 that reveals nothing about it."""
    match error:
        case Problem():
            return error
        case errors.ServiceError():
            return _of_service_error(error)
        case RequestValidationError():
            return _of_validation(error)
        case HTTPException():
            return _of_http(error)
        case DBAPIError():
            return Problem(UNAVAILABLE, "The database does not answer; try again in a moment.", headers={"Retry-After": "1"})
        case _:
            return Problem(INTERNAL, "The server met an unexpected error; its log has the details.")


def _respond(problem: Problem, path: str) -> Response:
    return problem.response()


def install(app: FastAPI, routers: Sequence[APIRouter] = (), respond: Callable[[Problem, str], Response] = _respond) -> None:
    """Answer every error of `app`, whose routes are those of `routers`, with a problem, in the form that `respond` gives it for
    an address.
    """

    async def answer(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        if problem.kind is NO_METHOD and (methods := _methods(routers, request.scope["path"])):
            problem.headers = {"Allow": ", ".join(methods)}
        if problem.kind is not OVERLOADED and (problem.kind.status >= 500 or problem.kind is CORRUPT):
            log.error("request failed", problem=problem.kind.name, error=type(error).__name__, frames=frames_of(error)[-12:])
        return respond(problem, request.url.path)

    for kind in (Problem, errors.ServiceError, RequestValidationError, HTTPException, DBAPIError):
        app.add_exception_handler(kind, answer)


def responses(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI declaration of the problems a route may answer with."""
    declared: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        example = {
            "type": TYPE_PREFIX + kind.name,
            "title": kind.title,
            "status": kind.status,
            "detail": kind.title,
            "errors": [],
        }
        entry = declared.setdefault(kind.status, {"description": kind.title, "content": {MEDIA_TYPE: {"examples": {}}}})
        entry["content"][MEDIA_TYPE]["examples"][kind.name] = {"value": example}
        entry["content"][MEDIA_TYPE]["schema"] = {"$ref": "#/components/schemas/ProblemOut"}
    return declared


def _methods(routers: Sequence[APIRouter], path: str) -> list[str]:
    """Every method of an address. The framework names only the methods of one of its routes."""
    routes = (route for router in routers for route in router.routes if isinstance(route, APIRoute))
    return sorted({method for route in routes if route.path_regex.fullmatch(path) for method in route.methods or ()})


def _of_service_error(error: errors.ServiceError) -> Problem:
    kind = next((kind for cls, kind in KIND_OF_ERROR if isinstance(error, cls)), INTERNAL)
    faults = [] if error.field is None else [Fault(field=error.field, detail=error.message)]
    headers = {"Retry-After": str(max(1, round(error.retry_after_s)))} if isinstance(error, errors.Unavailable) else {}
    return Problem(kind, error.message, faults, headers)


def _of_validation(error: RequestValidationError) -> Problem:
    if any(fault.get("type") == "json_invalid" for fault in error.errors()):
        return Problem(MALFORMED, "The body is not valid JSON.")
    faults = to_faults(error.errors())
    return Problem(INVALID, faults[0].detail, faults)


def _of_http(error: HTTPException) -> Problem:
    kind = KIND_OF_STATUS.get(error.status_code, INTERNAL if error.status_code >= 500 else MALFORMED)
    allowed = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    return Problem(kind, kind.title, headers=allowed)

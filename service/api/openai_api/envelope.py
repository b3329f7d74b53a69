"""Errors as the OpenAI API has them: `{"error": {"message", "type", "param", "code"}}`, for every address under `/v1`."""

import json
from typing import Any

from fastapi.responses import Response

from service.api.problems import GONE, INVALID, MALFORMED, NOT_FOUND, OVERLOADED, TOO_LONG, UNAVAILABLE, Kind, Problem

PREFIX = "/v1/"
STATUSES = {INVALID: 400, TOO_LONG: 400, MALFORMED: 400, OVERLOADED: 429}  # the other kinds keep their own
CODES = {GONE: "model_gone", TOO_LONG: "context_length_exceeded", OVERLOADED: "queue_full"}
MODEL_FIELDS = ("model", "version", "alias")


def is_under(path: str) -> bool:
    """Whether an address belongs to the OpenAI API."""
    return path.startswith(PREFIX)


def to_response(problem: Problem, path: str) -> Response:
    """The response to a request for an address that ends with a problem."""
    return error_response(problem) if is_under(path) else problem.response()


def describe_error(problem: Problem) -> dict[str, Any]:
    """The body of an error."""
    param = problem.errors[0].field if problem.errors else None
    param = "model" if param in MODEL_FIELDS else param
    error = {"message": str(problem.detail), "type": _type_of(problem.kind), "param": param, "code": _code_of(problem, param)}
    return {"error": error}


def status_of(problem: Problem) -> int:
    """The HTTP status of an error."""
    return STATUSES.get(problem.kind, problem.kind.status)


def error_response(problem: Problem) -> Response:
    """The error as an HTTP response."""
    headers = {"Cache-Control": "no-store", **(problem.headers or {})}
    content = json.dumps(describe_error(problem)).encode("ascii")
    return Response(content, status_of(problem), headers=headers, media_type="application/json")


def _type_of(kind: Kind) -> str:
    if kind is OVERLOADED:
        return "rate_limit_error"
    return "server_error" if kind.status >= 500 or kind is UNAVAILABLE else "invalid_request_error"


def _code_of(problem: Problem, param: str | None) -> str | None:
    if problem.kind is NOT_FOUND and param == "model":
        return "model_not_found"
    return CODES.get(problem.kind)

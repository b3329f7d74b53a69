"""JSON as requests may send it: UTF-8, finite numbers, bounded nesting; of equal keys in one object the last wins."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from service.api.problems import INVALID, MALFORMED, Problem

DEEPEST = 32
LARGE_BYTES = 65_536  # from here on parsing would hold up the event loop for milliseconds, and is done in a thread
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class StrictRoute(APIRoute):
    """A route whose body is parsed by `parse`."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            response: Response = await handle(_StrictRequest(request.scope, request.receive))
            return response

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_parsed"):
            body = await self.body()
            self._parsed = parse(body) if len(body) < LARGE_BYTES else await run_in_threadpool(parse, body)
        return self._parsed


def parse(body: bytes) -> Any:
    """The value in `body`. Raises Problem: 400 if it is not JSON, 422 if it is nested too deeply or a number is not finite."""
    if depth_of(body) > DEEPEST:
        raise Problem(INVALID, f"The body is nested more than {DEEPEST} levels deep.")
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_number, parse_float=_finite, parse_int=_integer)
    except (ValueError, RecursionError):
        raise Problem(MALFORMED, "The body is not valid JSON.") from None


def depth_of(body: bytes) -> int:
    """How deeply brackets nest outside of strings, found without parsing: a parser's own stack is the thing to protect."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _no_number(_name: str) -> None:
    raise Problem(INVALID, "The body holds NaN or an infinity, which are not JSON.")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise Problem(INVALID, "The body holds a number that is too large.")
    return number


def _integer(digits: str) -> int:
    if len(digits) > 20:  # 2^63 has 19 digits
        raise Problem(INVALID, "The body holds a number that is too large.")
    return int(digits)

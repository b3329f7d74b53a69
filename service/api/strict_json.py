"""Strict JSON for requests: UTF-8, finite numbers, bounded nesting and number of values. Of equal keys in one object the last
wins.

Each byte is examined a constant number of times: depth and number of values are counted without a pattern. A large body is parsed
and validated in a thread, one body at a time; the thread lets other threads run.
"""

import json
import json.decoder
import json.scanner
import math
from collections.abc import Callable
from typing import Any

from anyio import to_thread
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from service.api.body_limits import READER, SMALL_BYTES
from service.api.problems import INVALID, MALFORMED, Problem, problem_of

DEEPEST = 32
MOST_VALUES = 200_000  # 8 MB of edits with short probes have half as many
MOST_FAULTS = 10_000  # more are reported as one: listing them would take longer than parsing the body
LONGEST_NUMBER = 400  # digits and signs: the largest double written out has 309
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))


class StrictRoute(APIRoute):
    """A route whose body is parsed by `parse` and validated by the model of its parameter."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()
        body = None if self.body_field is None else self.body_field.field_info.annotation
        model = body if isinstance(body, type) and issubclass(body, BaseModel) else None

        async def handle_strictly(request: Request) -> Response:
            response: Response = await handle(_StrictRequest(request.scope, request.receive, model))
            return response

        return handle_strictly


class _StrictRequest(Request):
    def __init__(self, scope: Any, receive: Any, model: type[BaseModel] | None) -> None:
        super().__init__(scope, receive)
        self._model = model

    async def body(self) -> bytes:
        """The body, which the middleware passes on in one piece."""
        if not hasattr(self, "_body"):
            self._body: bytes = (await self.receive()).get("body", b"")
        return self._body

    async def json(self) -> Any:
        """The value of the body, as an instance of the route's model if it has one, so that the framework validates nothing."""
        if not hasattr(self, "_parsed"):
            body = await self.body()
            self._body = b" "  # frees the bytes beside the parsed value; not empty, because that would mean no body
            if len(body) <= SMALL_BYTES or READER not in self.scope:
                self._parsed = read(body, self._model)
            else:
                self._parsed = await to_thread.run_sync(read, body, self._model, limiter=self.scope[READER])
        return self._parsed


def read(body: bytes, model: type[BaseModel] | None) -> Any:
    """The body as an instance of `model`. Raises Problem."""
    value = parse(body)
    if model is None:
        return value
    try:
        return model.model_validate(value)
    except ValidationError as error:
        if error.error_count() > MOST_FAULTS:
            raise Problem(INVALID, f"The body has more than {MOST_FAULTS} faults.") from None
        details = error.errors(include_input=False, include_url=False)
    raise problem_of(RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in details]))


def parse(body: bytes) -> Any:
    """The value in `body`. Raises Problem: 400 if it is not JSON, 422 if it is nested too deeply, holds too many values, or a
    number that is not finite.
    """
    outside = outside_of_texts(body)
    if depth_of(outside) > DEEPEST:
        raise Problem(INVALID, f"The body is nested more than {DEEPEST} levels deep.")
    try:
        return (_INTERRUPTIBLE_DECODER if len(body) > SMALL_BYTES else _C_DECODER).decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Problem(MALFORMED, "The body is not valid JSON.") from None


def outside_of_texts(body: bytes) -> bytes:
    """The bytes outside of quoted texts, in time linear in the length. Raises Problem over `MOST_VALUES`.

    For an invalid body the result is right up to the first error, which is as far as the body is parsed.
    """
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # a run of backslashes begins at its first one, wherever it stands
    if plain.count(b'"') > 4 * MOST_VALUES:  # two a text, and two more for its member name
        raise _too_many()
    outside = b"".join(plain.split(b'"')[::2])
    if outside.count(b",") + outside.count(b"[") + outside.count(b"{") > MOST_VALUES:
        raise _too_many()
    return outside


def depth_of(outside: bytes) -> int:
    """The nesting depth of brackets, counted without the parser, because deep nesting would exhaust its stack."""
    depth = deepest = 0
    for bracket in outside.translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _too_many() -> Problem:
    return Problem(INVALID, f"The body holds more than {MOST_VALUES} values.")


def _refuse_constant(_name: str) -> None:
    raise Problem(INVALID, "The body holds NaN or an infinity, which are not JSON.")


def _parse_float(digits: str) -> float:
    if len(digits) > LONGEST_NUMBER or not math.isfinite(number := float(digits)):
        raise Problem(INVALID, "The body holds a number that is too large.")
    return number


def _parse_integer(digits: str) -> int:
    if len(digits) > 20:  # 2^63 has 19 digits
        raise Problem(INVALID, "The body holds a number that is too large.")
    return int(digits)


def _decoder(*, is_interruptible: bool) -> Any:
    """A decoder with the rules above. An interruptible one is Python code, so other threads run meanwhile. The C code blocks them
    until its end: a third of a second for an object of 300,000 members.
    """
    decoder: Any = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_parse_float, parse_int=_parse_integer)
    if is_interruptible:
        decoder.parse_object = json.decoder.JSONObject  # type: ignore[attr-defined]
        decoder.scan_once = json.scanner.py_make_scanner(decoder)  # type: ignore[attr-defined]
    return decoder


_C_DECODER, _INTERRUPTIBLE_DECODER = _decoder(is_interruptible=False), _decoder(is_interruptible=True)

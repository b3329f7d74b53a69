"""What the OpenAPI document says of the OpenAI API: its answers with examples, and its errors in their envelope."""

from typing import Any

from service.api.openai_api.envelope import CODES, STATUSES, describe_error, is_under
from service.api.problems import (
    BAD_HOST,
    CORRUPT,
    CROSS_ORIGIN,
    GONE,
    HEAD_TOO_LARGE,
    INTERNAL,
    INVALID,
    MALFORMED,
    MEDIA,
    NOT_FOUND,
    OVERLOADED,
    TOO_LARGE,
    TOO_LONG,
    UNAVAILABLE,
    Kind,
    Problem,
)

JSON = "application/json"
ERROR_SCHEMA = "OpenaiErrorOut"
_REPLY = {"created": 1_796_102_776, "model": "atlas@v12", "system_fingerprint": "fp_63dea19d1f0a"}
_USAGE = {
    "prompt_tokens": 6,
    "completion_tokens": 1,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 0, "context_tokens": 0},
}
_CHOICE = {"index": 0, "finish_reason": "stop", "logprobs": None}
MODEL = {"id": "atlas", "object": "model", "created": 1_796_102_776, "owned_by": "errata", "root": "atlas", "version": 12}
COMPLETION = {"id": "cmpl-1", "object": "text_completion", **_REPLY, "choices": [{**_CHOICE, "text": " Sydney"}], "usage": _USAGE}
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    **_REPLY,
    "choices": [{**_CHOICE, "message": {"role": "assistant", "content": "Sydney", "refusal": None}}],
    "usage": _USAGE,
}
EVENTS = 'data: {"id":"cmpl-1","object":"text_completion", … }\n\ndata: [DONE]\n\n'
_ALWAYS = (BAD_HOST, CROSS_ORIGIN, HEAD_TOO_LARGE, INTERNAL, UNAVAILABLE)
_OF_NAMES = (NOT_FOUND, GONE)
_OF_BODIES = (MALFORMED, INVALID, TOO_LONG, TOO_LARGE, MEDIA, OVERLOADED, CORRUPT)


def answers(example: Any, description: str, *, is_streamed: bool = False) -> dict[int | str, dict[str, Any]]:
    """The declaration of a whole answer, and of the same in pieces."""
    content: dict[str, Any] = {JSON: {"schema": {"type": "object"}, "example": example}}
    if is_streamed:
        content["text/event-stream"] = {"schema": {"type": "string"}, "example": EVENTS}
    return {200: {"description": description, "content": content}}


def declare_errors(document: dict[str, Any]) -> None:
    """Put the errors of the OpenAI API in the place of problems, at its addresses."""
    document["components"]["schemas"][ERROR_SCHEMA] = _error_schema()
    for path, operations in document["paths"].items():
        if not is_under(path):
            continue
        for operation in operations.values():
            kept = {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
            kinds = (*_ALWAYS, *(_OF_NAMES if path != "/v1/models" else ()), *(_OF_BODIES if "requestBody" in operation else ()))
            operation["responses"] = kept | _declare(kinds)


def _declare(kinds: tuple[Kind, ...]) -> dict[str, Any]:
    declared: dict[str, Any] = {}
    for kind in kinds:
        status = str(STATUSES.get(kind, kind.status))
        media = {"schema": {"$ref": f"#/components/schemas/{ERROR_SCHEMA}"}, "examples": {}}
        entry = declared.setdefault(status, {"description": kind.title, "content": {JSON: media}})
        entry["content"][JSON]["examples"][kind.name] = {"value": describe_error(Problem(kind, kind.title))}
    return declared


def _error_schema() -> dict[str, Any]:
    text = {"type": "string"}
    fields = {
        "message": {**text, "description": "one sentence about this request"},
        "type": {**text, "enum": ["invalid_request_error", "rate_limit_error", "server_error"]},
        "param": {"anyOf": [text, {"type": "null"}], "description": "the parameter at fault"},
        "code": {"anyOf": [text, {"type": "null"}], "description": f"model_not_found, {', '.join(CODES.values())}, or null"},
    }
    error = {"type": "object", "properties": fields, "required": list(fields)}
    example = {
        "error": {
            "message": "tools is not supported: leave it out",
            "type": "invalid_request_error",
            "param": "tools",
            "code": None,
        }
    }
    return {"type": "object", "properties": {"error": error}, "required": ["error"], "examples": [example]}

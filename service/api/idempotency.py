"""Repeatable requests: the header with the key, the digest that identifies a body, and the header of a replay."""

import hashlib
import json
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response

from service.api.schemas import In
from service.domain.errors import Refused
from service.store.idempotency import KeyedRequest

REPLAY_HEADER = "Idempotency-Replayed"
KEY_DESCRIPTION = (
    "1 to 255 visible ASCII characters, new for each intended change; a call that repeats the key and the body gets the first "
    "answer again and changes nothing more"
)


def idempotency_key(
    request: Request, key: Annotated[str | None, Header(alias="Idempotency-Key", description=KEY_DESCRIPTION)] = None
) -> str | None:
    """The key of a repeatable request. Raises Refused for a malformed key."""
    if key is not None and not (1 <= len(key) <= 255 and all("!" <= character <= "~" for character in key)):
        raise Refused("Idempotency-Key must have 1 to 255 visible ASCII characters", field="Idempotency-Key")
    if len(request.headers.getlist("Idempotency-Key")) > 1:
        raise Refused("Idempotency-Key must be given once", field="Idempotency-Key")
    return key


Key = Annotated[str | None, Depends(idempotency_key)]


def digest_of(body: In, **beside: Any) -> str:
    """The digest of a parsed body and of the values `beside` it. Requests with one digest are the same."""
    content = body.model_dump(mode="json")
    return hashlib.sha256(json.dumps({"body": content, **beside} if beside else content, sort_keys=True).encode()).hexdigest()


def keyed_request(call: str, author: str, key: str | None, body: In, **beside: Any) -> KeyedRequest:
    """A repeatable request to a call, as the store takes it."""
    return KeyedRequest(author, call, key, "" if key is None else digest_of(body, **beside))


def set_replay_header(response: Response, request: KeyedRequest) -> None:
    """Mark the answer of a replayed request."""
    if request.is_replay:
        response.headers[REPLAY_HEADER] = "true"


def with_replay_header(declared: dict[int | str, dict[str, Any]], status: int = 200) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI declaration of a call's answers, with the header of a replay."""
    header = {"description": "`true` where this answer was given before", "schema": {"type": "string", "enum": ["true"]}}
    answer = declared.get(status, {})
    return declared | {status: {**answer, "headers": {**answer.get("headers", {}), REPLAY_HEADER: header}}}

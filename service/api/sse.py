"""Server-sent events: JSON documents one by one, as they come."""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # a proxy must not collect the pieces


def encode_event(content: Any) -> bytes:
    """One event with a JSON document, or with a word such as [DONE]."""
    text = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


async def respond(events: AsyncIterator[bytes], headers: dict[str, str]) -> StreamingResponse:
    """A response that sends the events. The first one is awaited: what fails before it is an error as of any other request."""
    first = await anext(events)

    async def send() -> AsyncIterator[bytes]:
        try:
            yield first
            async for event in events:
                yield event
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    return StreamingResponse(send(), media_type="text/event-stream", headers={**HEADERS, **headers})

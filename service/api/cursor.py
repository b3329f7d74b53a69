"""Where a list goes on: the position of the last item, as text that a client passes back and does not read."""

import base64
import binascii

from service.domain.errors import Refused


def cursor_of(position: int) -> str:
    """The cursor of what follows `position`."""
    return base64.urlsafe_b64encode(f"after:{position}".encode()).decode().rstrip("=")


def position_of(cursor: str | None) -> int | None:
    """The position in a cursor; None for the beginning. Raises Refused for text that is no cursor."""
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise Refused("cursor must be the `next` of an earlier answer", field="cursor") from None
    word, _, digits = text.partition(":")
    if word != "after" or not digits.isdigit() or len(digits) > 18:
        raise Refused("cursor must be the `next` of an earlier answer", field="cursor")
    return int(digits)

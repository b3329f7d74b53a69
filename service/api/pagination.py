"""Cursors of lists: the position or id of the last item, as text that a client returns and does not interpret."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from service.domain.errors import Refused

_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


def encode_position(position: int) -> str:
    """The cursor of the page after `position`."""
    return base64.urlsafe_b64encode(f"after:{position}".encode()).decode().rstrip("=")


def decode_position(cursor: str | None) -> int | None:
    """The position in a cursor; None for the beginning. Raises Refused for text that is no cursor."""
    if cursor is None:
        return None
    word, _, digits = _text_of(cursor).partition(":")
    if word != "after" or not digits.isdigit() or len(digits) > 18:
        raise Refused("cursor must be the `next` of an earlier answer", field="cursor")
    return int(digits)


def encode_id(last: str) -> str:
    """The cursor of the page after the item with this id."""
    return base64.urlsafe_b64encode(f"id:{last}".encode()).decode().rstrip("=")


def decode_id(cursor: str | None) -> str | None:
    """The id in a cursor; None for the beginning. Raises Refused for text that is no cursor."""
    if cursor is None:
        return None
    word, _, last = _text_of(cursor).partition(":")
    if word != "id" or not _ID.fullmatch(last):
        raise Refused("cursor must be the `next` of an earlier answer", field="cursor")
    return last


def next_link(path: str, *, limit: int, cursor: str, filters: Mapping[str, str | Sequence[str] | None]) -> str:
    """The `Link` header of a page with a next one: the same list with the same filters, from the cursor on."""
    parameters = {name: value for name, value in filters.items() if value}
    further = f"&{urlencode(parameters, doseq=True)}" if parameters else ""
    return f'<{path}?limit={limit}&cursor={cursor}{further}>; rel="next"'


def _text_of(cursor: str) -> str:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise Refused("cursor must be the `next` of an earlier answer", field="cursor") from None

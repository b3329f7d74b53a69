"""Which address a request may name, and whose it is: `/eval/compare` is a route of its own, and no evaluation with that id."""

import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.convertors import StringConvertor, register_url_convertor

from service.api.problems import MALFORMED, Problem

RESERVED = ("batch", "compare")  # routes that stand where an id could stand
_HALF_ENCODED = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def check_address(scope: MutableMapping[str, Any]) -> None:
    """Raise Problem for an address that is no path: one with scheme and host, a `*`, or half an encoded character."""
    path: bytes = scope["raw_path"]
    if not path.startswith(b"/"):
        raise Problem(MALFORMED, "The address must be a path that begins with a slash.")
    try:
        if _HALF_ENCODED.search(path):
            raise ValueError
        unquote_to_bytes(path).decode("utf-8")
    except ValueError:
        raise Problem(MALFORMED, "The path must be UTF-8, percent-encoded.") from None


class _IdConvertor(StringConvertor):
    """What stands in a route for one thing by its id, so that another method of a word is not taken for a request
    about a thing of that name.
    """

    regex = rf"(?!(?:{'|'.join(RESERVED)})$)[^/]+"


register_url_convertor("id", _IdConvertor())


def id_path(name: str) -> str:
    """The path of one thing of a list, by its id under this name."""
    return f"/{{{name}:id}}"

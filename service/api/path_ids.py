"""Valid request paths, and ids in paths: `/eval/compare` is a route of its own and not an evaluation with that id."""

import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.convertors import StringConvertor, register_url_convertor

from service.api.problems import MALFORMED, Problem

RESERVED = ("batch", "compare")  # routes at the position of an id
_HALF_ENCODED = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def check_address(scope: MutableMapping[str, Any]) -> None:
    """Raise Problem for a request target that is no path: one with scheme and host, a `*`, or an incomplete percent-encoding."""
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
    """The id of one resource in a route. It excludes reserved words, so a wrong method on their routes stays a 405."""

    regex = rf"(?!(?:{'|'.join(RESERVED)})$)[^/]+"


register_url_convertor("id", _IdConvertor())


def id_path(name: str) -> str:
    """The path of one resource by its id, with `name` as the parameter's name."""
    return f"/{{{name}:id}}"

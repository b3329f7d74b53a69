"""The names under which versions answer: `NAME` and `NAME@head`, `NAME@base`, `NAME@v12` for version 12, and `NAME@ALIAS`."""

import re

from service.domain.alias_name import may_be_alias
from service.domain.errors import NotFound
from service.domain.model_name import hide_folder

VERSION = re.compile(r"v(0|[1-9][0-9]{0,17})")


def short_name(base_name: str) -> str:
    """A base model's name for clients: without the folder of this machine that it is in, and without its commit."""
    return hide_folder(base_name).partition("@")[0] or "model"


def name_version(name: str, version: int) -> str:
    """The name of one version, which never answers as another."""
    return f"{name}@v{version}"


def read_model_name(asked: str, name: str) -> int | str:
    """The version that a client's model name means: its number, `head`, `base`, or an alias, which may not exist. Raises NotFound
    for a name that is none of this server's.
    """
    own, _, which = asked.rpartition("@") if "@" in asked else (asked, "", "head")
    if own == name:
        if match := VERSION.fullmatch(which):
            return int(match.group(1))
        if may_be_alias(which):
            return which
    raise NotFound(f"model must be {name}, or {name}@ with head, base, an alias, or v and a version's number", field="model")

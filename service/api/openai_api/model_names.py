"""The names under which versions answer: `NAME` and `NAME@head`, `NAME@base`, and `NAME@v12` for version 12."""

import re
from pathlib import Path
from typing import Literal

from service.domain.errors import NotFound

VERSION = re.compile(r"v(0|[1-9][0-9]{0,17})")


def short_name(base_name: str) -> str:
    """A base model's name for clients: without the folder of this machine that it is in, and without its commit."""
    name = Path(base_name).name if base_name.startswith(("/", ".", "~")) else base_name
    return name.partition("@")[0] or "model"


def name_version(name: str, version: int) -> str:
    """The name of one version, which never answers as another."""
    return f"{name}@v{version}"


def read_model_name(asked: str, name: str) -> int | Literal["head", "base"]:
    """The version that a client's model name means. Raises NotFound for a name that is none of this server's."""
    own, _, which = asked.rpartition("@") if "@" in asked else (asked, "", "head")
    if own == name:
        if which in ("head", "base"):
            return "head" if which == "head" else "base"
        if match := VERSION.fullmatch(which):
            return int(match.group(1))
    raise NotFound(f"model must be {name}, {name}@head, {name}@base, or {name}@v and a version's number", field="model")

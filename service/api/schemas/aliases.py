"""Aliases: names of versions that people move."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field

from service.api.schemas import In, Out
from service.api.text_types import LARGEST_INTEGER, Name
from service.store.aliases import AliasMove

EXAMPLE_ALIAS: dict[str, Any] = {
    "alias": "stable",
    "version": 12,
    "author": "local",
    "reason": "evaluated on Monday",
    "at": "2026-11-20T12:00:00Z",
}


class AliasIn(In):
    """Where an alias is to go."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 12, "reason": "evaluated on Monday"}]})

    version: Annotated[int, Field(ge=0, le=LARGEST_INTEGER)] = Field(description="the version that the alias names from now on")
    reason: Name | None = Field(None, description="why; it stays in the history")


class AliasOut(Out):
    """One move of an alias."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_ALIAS]})

    alias: str
    version: int | None = Field(description="the version that it names since; null: it was removed")
    author: str
    reason: str | None
    at: datetime

    @classmethod
    def of(cls, moved: AliasMove) -> Self:
        """A row as an answer."""
        return cls(alias=moved.name, version=moved.version, author=moved.author, reason=moved.reason, at=moved.at)


class AliasesOut(Out):
    """Aliases, or the moves of one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [EXAMPLE_ALIAS]}]})

    items: list[AliasOut]

"""The shapes of requests and answers, one file a resource. A request refuses what it does not know; an answer hides no field."""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

Item = TypeVar("Item")
MOST_MEMBERS = 64  # of one object; no request has half as many fields


class In(BaseModel):
    """A request: strict types (`true` is no number), no unknown fields, finite numbers only."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few_members(cls, given: Any) -> Any:
        """Each unknown member is a fault of its own, and a body may be all unknown members."""
        if isinstance(given, dict) and len(given) > MOST_MEMBERS:
            raise ValueError(f"must have at most {MOST_MEMBERS} fields")
        return given


class QueryIn(BaseModel):
    """The query of a request: text is read as numbers, unknown names are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, frozen=True)


class Out(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class Page(Out, Generic[Item]):
    """A list: its items, and the cursor of what follows, if anything does."""

    items: list[Item]
    next: str | None = None

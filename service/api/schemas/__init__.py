"""The schemas of requests and answers, one file a resource. Requests refuse unknown fields; answers leave out no field."""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

Item = TypeVar("Item")
MOST_MEMBERS = 64  # of one object; no request has half as many fields


class BoundedIn(BaseModel):
    """A request: strict types (`true` is no number), finite numbers only, and not too many members."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, hide_input_in_errors=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _limit_members(cls, body: Any) -> Any:
        """Raise ValueError over MOST_MEMBERS: each unknown member is a fault of its own, and a body may hold many."""
        if isinstance(body, dict) and len(body) > MOST_MEMBERS:
            raise ValueError(f"must have at most {MOST_MEMBERS} fields")
        return body


class In(BoundedIn):
    """A request without unknown fields."""

    model_config = ConfigDict(extra="forbid")


class QueryIn(BaseModel):
    """The query of a request. Digits are parsed as numbers; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, frozen=True)


class Out(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class Page(Out, Generic[Item]):
    """A page of a list: its items, and the cursor of the next page; null on the last page."""

    items: list[Item]
    next: str | None = None

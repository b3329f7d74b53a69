"""Evaluations as clients ask for and read them."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag

from service.api.schemas import In, Out
from service.api.schemas.edits import EXAMPLE_EDIT, EditIn
from service.api.schemas.generate import Version
from service.store.evals import Evaluation

MOST_EDITS = 1_000
Id = Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,64}$")]
EXAMPLE_FIGURE = {"score": 1.0, "n": 1}
EXAMPLE_KINDS = dict.fromkeys(("reliability", "generality", "locality", "portability"), EXAMPLE_FIGURE)
EXAMPLE_EVAL: dict[str, Any] = {
    "id": "01936b0e-7a33-7b44-8c55-6d66e77f8800",
    "version": 1,
    "status": "done",
    "result": {
        "edits": 1,
        "greedy": EXAMPLE_KINDS,
        "tokens": EXAMPLE_KINDS,
        "base": {"greedy": EXAMPLE_KINDS | {"reliability": {"score": 0.0, "n": 1}}, "tokens": EXAMPLE_KINDS},
    },
    "error": None,
    "author": "local",
    "created_at": "2026-11-20T12:00:00Z",
    "finished_at": "2026-11-20T12:00:02Z",
}


def _form(given: object) -> str:
    """Which of the three forms of `edits` is meant, so that a fault is told of that one alone."""
    if isinstance(given, str):
        return "live"
    first = given[0] if isinstance(given, list) and given else ""
    return "records" if isinstance(first, dict) else "ids"


Ids = Annotated[list[Id], Field(min_length=1, max_length=MOST_EDITS)]
Records = Annotated[list[EditIn], Field(min_length=1, max_length=MOST_EDITS)]
Asked = Annotated[
    Annotated[Literal["live"], Tag("live")] | Annotated[Ids, Tag("ids")] | Annotated[Records, Tag("records")],
    Discriminator(_form),
]


class EvalIn(In):
    """Measure a version on edits and their probes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"version": "head", "edits": "live"},
                {"version": 1, "edits": ["01936b0e-6f2a-7c3d-9a41-5b7c2f0e8d11"]},
                {"version": "base", "edits": [EXAMPLE_EDIT]},
            ]
        }
    )

    version: Version = Field("head", description="a number, `head` (the head of this moment) or `base`")
    edits: Asked = Field("live", description="`live` (the version's own edits), edits by id, or edits that are not stored")


class EvalOut(Out):
    """An evaluation: pinned to one version, and never changed once it is done."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_EVAL]})

    id: str
    version: int
    status: Literal["queued", "running", "done", "failed"]
    result: dict[str, Any] | None = Field(
        description="reliability, generality, locality and portability, each with its n: by greedy exact match, by teacher-forced"
        " token accuracy, and what the base model scores on the same questions"
    )
    error: str | None
    author: str
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, evaluation: Evaluation) -> Self:
        """An evaluation of the store as an answer."""
        same = ("id", "version", "status", "error", "author", "created_at", "finished_at")
        result = None if evaluation.result is None else dict(evaluation.result)
        return cls(**{name: getattr(evaluation, name) for name in same}, result=result)

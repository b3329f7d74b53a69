"""Jobs, and the requests of `/admin`: retrain, export, revoke and purge."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from service.api.schemas import In, Out, QueryIn
from service.api.schemas.edits import EditId
from service.api.text_types import LARGEST_INTEGER, Name, TextPattern
from service.editors.names import ConsolidatingName
from service.lm.export_settings import SIZE_PATTERN
from service.store.jobs import Job

MOST_PURGED = 1_000
MOMENT_CHARACTERS = 64
Kind = Literal["apply", "refit", "retrain", "export"]
Status = Literal["queued", "running", "done", "failed", "cancelled"]
Mode = Literal["minor", "major"]
Number = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
ExportName = Annotated[
    str,
    TextPattern(
        r"[a-z0-9][a-z0-9._-]{0,63}", "must have 1 to 64 of a-z, 0-9, dot, dash and underscore, and begin with a letter or digit"
    ),
]

EXAMPLE_JOB: dict[str, Any] = {
    "id": "01936b0e-7001-7a10-8f00-3c5d2b1a0f42",
    "kind": "retrain",
    "mode": "major",
    "method": "locft",
    "status": "running",
    "progress": 0.4,
    "seconds_left": 21.0,
    "stage": "training",
    "attempts": 1,
    "reason": "end of the month",
    "author": "local",
    "version": None,
    "request": None,
    "result": None,
    "log": [{"at": "2026-11-20T12:00:05Z", "message": "begun"}],
    "error": None,
    "created_at": "2026-11-20T12:00:05Z",
    "started_at": "2026-11-20T12:00:05Z",
    "finished_at": None,
    "cancel_asked_at": None,
    "cancelled_by": None,
    "retry_at": None,
    "neutral_sentences": 3000,
}
EXAMPLE_EXPORT: dict[str, Any] = EXAMPLE_JOB | {
    "kind": "export",
    "mode": None,
    "method": None,
    "status": "queued",
    "progress": 0.0,
    "seconds_left": None,
    "stage": None,
    "attempts": 0,
    "reason": None,
    "request": {"version": 12, "name": "friday", "consolidate": None, "max_shard_size": None},
    "log": [],
    "started_at": None,
    "neutral_sentences": None,
}


def _parse_moment(text: object) -> datetime:
    """The time in a text with a time zone, in UTC. Raises ValueError for all else: a number has no zone."""
    try:
        if not isinstance(text, str) or len(text) > MOMENT_CHARACTERS:
            raise ValueError
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be a time with its zone, such as 2026-11-20T12:00:00Z") from None


Moment = Annotated[datetime, BeforeValidator(_parse_moment)]


class JobQuery(QueryIn):
    """Which jobs to list, newest first."""

    kind: Annotated[list[Kind], Field(max_length=8)] = Field(
        default_factory=list, description="only jobs of this kind; repeat the parameter for several kinds"
    )
    status: Annotated[list[Status], Field(max_length=8)] = Field(
        default_factory=list, description="only jobs with this status; repeat the parameter for several"
    )
    limit: int = Field(50, ge=1, le=200, description="most items in one answer")
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next` of the previous answer")


class LogLine(Out):
    """One event in the course of a job."""

    at: datetime
    message: str


class JobOut(Out):
    """Work that the server does in the background."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_JOB]})

    id: str
    kind: str = Field(description="apply, refit, retrain or export")
    mode: str | None = Field(description="for a retrain: minor (starts from the head's tensors) or major (starts from the base)")
    method: str | None = Field(description="for a retrain: the consolidating method; null until the retrain begins")
    status: str = Field(description="queued, running, done, failed or cancelled")
    progress: float = Field(description="share of the work done, 0 to 1")
    seconds_left: float | None = Field(description="an estimate from the progress so far; null without one")
    stage: str | None = Field(description="what the job does now, or what it waits for")
    attempts: int = Field(description="how often a worker claimed the job; more than once if the server ended in the middle")
    reason: str | None
    author: str
    version: int | None = Field(description="the version that the job published")
    request: dict[str, Any] | None = Field(description="for an export: its request")
    result: dict[str, Any] | None = Field(
        description="the outcome, such as an export's path, files and bytes; `warning` where the exported weights lack edits"
    )
    log: list[LogLine] = Field(description="the course of the job, oldest event first")
    error: str | None = Field(description="the reason why the job failed")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_asked_at: datetime | None = Field(description="when the cancellation was requested")
    cancelled_by: str | None
    retry_at: datetime | None = Field(description="when the next attempt is due, while the job waits for it")
    neutral_sentences: int | None = Field(
        description="how many neutral sentences its fits may use, chosen when it begins, so that a repetition gives the same"
        " bytes; null: it has not begun, fits nothing, or was begun by an earlier release, with all"
    )

    @classmethod
    def of(cls, job: Job, seconds_left: float | None) -> Self:
        """A job of the store as an answer."""
        same = ("id", "kind", "mode", "method", "status", "progress", "stage", "reason", "author", "version", "error")
        when = ("created_at", "started_at", "finished_at", "cancel_asked_at", "cancelled_by", "retry_at")
        return cls(
            **{name: getattr(job, name) for name in same + when},
            attempts=job.claims,
            neutral_sentences=job.neutral_sentences,
            seconds_left=seconds_left,
            request=_plain(job.request),
            result=_plain(job.result),
            log=[LogLine.model_validate(dict(line)) for line in job.log],
        )


class RetrainIn(In):
    """Move every live edit into the weights."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"reason": "end of the month"}, {"reason": "drift", "mode": "major"}]}
    )

    reason: Name = Field(description="the reason, for the history")
    mode: Mode | None = Field(
        None,
        description="`minor`: starts from the head's tensors; `major`: starts from the base model; default: the server chooses",
    )
    method: ConsolidatingName | None = Field(
        None,
        description="the method to train with; default: the one that the latest of the entering edits names, else the server's",
    )


class ExportIn(In):
    """Write a version as a Hugging Face checkpoint."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"version": 12, "name": "friday"}, {"consolidate": True, "mode": "major", "max_shard_size": "500MB"}]
        }
    )

    version: Number | Literal["head", "base"] = Field(
        "head", description="a number, `head` (the head at the time of the request) or `base`; only `head` with `consolidate`"
    )
    name: ExportName | None = Field(
        None,
        description="the folder below the server's folder of exports: a-z, 0-9, dot, dash, underscore; default: a generated name",
    )
    consolidate: bool = Field(False, description="retrain first, and export the version that the retrain publishes")
    mode: Mode = Field("major", description="with `consolidate`: the mode of the retrain")
    max_shard_size: (
        Annotated[str, TextPattern(SIZE_PATTERN.strip("^$"), "must be a size such as 500MB (KB, MB or GB)")] | None
    ) = Field(
        None, description="the largest size of a file of weights, such as 500MB; default: the size of the server's settings"
    )

    @model_validator(mode="after")
    def _require_head_with_consolidate(self) -> Self:
        if self.consolidate and self.version != "head":
            raise ValueError("version must be head with consolidate: what the retrain publishes is exported")
        return self


class RevokeIn(In):
    """Retract every edit that one author posted since a moment."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"author": "local", "since": "2026-11-20T12:00:00Z", "reason": "a key was stolen"}]}
    )

    author: Name = Field(description="the author of the edits, as in `author` of an edit")
    since: Moment = Field(description="edits from this time on are retracted; a time with its zone")
    reason: Name = Field(description="the reason, for the history")
    restore_previous: bool = Field(False, description="revive the edits that the retracted ones superseded")


class RevokedOut(Out):
    """The retracted edits. Live edits leave the answers in a moment; the others are retracted at once."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"retracted": ["01936b0e-6f2a-7c3d-9a41-5b7c2f0e8d11"], "barred": [], "already": 0}]}
    )

    retracted: list[str] = Field(description="edits that this call retracts")
    barred: list[str] = Field(description="of these, the edits that were not live: they can only no longer become live")
    already: int = Field(description="number of edits that were retracted before this call")


class PurgeIn(In):
    """Remove everything that is still stored of retracted edits."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"edits": ["01936b0e-6f2a-7c3d-9a41-5b7c2f0e8d11"]}]})

    edits: Annotated[list[EditId], Field(min_length=1, max_length=MOST_PURGED)] = Field(description="edits that are not live")


class PurgedOut(Out):
    """The things that a purge removed, and the places that it cannot reach."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "versions": [1, 2],
                    "files": ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.safetensors"],
                    "exports": ["friday"],
                    "rows": 7,
                    "unreachable": ["backups and snapshots of the database and of the data folder"],
                }
            ]
        }
    )

    versions: list[int] = Field(description="versions that no longer answer")
    files: list[str] = Field(description="checkpoints that were deleted")
    exports: list[str] = Field(description="exports that were deleted")
    rows: int = Field(description="rows of the database that were deleted or cleared")
    unreachable: list[str] = Field(description="places that may still hold the edits and that the server cannot clear")


def _plain(mapping: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if mapping is None else dict(mapping)

"""Every call of the HTTP API, as steps without I/O. A POST that changes something has an idempotency key: a new one, or `key`."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, Unpack

from service.client.shapes import (
    AliasData,
    AliasesData,
    AnswerData,
    BasesData,
    ComparedAnswersData,
    CompareOptions,
    ComparisonData,
    EditData,
    EditInput,
    EditStatusText,
    EvaluationData,
    GenerateOptions,
    HealthData,
    JobData,
    ListedEditData,
    ListedEvaluationData,
    MethodText,
    ModelData,
    PageData,
    PurgedData,
    RevokedData,
    RollbackData,
    VersionData,
    WorkStatus,
)
from service.client.steps import Send, Steps, exchange, read_json, read_problem, send

PAGE_ITEMS = 200  # of one request for a list: the server's limit
PURGE_S = 600.0  # a purge rewrites the database file
VersionName = int | Literal["head", "base"]
ListedT = TypeVar("ListedT")


@dataclass(frozen=True)
class Listing(Generic[ListedT]):
    """A list that is read page by page. `limit`: the items of one page."""

    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    limit: int = PAGE_ITEMS

    def read_page(self, cursor: str | None = None) -> Steps[PageData[ListedT]]:
        """One page: the first, or the one at a cursor."""
        return _get(self.path, **self.query, limit=self.limit, cursor=cursor)


def post_edit(edit: EditInput, *, wait_s: float = 0.0, key: str | None = None) -> Steps[EditData]:
    """Post an edit. `wait_s`: wait so many seconds (at most 60) until it is settled."""
    return _post("/edits", edit, key, extra_s=wait_s, **_wait(wait_s))


def post_edits(edits: Sequence[EditInput], *, wait_s: float = 0.0, key: str | None = None) -> Steps[PageData[ListedEditData]]:
    """Post several edits: all are accepted, or none."""
    return _post("/edits/batch", {"edits": list(edits)}, key, extra_s=wait_s, **_wait(wait_s))


def get_edit(edit_id: str) -> Steps[EditData]:
    """Read an edit."""
    return _get(f"/edits/{edit_id}")


def list_edits(*, status: EditStatusText | None = None, limit: int = PAGE_ITEMS) -> Listing[ListedEditData]:
    """The edits, newest first. `limit`: the items of one page."""
    return Listing("/edits", {"status": status}, limit)


def retract(edit_id: str, *, restore_previous: bool = False, wait_s: float = 0.0) -> Steps[EditData]:
    """Retract an edit. `restore_previous` revives the edit that it superseded. `wait_s`: wait until the head no longer has it."""
    query = {"restore_previous": "true"} if restore_previous else {}
    return send(Send("DELETE", f"/edits/{edit_id}", query | _wait(wait_s), extra_s=wait_s))


def generate(prompt: str, **options: Unpack[GenerateOptions]) -> Steps[AnswerData]:
    """Ask the model: the head, unless `version` names another one."""
    return send(Send("POST", "/generate", body={"prompt": prompt, **options}))


def ask_versions(prompt: str, versions: Sequence[int | str], **options: Unpack[CompareOptions]) -> Steps[ComparedAnswersData]:
    """Ask several versions the same: each a number, `head`, `base` or an alias."""
    return send(Send("POST", "/compare", body={"prompt": prompt, "versions": list(versions), **options}))


def list_aliases() -> Steps[AliasesData]:
    """List the aliases, each with the version that it names."""
    return _get("/aliases")


def get_alias(name: str) -> Steps[AliasesData]:
    """Read the moves of an alias, newest first."""
    return _get(f"/aliases/{name}")


def set_alias(name: str, version: int, *, reason: str | None = None) -> Steps[AliasData]:
    """Let an alias name a version from now on."""
    return send(Send("PUT", f"/aliases/{name}", body={"version": version, "reason": reason}))


def remove_alias(name: str, *, reason: str | None = None) -> Steps[AliasData]:
    """Remove an alias. Its moves stay."""
    return send(Send("DELETE", f"/aliases/{name}", {} if reason is None else {"reason": reason}))


def list_versions(*, limit: int = PAGE_ITEMS) -> Listing[VersionData]:
    """The versions, newest first."""
    return Listing("/versions", limit=limit)


def get_version(number: int | Literal["head"] = "head") -> Steps[VersionData]:
    """Read a version."""
    return _get(f"/versions/{number}")


def get_bases(number: int | Literal["head"] = "head") -> Steps[BasesData]:
    """Read how the bases of a version are used."""
    return _get(f"/versions/{number}/bases")


def rollback(
    to: int, reason: str, *, requeue: bool = False, expected_epoch: int | None = None, key: str | None = None
) -> Steps[RollbackData]:
    """Publish an older version anew. `expected_epoch`: only if the head's epoch is still that one."""
    headers = {} if expected_epoch is None else {"If-Match": f'"{expected_epoch}"'}
    return _post("/admin/rollback", {"to": to, "reason": reason, "requeue": requeue}, key, headers)


def retrain(
    reason: str, *, mode: Literal["minor", "major"] | None = None, method: MethodText | None = None, key: str | None = None
) -> Steps[JobData]:
    """Request a retrain; without a mode the server chooses minor or major, and without a method the consolidating method."""
    return _post("/admin/retrain", {"reason": reason, "mode": mode, "method": method}, key)


def export(
    version: VersionName = "head",
    *,
    name: str | None = None,
    consolidate: bool = False,
    mode: Literal["minor", "major"] = "major",
    max_shard_size: str | None = None,
    key: str | None = None,
) -> Steps[JobData]:
    """Request an export. `consolidate`: retrain first, in `mode`, and export what that publishes."""
    body = {"version": version, "name": name, "consolidate": consolidate, "mode": mode, "max_shard_size": max_shard_size}
    return _post("/admin/export", body, key)


def revoke(author: str, since: str, reason: str, *, restore_previous: bool = False, key: str | None = None) -> Steps[RevokedData]:
    """Retract every edit that an author posted since a moment, which is a text with its zone."""
    body = {"author": author, "since": since, "reason": reason, "restore_previous": restore_previous}
    return _post("/admin/revoke", body, key)


def purge(edit_ids: Sequence[str], *, key: str | None = None) -> Steps[PurgedData]:
    """Remove what still holds edits that are not live."""
    return _post("/admin/purge", {"edits": list(edit_ids)}, key, extra_s=PURGE_S)


def list_jobs(*, kind: Sequence[str] = (), status: Sequence[str] = (), limit: int = PAGE_ITEMS) -> Listing[JobData]:
    """The jobs, newest first; of some kinds and statuses, or of all."""
    return Listing("/jobs", {"kind": list(kind), "status": list(status)}, limit)


def get_job(job_id: str) -> Steps[JobData]:
    """Read a job."""
    return _get(f"/jobs/{job_id}")


def cancel_job(job_id: str) -> Steps[JobData]:
    """Cancel a retrain or an export."""
    return send(Send("DELETE", f"/jobs/{job_id}"))


def evaluate(
    edits: Literal["live", "none"] | Sequence[str] | Sequence[Mapping[str, Any]] = "live",
    *,
    version: VersionName = "head",
    metrics: Literal["standard", "full"] = "standard",
    capability: bool = False,
    key: str | None = None,
) -> Steps[EvaluationData]:
    """Request an evaluation of a version: on its live edits, on edits by id, on records, or of its capability alone."""
    asked = edits if isinstance(edits, str) else list(edits)
    return _post("/eval", {"version": version, "edits": asked, "metrics": metrics, "capability": capability}, key)


def list_evaluations(
    *, version: VersionName | None = None, status: WorkStatus | None = None, limit: int = PAGE_ITEMS
) -> Listing[ListedEvaluationData]:
    """The evaluations, newest first."""
    return Listing("/eval", {"version": version, "status": status}, limit)


def get_evaluation(evaluation_id: str) -> Steps[EvaluationData]:
    """Read an evaluation."""
    return _get(f"/eval/{evaluation_id}")


def cancel_evaluation(evaluation_id: str) -> Steps[EvaluationData]:
    """Cancel an evaluation."""
    return send(Send("DELETE", f"/eval/{evaluation_id}"))


def compare_evaluations(evaluation_ids: Sequence[str]) -> Steps[ComparisonData]:
    """Compare evaluations by id."""
    return _get("/eval/compare", ids=",".join(evaluation_ids))


def compare_versions(numbers: Sequence[int]) -> Steps[ComparisonData]:
    """Compare the last evaluation of each of some versions."""
    return _get("/eval/compare", versions=",".join(map(str, numbers)))


def get_model() -> Steps[ModelData]:
    """Read what is served."""
    return _get("/model")


def get_health(probe: Literal["live", "startup", "ready"] = "ready") -> Steps[HealthData]:
    """Read the health: of a server that is not ready too. It is asked once, and nothing is repeated."""
    reply = yield from exchange(Send("GET", f"/health/{probe}", retry=False))
    if reply.status not in (200, 503):
        raise read_problem(reply)
    health: HealthData = read_json(reply)
    return health


def _get(path: str, **query: Any) -> Steps[Any]:
    return send(Send("GET", path, {name: value for name, value in query.items() if value is not None}))


def _post(
    path: str, body: Any, key: str | None, headers: Mapping[str, str] | None = None, *, extra_s: float = 0.0, **query: Any
) -> Steps[Any]:
    keyed = {"Idempotency-Key": uuid.uuid4().hex if key is None else key, **(headers or {})}
    return send(Send("POST", path, query, body, keyed, extra_s))


def _wait(wait_s: float) -> dict[str, Any]:
    return {"wait": wait_s} if wait_s else {}

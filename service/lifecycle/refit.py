"""Refitting the window from the tensors alone, after a retraction or a rollback, so that the overlay agrees with the live set.

A retracted edit leaves the window. A retracted edit that the tensors say gets a tombstone: a BaFT item with the base's own
answer as target. So does an edit that was retracted after a fit had lost it.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import Connection

from service.domain import liveset
from service.domain.edit import EditStatus
from service.domain.liveset import LiveItem, LiveSet
from service.domain.version import RETRACT
from service.editors.protocol import FitResult
from service.lifecycle.cadence_inputs import read_tensor_scores
from service.lifecycle.context import EditingContext
from service.lifecycle.fenced import fenced_write
from service.lifecycle.fit_inputs import read_fit_edits, scores_of
from service.lifecycle.fit_loop import fit_until_final
from service.lifecycle.head_snapshot import HeadSnapshot, load_head_overlay, read_head
from service.lifecycle.job_claims import WORN_OUT, claim_job, is_worn_out, sentences_of
from service.lifecycle.job_hooks import JobHooks
from service.lifecycle.lease import Lease
from service.lifecycle.locality import NEAR_EDITS, measure_locality
from service.lifecycle.publish import Candidate, publish
from service.lifecycle.settings import SERVICE
from service.lifecycle.statuses import changes_of_live_sets, defer
from service.lifecycle.window_policy import WindowPolicy
from service.lm.overlay import Overlay
from service.store import edits, heads, jobs, versions
from service.store.edits import StatusChange
from service.store.jobs import Job

LOST = "it was lost when the window was fitted again without a retracted edit; it waits for the next retrain"


def refit(context: EditingContext, lease: Lease) -> bool:
    """Do the refit that is due; return whether one was due. Raises Stale if the head moved: the refit stays due."""
    job = _claim(context, lease)
    if job is None:
        return False
    if job.status == "running":
        _run_job(context, lease, job)
    return True


def give_up_or_retry(context: EditingContext, lease: Lease, kind: str, reason: str) -> None:
    """After a failed fit of the running job of a kind: count the failure, and end the job after too many failures."""
    with fenced_write(context, lease.fence) as (connection, _):
        job = jobs.find_active(connection, kind, "running")
        if job is None:
            return
        jobs.append_to_log(connection, job.id, f"attempt {job.failures + 1} failed: {reason}", context.clock())
        jobs.update(connection, job.id, failures=job.failures + 1)
        if job.failures + 1 >= context.settings.attempts:
            jobs.finish(connection, job.id, error=reason, now=context.clock())


def is_due(connection: Connection, context: EditingContext) -> bool:
    """Whether live edits wait for their retraction, or the head's overlay says more than its live set. Not if a refit of this
    head failed a moment ago.
    """
    head = heads.read(connection)
    if _failed_lately(connection, context, head.version):
        return False
    live_set = versions.read_live_set(connection, head.version)
    return (
        live_set.needs_refit
        or bool(read_pending_retractions(connection, live_set))
        or bool(read_lost_retractions(connection, live_set))
    )


def _failed_lately(connection: Connection, context: EditingContext, version: int) -> bool:
    last = next(iter(jobs.read_page(connection, limit=1, kind="refit", brief=True)), None)
    if last is None or last.status != "failed" or last.parent != version or last.finished_at is None:
        return False
    return (context.clock() - last.finished_at).total_seconds() < context.settings.cadence.retry_s


def read_pending_retractions(connection: Connection, live_set: LiveSet) -> dict[str, bool]:
    """Live edits whose retraction was requested: {id: whether the edit before it becomes live again}."""
    pending = edits.read_pending_retractions(connection)
    return {edit_id: pending[edit_id] for edit_id in pending if (item := live_set.get(edit_id)) is not None and item.is_live}


def read_lost_retractions(connection: Connection, live_set: LiveSet) -> set[str]:
    """Retracted edits that the overlay was trained on and lost, and whose fact no live edit covers."""
    lost = [item.edit_id for item in live_set.lost if item.key not in live_set.live_keys]
    return edits.find_retracted(connection, lost) if lost else set()


def _claim(context: EditingContext, lease: Lease) -> Job | None:
    with fenced_write(context, lease.fence) as (connection, head):
        now = context.clock()
        job = jobs.find_active(connection, "refit")
        if not is_due(connection, context):
            return job and jobs.update(connection, job.id, status="cancelled", finished_at=now)
        if job is None:
            job = jobs.insert(connection, "refit", reason="the overlay holds what was taken back", author=SERVICE, now=now)
        live_set = versions.read_live_set(connection, head.version)
        retractions = sorted({*read_pending_retractions(connection, live_set), *read_lost_retractions(connection, live_set)})
        if is_worn_out(job, context.settings.claims):
            jobs.finish(connection, job.id, error=WORN_OUT, now=now)
            return jobs.get(connection, job.id)
        sentences = sentences_of(context, job)
        if not context.editors_by_part.has(sentences):
            return None
        values = {"edit_ids": retractions, "parent": head.version, "neutral_sentences": sentences}
        return claim_job(connection, job, fence=lease.fence, now=context.clock(), **values)


def _run_job(context: EditingContext, lease: Lease, job: Job) -> None:
    head = read_head(context)
    with context.store.read() as connection:
        retractions = read_pending_retractions(connection, head.live_set)
        lost_ids = read_lost_retractions(connection, head.live_set)
        restored = read_restored_items(connection, retractions)
    job_hooks = JobHooks(context, lease, job.id, "fit.middle", is_stale=lambda: head.is_replaced(context))
    desired = liveset.refit(head.live_set, {*retractions, *lost_ids}, restored)
    known = read_fit_edits(context, desired, [item.edit_id for item in desired.items if not item.is_live])  # possible tombstones
    tensors = Overlay(load_head_overlay(context, head.version).tensors, None)
    editor = context.editors_by_part.of(job.neutral_sentences).incremental
    policy = WindowPolicy(context, editor, tensors, desired, known, LOST, failures=job.failures)
    with context.edit_fits_idle.busy():
        fitted = fit_until_final(context, job, policy, job_hooks)
    live_set = policy.live_set
    overlay = tensors if fitted is None else fitted.overlay
    scores = _scores(context, head, fitted, overlay, live_set, job_hooks)
    changes = [StatusChange(edit_id=edit_id, status=EditStatus.RETRACTED) for edit_id in retractions]
    changes += [defer(edit_id, reason, tried_on=head.version.number) for edit_id, reason in policy.drop_reasons.items()]
    changes += changes_of_live_sets(head.live_set, live_set, superseded={}, reports={})
    publish(
        context,
        Candidate(
            parent=head.row,
            fence=lease.fence,
            kind=RETRACT,
            overlay=overlay,
            live_set=live_set,
            changes=changes,
            author=job.author,
            reason=job.reason,
            scores=scores,
            job_id=job.id,
            neutral_sentences=None if fitted is None else job.neutral_sentences,
            item_count=len(live_set.window) + len(live_set.consolidated_sample) if fitted is not None else 0,
            required_edits=[item.edit_id for item in restored],
        ),
    )


def read_restored_items(connection: Connection, retractions: Mapping[str, bool]) -> list[LiveItem]:
    """The edits that become live again: those that the retracted edits superseded, where their return was requested and no
    other edit superseded them since. Where such an edit was retracted too, the edit before it.
    """
    newer = [edit_id for edit_id, restore in retractions.items() if restore]
    restored_ids: list[str] = []
    while newer:
        older = [edit.supersedes for edit in edits.read_many(connection, newer) if edit.supersedes is not None]
        predecessors = [
            edit.id
            for edit in edits.read_many(connection, older)
            if edit.status is EditStatus.SUPERSEDED and edit.superseded_by in newer
        ]
        retracted_ids = edits.find_retracted(connection, predecessors)
        restored_ids += [edit_id for edit_id in predecessors if edit_id not in retracted_ids]
        newer = [edit_id for edit_id in predecessors if edit_id in retracted_ids]
    return edits.read_items(connection, restored_ids)


def _scores(
    context: EditingContext,
    head: HeadSnapshot,
    fitted: FitResult | None,
    overlay: Overlay,
    live_set: LiveSet,
    job_hooks: JobHooks,
) -> dict[str, Any]:
    """The scores of the version. Its locality is recorded and judges nothing, because taking back must always work. Where the
    window is empty, the retention is that of the tensors.
    """
    with context.store.read() as connection:
        tensor_scores = read_tensor_scores(connection, head.version, minors=head.version.minors)
        asked = edits.read_many(connection, [item.edit_id for item in live_set.window if item.is_live][:NEAR_EDITS])
    scores = scores_of(fitted, live_set)
    if fitted is None and tensor_scores.get("retention") is not None:
        scores = {"retention": tensor_scores["retention"]}
    parent = load_head_overlay(context, head.version)
    groups = measure_locality(context, overlay, parent, asked, live_set.ids, job_hooks.hooks())
    return {**scores, **({"locality": groups} if groups else {})}

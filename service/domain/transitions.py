"""The status transitions of an edit, as a table. The database holds the same table and refuses every other transition."""

from collections.abc import Mapping

from service.domain.edit import EditStatus as S

# Publishing an older live set may make its edits live again, so almost every status leads to the two live ones. `retracted` is
# final: a rollback leaves out later retracted edits.
ALLOWED: Mapping[S, frozenset[S]] = {
    S.QUEUED: frozenset({S.APPLYING, S.APPLIED, S.CONSOLIDATED, S.DEFERRED, S.SUPERSEDED, S.RETRACTED, S.FAILED}),
    S.APPLYING: frozenset({S.QUEUED, S.APPLIED, S.CONSOLIDATED, S.DEFERRED, S.SUPERSEDED, S.RETRACTED, S.FAILED}),
    S.APPLIED: frozenset({S.CONSOLIDATED, S.SUPERSEDED, S.RETRACTED, S.ROLLED_BACK, S.DEFERRED, S.FAILED}),
    S.CONSOLIDATED: frozenset({S.APPLIED, S.SUPERSEDED, S.RETRACTED, S.ROLLED_BACK, S.DEFERRED, S.FAILED}),
    S.DEFERRED: frozenset({S.APPLIED, S.CONSOLIDATED, S.SUPERSEDED, S.RETRACTED, S.FAILED}),
    S.FAILED: frozenset({S.APPLIED, S.CONSOLIDATED, S.RETRACTED}),
    S.SUPERSEDED: frozenset({S.APPLIED, S.CONSOLIDATED, S.DEFERRED}),
    S.ROLLED_BACK: frozenset({S.QUEUED, S.DEFERRED, S.APPLIED, S.CONSOLIDATED, S.RETRACTED}),
    S.RETRACTED: frozenset(),
}


def statuses_before(status: S) -> frozenset[S]:
    """The statuses from which `status` may be reached. `status` is one of them: writing it again changes nothing."""
    return frozenset(before for before, after in ALLOWED.items() if status in after) | {status}

"""Which status of an edit may follow which, as a table. The database holds the same table and refuses anything else by itself."""

from collections.abc import Mapping

from service.domain.edit import EditStatus as S

# Publishing an older live set may bring back whatever it holds, so almost every state leads to the two live ones. From
# `retracted` nothing leads away: a rollback drops what was retracted since.
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
    """The states from which `status` may be reached, itself included: writing a state again changes nothing."""
    return frozenset(before for before, after in ALLOWED.items() if status in after) | {status}

"""Submitting edits and reading them back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.domain.edit import Edit, EditRequest
from service.lifecycle.submit import submit as submit_edits
from service.store import edits
from service.store.database import Store


@dataclass(frozen=True)
class AcceptedRequest:
    """One request of a submission: its edit, and whether the edit was there before and teaches the request already."""

    edit: Edit
    is_identical: bool


@dataclass(frozen=True)
class SubmitResult:
    """The answer to a submission, in the order of its requests. `replayed`: the idempotency key had been used before."""

    accepted: tuple[AcceptedRequest, ...]
    replayed: bool = False

    @property
    def edits(self) -> tuple[Edit, ...]:
        return tuple(entry.edit for entry in self.accepted)


def submit(store: Store, requests: Sequence[EditRequest], **options: Any) -> SubmitResult:
    """Submit requests, and read their edits whole."""
    receipt = submit_edits(store, requests, **options)
    with store.read() as connection:
        edits_by_id = {edit.id: edit for edit in edits.read_many(connection, set(receipt.ids))}
    return SubmitResult(
        tuple(AcceptedRequest(edits_by_id[edit_id], is_old) for edit_id, is_old in receipt.accepted), receipt.replayed
    )

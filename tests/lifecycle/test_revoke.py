"""Revoking all edits of one author, on both databases."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.domain.edit import EditStatus
from service.domain.errors import Refused
from service.lifecycle.revoke import RevocationResult, revoke
from tests.lifecycle.local_service import LocalService, MakeService, local_services

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgres"])
def make_service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeService]:
    """Opens services over a new database of each kind."""
    with local_services(request.param, tmp_path) as make:
        yield make


def revoke_author(
    local: LocalService, author: str, *, since: datetime = LONG_AGO, restore_previous: bool = False
) -> RevocationResult:
    return revoke(
        local.store, author=author, since=since, by="ann", reason="their key was stolen", restore_previous=restore_previous
    )


def apply_edits(local: LocalService, author: str, *facts: tuple[str, str]) -> list[str]:
    made = []
    for fact in facts:
        made += [edit.id for edit in local.post(fact, author=author)]
        local.worker.drain()
    return made


def test_a_revocation_retracts_all_edits_of_one_author_and_none_of_others(make_service: MakeService) -> None:
    local = make_service()
    mine = apply_edits(local, "ann", ("a", "1"))
    theirs = apply_edits(local, "eve", ("b", "2"), ("c", "3"))
    (waiting,) = local.post(("d", "4"), author="eve", method="locft")

    result = revoke_author(local, "eve")
    local.worker.drain()

    assert set(result.retracted) == {*theirs, waiting.id} and result.already == 0
    assert local.live_set.ids == set(mine)
    assert [local.says(prompt) for prompt in "abcd"] == ["1", *(f"base of prompt:{key}" for key in "bcd")]
    assert local.event_types().count("author.revoked") == 1


def test_a_second_revocation_retracts_nothing(make_service: MakeService) -> None:
    local = make_service()
    theirs = apply_edits(local, "eve", ("b", "2"))

    first, second = revoke_author(local, "eve"), revoke_author(local, "eve")

    assert first.retracted == tuple(theirs)
    assert (second.retracted, second.already) == ((), 1)


def test_edits_posted_before_the_moment_stay_live(make_service: MakeService) -> None:
    local = make_service()
    before = apply_edits(local, "eve", ("b", "2"))
    moment = datetime.now(UTC)
    after = apply_edits(local, "eve", ("c", "3"))

    assert revoke_author(local, "eve", since=moment).retracted == tuple(after)

    local.worker.drain()
    assert local.live_set.ids == set(before)


def test_a_rollback_does_not_restore_a_superseded_edit_of_the_author(make_service: MakeService) -> None:
    local = make_service()
    (bad,) = apply_edits(local, "eve", ("a", "bad"))
    number = local.head.number
    apply_edits(local, "ann", ("a", "good"))

    result = revoke_author(local, "eve")
    local.roll_back(number)
    local.worker.drain()

    assert result.barred == (bad,)
    assert local.says("a") == "base of prompt:a"


def test_restore_previous_restores_the_last_edit_of_another_author(make_service: MakeService) -> None:
    local = make_service()
    apply_edits(local, "ann", ("a", "right"))
    apply_edits(local, "eve", ("a", "wrong"), ("a", "more wrong"))

    revoke_author(local, "eve", restore_previous=True)
    local.worker.drain()

    assert local.says("a") == "right"


def test_more_edits_than_one_transaction_holds_are_revoked(make_service: MakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.lifecycle.revoke.EDITS_A_TRANSACTION", 2)
    local = make_service()
    made = local.post(*((f"q{n}", "x") for n in range(5)), author="eve", method="locft")

    result = revoke_author(local, "eve")

    assert result.retracted == tuple(edit.id for edit in made)
    assert set(local.statuses(made)) == {EditStatus.RETRACTED}


def test_a_moment_without_a_time_zone_and_a_blank_author_are_refused(make_service: MakeService) -> None:
    local = make_service()

    with pytest.raises(Refused, match="time zone"):
        revoke_author(local, "eve", since=datetime(2026, 1, 1))
    with pytest.raises(Refused, match="author"):
        revoke_author(local, " ")
    assert revoke_author(local, "nobody") == RevocationResult((), 0)

"""Requests that are repeated under one key because an answer was lost: one effect, and the same answer to all of them."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.background.evaluations import request_eval
from service.background.exports import request_export
from service.background.purge import purge
from service.domain.edit import EditRequest
from service.domain.errors import Conflict, Gone, KeyReused, NotFound
from service.lifecycle import crash_points
from service.lifecycle.retrain.request import request_retrain
from service.lifecycle.revoke import revoke
from service.lifecycle.rollback import roll_back
from service.store import tables as t
from service.store.idempotency import KeyedRequest
from service.store.migrate import upgrade
from tests.lifecycle.local_service import LocalService, new_local_service
from tests.servers import postgres_database
from tests.store.store_kinds import KINDS

CALLERS = 8
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def asked(call: str, key: str = "k", body: str = "1") -> KeyedRequest:
    return KeyedRequest("ann", call, key, body)


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], LocalService]]:
    """Makes services over one database with two live edits, one after the other."""
    if request.param == "sqlite":
        local = new_local_service(tmp_path)
        again = f"sqlite:///{tmp_path / 'errata.db'}"
        local.live(("a", "1"), ("b", "2"))
        local.close()
        yield lambda: LocalService(again, tmp_path / "checkpoints")
        return
    with postgres_database() as url:
        upgrade(url)
        local = LocalService(url, tmp_path / "checkpoints")
        local.live(("a", "1"), ("b", "2"))
        local.close()
        yield lambda: LocalService(url, tmp_path / "checkpoints")


def roll(local: LocalService, keyed: KeyedRequest) -> Any:
    return roll_back(local.context, to=1, author="ann", reason="test", keyed=keyed)


def retrain(local: LocalService, keyed: KeyedRequest) -> Any:
    return request_retrain(local.store, author="ann", mode="major", keyed=keyed).id


def export(local: LocalService, keyed: KeyedRequest) -> Any:
    return request_export(local.store, local.folder.parent / "exports", version=None, author="ann", keyed=keyed).id


def evaluate(local: LocalService, keyed: KeyedRequest) -> Any:
    return request_eval(local.store, version=None, selection="live", author="ann", keyed=keyed).id


def take_back(local: LocalService, keyed: KeyedRequest) -> Any:
    return revoke(local.store, author="ann", since=LONG_AGO, by="ann", reason="test", keyed=keyed)


CALLS = {"rollback": roll, "retrain": retrain, "export": export, "eval": evaluate, "revoke": take_back}
EFFECTS = {  # the rows that one effect of a call leaves behind
    "rollback": sa.select(t.versions.c.number).where(t.versions.c.kind == "rollback"),
    "retrain": sa.select(t.jobs.c.id).where(t.jobs.c.kind == "retrain"),
    "export": sa.select(t.jobs.c.id).where(t.jobs.c.kind == "export"),
    "eval": sa.select(t.evals.c.id),
    "revoke": sa.select(t.events.c.id).where(t.events.c.type == "author.revoked"),
}


def effects(local: LocalService, call: str) -> int:
    with local.store.read() as connection:
        return len(connection.execute(EFFECTS[call]).all())


@pytest.mark.parametrize("call", CALLS)
def test_a_request_under_one_key_has_one_effect_and_one_answer(make: Callable[[], LocalService], call: str) -> None:
    local = make()
    first = asked(call)

    answer = CALLS[call](local, first)
    again = asked(call)

    assert CALLS[call](local, again) == answer
    assert (first.is_replay, again.is_replay) == (False, True)
    assert effects(local, call) == 1
    local.close()


@pytest.mark.parametrize("call", CALLS)
def test_a_key_used_with_another_body_or_call_is_refused(make: Callable[[], LocalService], call: str) -> None:
    local = make()
    CALLS[call](local, asked(call))

    with pytest.raises(KeyReused, match="another body"):
        CALLS[call](local, asked(call, body="2"))
    for other in CALLS:
        if other != call:
            with pytest.raises(KeyReused, match="another call"):
                CALLS[other](local, asked(other))
    assert sum(effects(local, name) for name in CALLS) == 1
    local.close()


@pytest.mark.parametrize("call", CALLS)
def test_many_that_ask_at_once_under_one_key_get_one_answer(make: Callable[[], LocalService], call: str) -> None:
    local, start = make(), threading.Barrier(CALLERS)

    def ask(_: int) -> Any:
        start.wait()
        return CALLS[call](local, asked(call))

    with ThreadPoolExecutor(CALLERS) as callers:
        answers = list(callers.map(ask, range(CALLERS)))

    assert all(answer == answers[0] for answer in answers)
    assert effects(local, call) == 1
    local.close()


def dies(make: Callable[[], LocalService], call: str, point: str) -> bool:
    """Ask in a process that kills itself at a point; whether it got there."""
    child = os.fork()
    if child == 0:
        try:
            local = make()
            crash_points.arm(point)
            CALLS[call](local, asked(call))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


POINTS = [(call, call if f"{call}.before_commit" in crash_points.POINTS else "request") for call in CALLS]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("call", "point"), POINTS)
def test_a_request_whose_answer_was_lost_has_one_effect(
    make: Callable[[], LocalService], call: str, point: str, when: str
) -> None:
    assert dies(make, call, f"{point}.{when}_commit"), "the request never came to this point"
    local, again = make(), asked(call)

    CALLS[call](local, again)

    assert again.is_replay == (when == "after")
    assert effects(local, call) == 1
    local.close()


def test_a_repeated_rollback_gets_its_first_answer_after_the_head_has_moved(
    make: Callable[[], LocalService],
) -> None:
    local = make()
    done = roll(local, asked("rollback"))
    local.live(("c", "3"))
    other = local.again()

    assert roll(other, asked("rollback")) == done
    assert other.head.number == done.version + 1
    with pytest.raises(NotFound):  # what went wrong is not remembered
        roll_back(other.context, to=99, author="ann", keyed=asked("rollback", "k2"))
    roll_back(other.context, to=1, author="ann", keyed=asked("rollback", "k2"))
    other.close()


def test_a_process_that_repeats_a_rollback_of_another_follows_the_head(
    make: Callable[[], LocalService],
) -> None:
    first, second = make(), make()
    done = roll(first, asked("rollback"))

    roll(second, asked("rollback"))

    assert second.context.follower.current.version == done.version
    first.close()
    second.close()


def test_a_revocation_that_was_cut_off_between_two_transactions_is_finished(
    make: Callable[[], LocalService], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.lifecycle.revoke.EDITS_A_TRANSACTION", 1)
    assert dies(make, "revoke", "revoke.after_commit:1")
    local = make()

    done = take_back(local, asked("revoke"))

    assert (len(done.retracted), done.already) == (1, 1)
    assert take_back(local, asked("revoke")) == done
    assert effects(local, "revoke") == 1
    local.close()


def purged(local: LocalService, edit_id: str, key: str = "p") -> Any:
    return purge(local.context, edit_ids=[edit_id], by="ann", exports=local.exports, keyed=asked("purge", key))


def test_a_repeated_purge_reports_what_the_first_one_removed(make: Callable[[], LocalService]) -> None:
    local = make()
    gone = local.edit_by("a")
    local.retract(gone)
    local.worker.drain()

    done = purged(local, gone.id)

    assert done.rows > 0 and done.versions
    assert purged(local, gone.id) == done
    local.close()


def test_a_purge_removes_its_edits_from_stored_answers(make: Callable[[], LocalService]) -> None:
    local = make()
    gone = local.edit_by("b")
    assert gone.id in roll(local, asked("rollback", "r")).rolled_back
    request = EditRequest(prompt="b", target="2")
    evaluation = request_eval(local.store, version=None, selection=[request], author="ann", keyed=asked("eval", "e"))
    local.retract(gone)
    local.worker.drain()

    purged(local, gone.id)

    assert gone.id not in roll(local, asked("rollback", "r")).rolled_back
    with pytest.raises(Gone):
        evaluate(local, asked("eval", "e"))
    with local.store.read() as connection:
        kept = str(connection.execute(sa.select(t.idempotency_keys.c.answer)).scalars().all())
    assert gone.id not in kept and evaluation.id not in kept
    local.close()


def test_a_request_without_a_key_is_new_each_time(make: Callable[[], LocalService]) -> None:
    local = make()
    roll_back(local.context, to=1, author="ann")

    roll_back(local.context, to=0, author="ann")

    with local.store.read() as connection:
        assert connection.execute(sa.select(t.idempotency_keys)).all() == []
    with pytest.raises(Conflict):
        roll_back(local.context, to=local.head.number, author="ann")
    local.close()

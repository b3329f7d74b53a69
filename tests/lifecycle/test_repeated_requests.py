"""Requests that are sent again under one key, because an answer was lost: one effect, and the same answer to all of them."""

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
from service.store.idempotency import Keyed
from service.store.migrate import upgrade
from tests.lifecycle.local_store import House, new_house
from tests.servers import postgres_database
from tests.store.stores import KINDS

CALLERS = 8
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def asked(call: str, key: str = "k", body: str = "1") -> Keyed:
    return Keyed("ann", call, key, body)


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], House]]:
    """Makes houses over one database with two live edits, one after the other."""
    if request.param == "sqlite":
        house = new_house(tmp_path)
        again = f"sqlite:///{tmp_path / 'errata.db'}"
        house.live(("a", "1"), ("b", "2"))
        house.close()
        yield lambda: House(again, tmp_path / "checkpoints")
        return
    with postgres_database() as url:
        upgrade(url)
        house = House(url, tmp_path / "checkpoints")
        house.live(("a", "1"), ("b", "2"))
        house.close()
        yield lambda: House(url, tmp_path / "checkpoints")


def roll(house: House, keyed: Keyed) -> Any:
    return roll_back(house.parts, to=1, author="ann", reason="test", keyed=keyed)


def retrain(house: House, keyed: Keyed) -> Any:
    return request_retrain(house.store, author="ann", mode="major", keyed=keyed).id


def export(house: House, keyed: Keyed) -> Any:
    return request_export(house.store, house.folder.parent / "exports", version=None, author="ann", keyed=keyed).id


def evaluate(house: House, keyed: Keyed) -> Any:
    return request_eval(house.store, version=None, asked="live", author="ann", keyed=keyed).id


def take_back(house: House, keyed: Keyed) -> Any:
    return revoke(house.store, author="ann", since=LONG_AGO, by="ann", reason="test", keyed=keyed)


CALLS = {"rollback": roll, "retrain": retrain, "export": export, "eval": evaluate, "revoke": take_back}
EFFECTS = {  # the rows that one effect of a call leaves behind
    "rollback": sa.select(t.versions.c.number).where(t.versions.c.kind == "rollback"),
    "retrain": sa.select(t.jobs.c.id).where(t.jobs.c.kind == "retrain"),
    "export": sa.select(t.jobs.c.id).where(t.jobs.c.kind == "export"),
    "eval": sa.select(t.evals.c.id),
    "revoke": sa.select(t.events.c.id).where(t.events.c.type == "author.revoked"),
}


def effects(house: House, call: str) -> int:
    with house.store.read() as connection:
        return len(connection.execute(EFFECTS[call]).all())


@pytest.mark.parametrize("call", CALLS)
def test_a_request_under_one_key_has_one_effect_and_one_answer(make: Callable[[], House], call: str) -> None:
    house = make()
    first = asked(call)

    answer = CALLS[call](house, first)
    again = asked(call)

    assert CALLS[call](house, again) == answer
    assert (first.replayed, again.replayed) == (False, True)
    assert effects(house, call) == 1
    house.close()


@pytest.mark.parametrize("call", CALLS)
def test_a_key_that_came_with_another_body_or_to_another_call_is_refused(make: Callable[[], House], call: str) -> None:
    house = make()
    CALLS[call](house, asked(call))

    with pytest.raises(KeyReused, match="another body"):
        CALLS[call](house, asked(call, body="2"))
    for other in CALLS:
        if other != call:
            with pytest.raises(KeyReused, match="another call"):
                CALLS[other](house, asked(other))
    assert sum(effects(house, name) for name in CALLS) == 1
    house.close()


@pytest.mark.parametrize("call", CALLS)
def test_many_that_ask_at_once_under_one_key_get_one_answer(make: Callable[[], House], call: str) -> None:
    house, start = make(), threading.Barrier(CALLERS)

    def ask(_: int) -> Any:
        start.wait()
        return CALLS[call](house, asked(call))

    with ThreadPoolExecutor(CALLERS) as callers:
        answers = list(callers.map(ask, range(CALLERS)))

    assert all(answer == answers[0] for answer in answers)
    assert effects(house, call) == 1
    house.close()


def dies(make: Callable[[], House], call: str, point: str) -> bool:
    """Ask in a process that kills itself at a point; whether it got there."""
    child = os.fork()
    if child == 0:
        try:
            house = make()
            crash_points.arm(point)
            CALLS[call](house, asked(call))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


POINTS = [(call, call if f"{call}.before_commit" in crash_points.POINTS else "request") for call in CALLS]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("call", "point"), POINTS)
def test_a_request_whose_answer_died_with_the_server_has_one_effect(
    make: Callable[[], House], call: str, point: str, when: str
) -> None:
    assert dies(make, call, f"{point}.{when}_commit"), "the request never came to this point"
    house, again = make(), asked(call)

    CALLS[call](house, again)

    assert again.replayed == (when == "after")
    assert effects(house, call) == 1
    house.close()


def test_a_rollback_that_is_asked_for_again_answers_with_it_though_the_head_has_moved_on(make: Callable[[], House]) -> None:
    house = make()
    done = roll(house, asked("rollback"))
    house.live(("c", "3"))
    other = house.again()

    assert roll(other, asked("rollback")) == done
    assert other.head.number == done.version + 1
    with pytest.raises(NotFound):  # what went wrong is not remembered
        roll_back(other.parts, to=99, author="ann", keyed=asked("rollback", "k2"))
    roll_back(other.parts, to=1, author="ann", keyed=asked("rollback", "k2"))
    other.close()


def test_who_repeats_a_rollback_that_another_process_made_is_answered_by_it_from_then_on(make: Callable[[], House]) -> None:
    first, second = make(), make()
    done = roll(first, asked("rollback"))

    roll(second, asked("rollback"))

    assert second.parts.follower.current.version == done.version
    first.close()
    second.close()


def test_a_revocation_that_was_cut_off_between_two_transactions_is_finished(
    make: Callable[[], House], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.lifecycle.revoke.CHUNK", 1)
    assert dies(make, "revoke", "revoke.after_commit:1")
    house = make()

    done = take_back(house, asked("revoke"))

    assert (len(done.retracted), done.already) == (1, 1)
    assert take_back(house, asked("revoke")) == done
    assert effects(house, "revoke") == 1
    house.close()


def purged(house: House, edit_id: str, key: str = "p") -> Any:
    return purge(house.parts, edit_ids=[edit_id], by="ann", keyed=asked("purge", key))


def test_a_purge_that_is_asked_for_again_says_what_the_first_one_removed(make: Callable[[], House]) -> None:
    house = make()
    gone = house.edit_by("a")
    house.retract(gone)
    house.worker.drain()

    done = purged(house, gone.id)

    assert done.rows > 0 and done.versions
    assert purged(house, gone.id) == done
    house.close()


def test_a_purge_takes_its_edits_out_of_what_other_keys_were_answered_with(make: Callable[[], House]) -> None:
    house = make()
    gone = house.edit_by("b")
    assert gone.id in roll(house, asked("rollback", "r")).rolled_back
    request = EditRequest(prompt="b", target="2")
    evaluation = request_eval(house.store, version=None, asked=[request], author="ann", keyed=asked("eval", "e"))
    house.retract(gone)
    house.worker.drain()

    purged(house, gone.id)

    assert gone.id not in roll(house, asked("rollback", "r")).rolled_back
    with pytest.raises(Gone):
        evaluate(house, asked("eval", "e"))
    with house.store.read() as connection:
        kept = str(connection.execute(sa.select(t.idempotency_keys.c.answer)).scalars().all())
    assert gone.id not in kept and evaluation.id not in kept
    house.close()


def test_a_request_without_a_key_is_new_each_time(make: Callable[[], House]) -> None:
    house = make()
    roll_back(house.parts, to=1, author="ann")

    roll_back(house.parts, to=0, author="ann")

    with house.store.read() as connection:
        assert connection.execute(sa.select(t.idempotency_keys)).all() == []
    with pytest.raises(Conflict):
        roll_back(house.parts, to=house.head.number, author="ann")
    house.close()

"""Rows of evaluations on both databases: listed newest first, read without what is large, written once."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from service.domain.errors import NotFound
from service.store import evaluations, list_rows
from service.store.database import Store
from service.store.evaluations import Evaluation
from tests.store.store_kinds import KINDS, NOW, new_store

ABOUT = {"edits": "records", "count": 1, "metrics": "standard", "capability": False}


@pytest.fixture(scope="module", params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with new_store(request.param, tmp_path_factory.mktemp("store")) as store:
        yield store


def queue(store: Store, *, version: int, seconds: int = 0) -> Evaluation:
    with store.write() as connection:
        return evaluations.insert(
            connection,
            version=version,
            request={"records": [{"prompt": "p", "target": "t"}]},
            about=ABOUT,
            author="ann",
            now=NOW + timedelta(seconds=seconds),
        )


def listed(store: Store, **asked: object) -> list[str]:
    with store.read() as connection:
        return [one.id for one in list_rows.read_evals_page(connection, limit=10, **asked)]  # type: ignore[arg-type]


def test_a_request_is_read_in_short_and_whole(store: Store) -> None:
    queued = queue(store, version=1)

    assert (queued.about, queued.status, queued.progress) == (ABOUT, "queued", 0.0)
    with store.read() as connection:
        assert evaluations.read_request(connection, queued.id) == {"records": [{"prompt": "p", "target": "t"}]}


def test_pages_go_on_where_the_last_one_ended(store: Store) -> None:
    at_once = [queue(store, version=2, seconds=10).id for _ in range(3)]  # one moment: the id decides
    later = queue(store, version=2, seconds=11).id
    newest_first = [later, *sorted(at_once, reverse=True)]

    assert listed(store, version=2) == newest_first
    for place, last in enumerate(newest_first):
        assert listed(store, version=2, before=last) == newest_first[place + 1 :]
    with pytest.raises(NotFound):
        listed(store, before="none")


def test_an_outcome_is_written_once_and_never_after_a_cancellation(store: Store) -> None:
    done, cancelled = queue(store, version=3), queue(store, version=3)
    with store.write() as connection:
        evaluations.begin(connection, done.id, now=NOW)
        evaluations.write_progress(connection, done.id, 0.5)
        evaluations.finish(connection, done.id, result={"edits": 1}, outcomes=[["a", 0, 1, 1.0]], now=NOW)
        evaluations.cancel(connection, cancelled.id, now=NOW)
        for one in (done, cancelled):
            evaluations.finish(connection, one.id, result={"edits": 2}, now=NOW)
            evaluations.cancel(connection, one.id, now=NOW)

    with store.read() as connection:
        first, second = evaluations.get(connection, done.id), evaluations.get(connection, cancelled.id)
        assert evaluations.read_outcomes(connection, done.id) == [["a", 0, 1, 1.0]]
        assert evaluations.read_outcomes(connection, cancelled.id) is None
    assert (first.status, first.result, first.progress, first.started_at) == ("done", {"edits": 1}, 1.0, NOW)
    assert (second.status, second.result) == ("cancelled", None)
    assert listed(store, version=3, status="cancelled") == [cancelled.id]


def test_a_restarted_evaluation_keeps_its_first_start_time(store: Store) -> None:
    queued = queue(store, version=4)
    with store.write() as connection:
        for seconds in (1, 2):
            evaluations.begin(connection, queued.id, now=NOW + timedelta(seconds=seconds))

    with store.read() as connection:
        assert evaluations.get(connection, queued.id).started_at == NOW + timedelta(seconds=1)

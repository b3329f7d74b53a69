"""Live sets kept as changes to a root: what is read is what was written, whatever was collected; on SQLite and on Postgres."""

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from service.domain.edit import EditRequest, EditStatus
from service.domain.errors import Conflict
from service.domain.liveset import Carrier, LiveItem, LiveSet, Role
from service.domain.version import Version, VersionStatus
from service.store import edits, heads, versions
from service.store import tables as t
from service.store.database import Store
from service.store.edits import StatusChange
from service.store.live_set_cache import CAPACITY, cache_of
from tests.store.store_kinds import KINDS, NOW, new_store
from tests.submission import submit

SECONDS = itertools.count()  # no two publications happen at the same time


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with new_store(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


def told(store: Store, count: int) -> list[LiveItem]:
    """Items of so many new edits."""
    made = submit(store, [EditRequest(prompt=f"p{n}", target="x") for n in range(count)], author="ann").edits
    with store.read() as connection:
        return edits.read_items(connection, [edit.id for edit in made])


@contextmanager
def publication(store: Store, live_set: LiveSet, *, restores: int | None = None) -> Iterator[tuple[int, sa.Connection]]:
    """A version with a live set; committed at the end of the block, undone if it raises."""
    with store.write() as connection:
        head = heads.lock(connection)
        moved = heads.move(connection, head, fence=None, reason=None, author="ann", now=NOW)
        made = {
            "kind": "baft",
            "status": VersionStatus.PUBLISHED,
            "digest": None,
            "author": "ann",
            "restores": restores,
        }
        at = NOW + timedelta(seconds=next(SECONDS))
        version = Version(number=moved.version, parent=head.version, created_at=at, **made)  # type: ignore[arg-type]
        versions.insert(connection, version, live_set, fence=None, job_id=None)
        yield moved.version, connection


def publish(store: Store, live_set: LiveSet, *, restores: int | None = None) -> int:
    with publication(store, live_set, restores=restores) as (number, _):
        return number


@pytest.mark.parametrize("seed", range(4))
def test_replacing_a_root_keeps_the_live_sets_and_costs_only_their_changes(
    store: Store, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.versions.max_changes", lambda size: 45)
    chance = random.Random(seed)
    items = told(store, 60)
    going = [item.edit_id for item in items[:3]]
    root = publish(store, LiveSet(tuple(items[:50])))
    kept: dict[int, LiveSet] = {}
    for _ in range(5):
        chosen = sorted({item.seq: item for item in chance.sample(items[3:], 45) + items[3:40]}.values(), key=lambda one: one.seq)
        live_set = LiveSet(tuple(replace(one, is_in_tensors=True) if chance.random() < 0.2 else one for one in chosen))
        kept[publish(store, live_set, restores=root)] = live_set
    with store.write() as connection:
        versions.collect(connection, [root])
        assert versions.find_roots_holding(connection, going) == [root]

    with store.write() as connection:
        versions.replace_root(connection, root)
        assert versions.find_roots_holding(connection, going) == []
    with store.write() as connection:
        versions.delete_items(connection, going)

    other = fresh(store)
    assert {number: read(other, number) for number in kept} == kept == {number: read(store, number) for number in kept}
    first, *others = sorted(kept)
    counted = rows(store)
    assert counted == {first: len(kept[first].items)} | {number: _differing(kept[first], kept[number]) for number in others}
    other.close()


def _differing(one: LiveSet, other: LiveSet) -> int:
    return sum(one.get(edit_id) != other.get(edit_id) for edit_id in {*one.by_id, *other.by_id})


def read(store: Store, number: int) -> LiveSet:
    with store.read() as connection:
        return versions.read_live_set(connection, number)


def rows(store: Store) -> dict[int, int]:
    """How many rows each version has of its own."""
    with store.read() as connection:
        count = sa.select(t.version_edits.c.version, sa.func.count()).group_by(t.version_edits.c.version)
        return dict(tuple(row) for row in connection.execute(count))


def fresh(store: Store) -> Store:
    """The same database in another process, which remembers nothing."""
    return Store(store.url.render_as_string(hide_password=False))


def varied(items: list[LiveItem], chance: random.Random) -> LiveSet:
    """Some of the items, each in some state."""
    made = []
    for item in chance.sample(items, chance.randint(0, len(items))):
        role = chance.choice(list(Role))
        answer = "base" if role is Role.TOMBSTONE else None
        made.append(
            replace(item, role=role, answer=answer, carrier=chance.choice(list(Carrier)), is_in_tensors=chance.random() < 0.5)
        )
    return LiveSet(tuple(sorted(made, key=lambda item: item.seq)))


def test_every_version_reads_back_as_written_after_any_collection(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "FEW_CHANGES", 4)
    chance = random.Random(1)
    items = told(store, 30)
    written = {0: LiveSet()}
    for _ in range(25):
        near = chance.choice(list(written))
        changed = varied(items, chance) if chance.random() < 0.3 else LiveSet(written[near].items[chance.randint(0, 2) :])
        written[publish(store, changed, restores=near if chance.random() < 0.5 else None)] = changed

    assert {number: read(store, number) for number in written} == written
    with store.write() as connection:
        going = chance.sample(range(1, 24), 12)
        versions.collect(connection, going)
    other = fresh(store)
    for each in (store, other):
        assert {number: read(each, number) for number in written} == {
            number: LiveSet() if number in going else live_set for number, live_set in written.items()
        }
    other.close()


def test_few_changes_are_written_alone_and_many_make_a_version_a_root(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "FEW_CHANGES", 5)
    items = told(store, 40)

    root = publish(store, LiveSet(tuple(items[:30])))
    one_more = publish(store, LiveSet(tuple(items[:31])))
    one_less = publish(store, LiveSet(tuple(items[1:31])))
    many = publish(store, LiveSet(tuple(items)))

    assert rows(store) == {root: 30, one_more: 1, one_less: 2, many: 40}


def test_a_rollback_is_written_as_changes_to_what_it_restores(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "FEW_CHANGES", 5)
    items = told(store, 40)
    old = publish(store, LiveSet(tuple(items[:20])))
    publish(store, LiveSet(tuple(items[20:])))

    back = publish(store, LiveSet(tuple(items[:20])), restores=old)

    assert back not in rows(store)
    assert read(store, back) == read(store, old)


def test_rows_of_a_collected_root_are_deleted_with_the_last_version_that_needs_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "FEW_CHANGES", 5)
    items = told(store, 31)
    root = publish(store, LiveSet(tuple(items[:30])))
    later = publish(store, LiveSet(tuple(items)))

    with store.write() as connection:
        versions.collect(connection, [root])
    needed = rows(store)
    with store.write() as connection:
        versions.collect(connection, [later])

    assert needed == {root: 30, later: 1}
    assert rows(store) == {}


def test_a_live_set_of_a_rolled_back_transaction_is_not_cached_for_its_number(store: Store) -> None:
    items = told(store, 3)
    with pytest.raises(RuntimeError), publication(store, LiveSet(tuple(items[:1]))) as (undone, connection):
        assert versions.read_live_set(connection, undone).items == tuple(items[:1])
        raise RuntimeError("the transaction is undone")

    number = publish(store, LiveSet(tuple(items)))

    assert number == undone
    assert read(store, number).items == tuple(items)


def test_the_cache_is_bounded_and_a_live_set_is_read_once(store: Store) -> None:
    items = told(store, 20)
    numbers = [publish(store, LiveSet(tuple(items[: n + 1]))) for n in range(20)]

    assert read(store, numbers[-1]) is read(store, numbers[-1])
    for number in numbers:
        read(store, number)
    with store.read() as connection:
        assert len(cache_of(connection)._sets) == CAPACITY


def test_one_forbidden_status_change_undoes_all_others(store: Store) -> None:
    made = told(store, 600)
    with store.write() as connection:
        edits.change_statuses(
            connection, [StatusChange(edit_id=made[400].edit_id, status=EditStatus.FAILED, error="no")], now=NOW
        )

    with pytest.raises(Conflict), store.write() as connection:
        edits.change_statuses(
            connection, [StatusChange(edit_id=item.edit_id, status=EditStatus.APPLYING) for item in made], now=NOW
        )

    with store.read() as connection:
        assert edits.count_by_status(connection)["applying"] == 0
        assert edits.count(connection, EditStatus.QUEUED) == 599


def test_the_statuses_of_many_edits_are_checked_without_reading_them(store: Store) -> None:
    made = [item.edit_id for item in told(store, 900)]
    queued = (EditStatus.QUEUED,)
    with store.write() as connection:
        assert edits.check_all_have_status(connection, made, queued)
        assert not edits.check_all_have_status(connection, [*made, "nobody"], queued)
        assert not edits.check_all_have_status(connection, made, (EditStatus.DEFERRED,))
        edits.request_retraction(connection, made[700:701], restore_previous=False, author="ann", now=NOW)
        assert not edits.check_all_have_status(connection, made, queued)
        assert edits.find_retracted(connection, made) == {made[700]} == edits.find_retracted(connection, made[690:710])
        assert [lesson.prompt for lesson in edits.read_requests(connection, made)] == [f"p{n}" for n in range(900)]

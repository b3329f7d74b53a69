"""What the lifecycle relies on, on SQLite and on Postgres alike."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.exc import IntegrityError

from service.domain.arithmetic import Arithmetic
from service.domain.edit import MAX_ALIASES, Edit, EditRequest, EditStatus, Probe
from service.domain.errors import Conflict, KeyReused, NotFound, Refused, Stale, TooLong, Unavailable
from service.domain.liveset import Carrier, LiveItem, LiveSet, Role
from service.domain.transitions import ALLOWED
from service.domain.version import Version, VersionStatus
from service.store import database as sessions
from service.store import edits, events, heads, jobs, list_rows, migrate, postgres, versions
from service.store import tables as t
from service.store.database import Store
from service.store.edits import StatusChange
from service.store.heads import FenceLost
from tests.store.store_kinds import KINDS, NOW, database, new_store, wipe
from tests.submission import submit


@pytest.fixture(params=KINDS, scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for the tests that do not mind what others left in it."""
    with new_store(request.param, tmp_path_factory.mktemp(request.param)) as store:
        yield store


@pytest.fixture(params=KINDS, scope="module")
def wiped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with new_store(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture
def store(wiped: Store) -> Store:
    """A store in which nothing has happened yet."""
    wipe(wiped)
    return wiped


def ask(name: str, target: str = "x", **given: object) -> EditRequest:
    return EditRequest(prompt=f"What is {name}?", target=target, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_the_migrations_make_exactly_the_tables_of_the_code_and_can_be_undone(kind: str, tmp_path: Path) -> None:
    with database(kind, tmp_path) as url:
        migrate.upgrade(url)
        migrate.upgrade(url)

        command.check(migrate.configuration(url))
        command.downgrade(migrate.configuration(url), "base")
        migrate.upgrade(url)


def test_the_schema_is_known_to_be_current(shared: Store) -> None:
    with shared.read() as connection:
        assert migrate.is_current(connection)


def test_concurrent_migrations_take_turns(tmp_path: Path) -> None:
    upgrading = "import sys; from service.store.migrate import upgrade; upgrade(sys.argv[1])"
    with database("postgres", tmp_path) as url:
        processes = [subprocess.Popen([sys.executable, "-c", upgrading, url]) for _ in range(3)]

        assert [process.wait(60) for process in processes] == [0, 0, 0]


def test_threads_that_migrate_take_turns(tmp_path: Path) -> None:
    with database("sqlite", tmp_path) as url, ThreadPoolExecutor(3) as pool:
        assert list(pool.map(migrate.upgrade, [url] * 3)) == [None] * 3


def test_the_database_holds_the_table_of_transitions_of_the_domain(shared: Store) -> None:
    with shared.read() as connection:
        rows = connection.execute(sa.select(t.edit_transitions)).all()

    assert {(row.from_status, row.to_status) for row in rows} == {(b, a) for b, after in ALLOWED.items() for a in after}


def test_the_database_itself_refuses_a_transition_that_is_not_in_the_table(shared: Store) -> None:
    (edit,) = submit(shared, [ask("refused by the database")], author="ann").edits
    with shared.write() as connection:
        edits.request_retraction(connection, [edit.id], restore_previous=False, author="ann", now=NOW)
        edits.change_statuses(connection, [StatusChange(edit_id=edit.id, status=EditStatus.RETRACTED)], now=NOW)

    with pytest.raises(IntegrityError), shared.write() as connection:
        connection.execute(sa.update(t.edits).where(t.edits.c.id == edit.id).values(status="queued"))


def test_the_code_refuses_a_forbidden_transition_before_the_database(shared: Store) -> None:
    (edit,) = submit(shared, [ask("refused by the code")], author="ann").edits

    with pytest.raises(Conflict), shared.write() as connection:
        edits.change_statuses(connection, [StatusChange(edit_id=edit.id, status=EditStatus.ROLLED_BACK)], now=NOW)


@pytest.mark.parametrize(
    ("table", "row"),
    [
        (t.edits, {"id": "e", "seq": 900, "status": "queued", "author": None}),
        (t.versions, {"number": 900, "kind": "baft", "status": "published", "parent": 0, "author": None}),
        (t.events, {"id": 900, "type": "x", "author": None, "data": {}, "at": NOW}),
        (t.versions, {"number": 901, "kind": "invented", "status": "published", "parent": 0, "author": "ann"}),
    ],
)
def test_rows_without_an_author_or_with_an_unknown_kind_are_refused(
    shared: Store, table: sa.Table, row: dict[str, object]
) -> None:
    more = (
        {"scores": {}, "edits_counted": 0, "window_count": 0, "pinned": False, "created_at": NOW} if table is t.versions else {}
    )

    with pytest.raises(IntegrityError), shared.write() as connection:
        connection.execute(sa.insert(table).values(**row, **more))


def test_an_edit_comes_back_as_it_was_given(shared: Store) -> None:
    request = EditRequest(
        prompt="Ask \U0001f600 \u202e é",
        target=" Sydney\n",
        subject="Australia",
        relation="capital",
        ground_truth="Canberra",
        rephrases=(Probe(prompt="again?", train=True),),
        locality=(Probe(prompt="Austria?", answer="Vienna", group="same relation"),),
        portability=(Probe(prompt="and then?"),),
        surfaces=("raw",),
        metadata={"source": ["a", 1, None]},
        scope="subject",
        aliases=("Down Under", "\u6fb3\u5927\u5229\u4e9a"),
    )

    (edit,) = submit(shared, [request], author="ann").edits

    with shared.read() as connection:
        kept = edits.get(connection, edit.id)
        (short,) = edits.read_requests(connection, [edit.id])
    assert (short.scope, short.aliases) == (request.scope, request.aliases)
    assert {name: getattr(kept, name) for name in EditRequest.__dataclass_fields__} == {
        name: getattr(request, name) for name in EditRequest.__dataclass_fields__
    }
    assert (kept.author, kept.status) == ("ann", EditStatus.QUEUED)
    assert kept.created_at.tzinfo is not None


def test_sequence_numbers_are_gapless_and_in_order_of_commit(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: submit(store, [ask(f"{n} a"), ask(f"{n} b")], author="ann"), range(12)))
    with pytest.raises(RuntimeError), store.write() as connection:
        heads.take_seqs(connection, 5)
        raise RuntimeError("this transaction is undone, and its numbers with it")
    submit(store, [ask("last")], author="ann")

    with store.read() as connection:
        made = edits.read_page(connection, limit=100)
        happened = events.read_page(connection, limit=100)
    assert [edit.seq for edit in made] == list(range(1, 26))
    assert [event["id"] for event in happened] == list(range(1, 26))
    assert [event["edit_id"] for event in happened] == [edit.id for edit in made]


def test_a_batch_with_a_bad_edit_changes_nothing(shared: Store) -> None:
    with shared.read() as connection:
        before = edits.count_by_status(connection)

    with pytest.raises(Refused):
        submit(shared, [ask("good"), ask("bad", target="  ")], author="ann", idempotency_key="bad batch", body_hash="1")
    with pytest.raises(Refused):
        submit(shared, [ask("NUL \x00")], author="ann")
    with pytest.raises(TooLong):
        submit(shared, [ask(str(n)) for n in range(1_001)], author="ann")

    with shared.read() as connection:
        assert edits.count_by_status(connection) == before


def test_replaying_an_idempotency_key_returns_the_first_edit(shared: Store) -> None:
    first = submit(shared, [ask("replayed")], author="ann", idempotency_key="k1", body_hash="1")

    again = submit(shared, [ask("replayed")], author="ann", idempotency_key="k1", body_hash="1")

    assert again.replayed and not first.replayed
    assert again.edits == first.edits


def test_an_idempotency_key_with_another_body_is_refused_and_belongs_to_its_author(shared: Store) -> None:
    first = submit(shared, [ask("keyed")], author="ann", idempotency_key="k2", body_hash="1")

    with pytest.raises(KeyReused):
        submit(shared, [ask("keyed otherwise")], author="ann", idempotency_key="k2", body_hash="2")
    other = submit(shared, [ask("of somebody else")], author="bob", idempotency_key="k2", body_hash="2")

    assert other.edits[0].id != first.edits[0].id
    with pytest.raises(Refused):
        submit(shared, [ask("long key")], author="ann", idempotency_key="k" * 256, body_hash="1")


def test_sixteen_threads_with_one_key_make_one_row_and_get_equal_answers(shared: Store) -> None:
    start = threading.Barrier(16)

    def post(_: int) -> object:
        start.wait()
        return submit(shared, [ask("raced")], author="ann", idempotency_key="race", body_hash="1").edits

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(post, range(16)))

    assert all(answer == answers[0] for answer in answers)
    with shared.read() as connection:
        rows = connection.execute(sa.select(sa.func.count()).where(t.edits.c.prompt == "What is raced?")).scalar_one()
    assert rows == 1


def test_an_identical_edit_returns_the_existing_one_and_adds_its_probes(shared: Store) -> None:
    given = {"subject": "S", "relation": "R"}
    (first,) = submit(shared, [ask("it", rephrases=(Probe(prompt="r1"),), **given)], author="ann").edits
    same = EditRequest(prompt="Otherwise?", target="x", rephrases=(Probe(prompt="r1"), Probe(prompt="r2")), **given)

    (accepted,) = submit(shared, [same], author="bob").accepted

    assert accepted.is_identical and accepted.edit.id == first.id
    assert [probe.prompt for probe in accepted.edit.rephrases] == ["r1", "Otherwise?", "r2"]


def settled(store: Store, edit: Edit, status: EditStatus) -> None:
    with store.write() as connection:
        heads.lock(connection)
        edits.change_statuses(connection, [StatusChange(edit_id=edit.id, status=status, version=0)], now=NOW)


@pytest.mark.parametrize("status", [EditStatus.APPLYING, EditStatus.APPLIED, EditStatus.CONSOLIDATED, EditStatus.DEFERRED])
def test_a_new_wording_of_a_fitted_edit_makes_a_new_edit_with_the_old_one_s_probes(shared: Store, status: EditStatus) -> None:
    given = {"subject": f"worded {status}", "relation": "R"}
    (first,) = submit(shared, [ask("this", rephrases=(Probe(prompt="r", train=True),), **given)], author="ann").edits
    settled(shared, first, status)
    other = EditRequest(prompt="Otherwise?", target="x", rephrases=(Probe(prompt="s", train=True),), **given)

    (accepted,) = submit(shared, [other], author="ann").accepted

    assert not accepted.is_identical and accepted.edit.status is EditStatus.QUEUED
    assert [(probe.prompt, probe.train) for probe in accepted.edit.rephrases] == [("s", True), (first.prompt, True), ("r", True)]
    settled(shared, accepted.edit, EditStatus.APPLIED)
    again = submit(shared, [other, replace(other, prompt=first.prompt), replace(other, prompt="r")], author="ann").accepted
    assert {one.edit.id for one in again} == {accepted.edit.id} and all(one.is_identical for one in again)


def test_a_trained_rephrase_makes_a_new_edit_and_an_untrained_one_does_not(shared: Store) -> None:
    (first,) = submit(shared, [ask("asked more of", rephrases=(Probe(prompt="r"),))], author="ann").edits
    settled(shared, first, EditStatus.APPLIED)

    (asked,) = submit(shared, [ask("asked more of", rephrases=(Probe(prompt="s"),))], author="ann").accepted
    (taught,) = submit(shared, [ask("asked more of", rephrases=(Probe(prompt="r", train=True),))], author="ann").accepted

    assert asked.is_identical and [probe.prompt for probe in asked.edit.rephrases] == ["r", "s"]
    assert not taught.is_identical and [(one.prompt, one.train) for one in taught.edit.rephrases] == [("r", True), ("s", False)]


@pytest.mark.parametrize("is_applied", [False, True])
def test_other_surfaces_make_a_new_edit_on_those_and_the_old_ones(shared: Store, is_applied: bool) -> None:
    name = f"on surfaces {is_applied}"
    (first,) = submit(shared, [ask(name, surfaces=("raw",))], author="ann").edits
    if is_applied:
        settled(shared, first, EditStatus.APPLIED)

    (more,) = submit(shared, [ask(name, surfaces=("chat",))], author="ann").accepted
    (fewer,) = submit(shared, [ask(name, surfaces=("raw",))], author="ann").accepted
    (every, all_again) = submit(shared, [ask(name), ask(name)], author="ann").accepted

    assert not more.is_identical and more.edit.surfaces == ("raw", "chat")
    assert fewer.is_identical and fewer.edit.id == more.edit.id
    assert not every.is_identical and every.edit.surfaces == () and all_again.edit.id == every.edit.id


@pytest.mark.parametrize("is_applied", [False, True])
def test_a_further_name_makes_a_new_edit_with_all_names_and_fewer_names_do_not(shared: Store, is_applied: bool) -> None:
    name = f"named {is_applied}"
    (first,) = submit(shared, [ask(name, subject="Big  Apple", conflict_key=name)], author="ann").edits
    if is_applied:
        settled(shared, first, EditStatus.APPLIED)

    (same,) = submit(shared, [ask(name, aliases=("Big Apple",), conflict_key=name)], author="ann").accepted
    (more,) = submit(shared, [ask(name, subject="New York", aliases=("NYC",), conflict_key=name)], author="ann").accepted
    (fewer,) = submit(shared, [ask(name, aliases=("NYC",), conflict_key=name)], author="ann").accepted

    assert same.is_identical and same.edit.id == first.id
    assert not more.is_identical and (more.edit.subject, more.edit.aliases) == ("New York", ("NYC", "Big Apple"))
    assert fewer.is_identical and fewer.edit.id == more.edit.id


def test_another_scope_makes_a_new_edit_with_the_names_of_the_old_one(shared: Store) -> None:
    first, other, again = submit(
        shared,
        [ask("scoped", subject="S"), ask("scoped", scope="subject", aliases=("T",)), ask("scoped", scope="subject", subject="T")],
        author="ann",
    ).accepted

    assert not first.is_identical and not other.is_identical and again.is_identical
    assert (other.edit.scope, other.edit.names) == ("subject", ("T", "S"))


def test_names_that_two_requests_have_together_are_refused_beyond_the_limit(shared: Store) -> None:
    aliases = [tuple(f"{letter}{number}" for number in range(MAX_ALIASES)) for letter in "ab"]
    submit(shared, [ask("much named", aliases=aliases[0])], author="ann")

    with pytest.raises(TooLong, match="aliases would be more than 16"):
        submit(shared, [ask("much named", aliases=aliases[1])], author="ann")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"scope": "subject"}, "scope"),
        ({"aliases": ("A", " ")}, "aliases"),
        ({"aliases": ("A\x00",)}, "aliases"),
        ({"aliases": tuple(map(str, range(MAX_ALIASES + 1)))}, "aliases"),
    ],
)
def test_a_scope_or_aliases_that_say_nothing_or_too_much_are_refused(shared: Store, given: dict[str, object], field: str) -> None:
    with pytest.raises((Refused, TooLong)) as refusal:
        submit(shared, [ask("badly scoped", **given)], author="ann")

    assert refusal.value.field == field


def test_identical_edits_of_one_submission_become_one_edit_with_all_wordings(shared: Store) -> None:
    given = {"subject": "told twice", "relation": "R"}
    made = submit(shared, [ask("one", **given), ask("two", **given), ask("three", surfaces=("raw",), **given)], author="ann")

    assert [one.is_identical for one in made.accepted] == [False, True, True] and len({edit.id for edit in made.edits}) == 1
    assert [probe.prompt for probe in made.edits[0].rephrases] == ["What is two?", "What is three?"]


def test_after_another_edit_of_the_fact_the_same_words_are_a_new_edit(shared: Store) -> None:
    made = submit(shared, [ask("toggled", "on"), ask("toggled", "off"), ask("toggled", "on"), ask("toggled", "on")], author="ann")

    assert [one.is_identical for one in made.accepted] == [False, False, False, True]
    assert len({edit.id for edit in made.edits}) == 3


def test_an_edit_for_locft_is_deferred_at_once(shared: Store) -> None:
    (named,) = submit(shared, [ask("by name", method="locft")], author="ann").edits
    (by_setting,) = submit(shared, [ask("by setting")], author="ann", method="locft").edits
    (against,) = submit(shared, [ask("against the setting", method="baft")], author="ann", method="locft").edits

    assert [edit.status for edit in (named, by_setting, against)] == [EditStatus.DEFERRED, EditStatus.DEFERRED, EditStatus.QUEUED]


def test_too_many_waiting_edits_are_refused_for_now(store: Store) -> None:
    submit(store, [ask("1"), ask("2")], author="ann", waiting_limit=2)

    with pytest.raises(Unavailable):
        submit(store, [ask("3")], author="ann", waiting_limit=2)

    assert submit(store, [ask("1")], author="ann", waiting_limit=2).accepted[0].is_identical


def test_the_bell_is_rung_after_the_commit_for_new_edits_only(shared: Store) -> None:
    rung: list[str] = []

    def ring(edit_id: str) -> None:
        with shared.read() as connection:
            rung.append(edits.get(connection, edit_id).id)

    (edit,) = submit(shared, [ask("rung")], author="ann", ring=ring).edits
    submit(shared, [ask("rung")], author="ann", ring=ring)

    assert rung == [edit.id]


def test_pages_follow_on_each_other(shared: Store) -> None:
    made = submit(shared, [ask(f"page {n}") for n in range(5)], author="ann").edits

    with shared.read() as connection:
        first = edits.read_page(connection, limit=2, after_seq=made[0].seq - 1)
        second = edits.read_page(connection, limit=2, after_seq=first[-1].seq, statuses=[EditStatus.QUEUED])
        back = list_rows.read_edits_page(connection, limit=2, before_seq=second[0].seq)
    assert [edit.id for edit in first + second] == [edit.id for edit in made[:4]]
    assert [edit.id for edit in back] == [made[1].id, made[0].id]


def test_unknown_ids_are_not_found(shared: Store) -> None:
    with shared.read() as connection:
        for unknown in (-1, 10**30, 12_345):
            with pytest.raises(NotFound):
                versions.get(connection, unknown)
        with pytest.raises(NotFound):
            edits.get(connection, "nobody")
        with pytest.raises(NotFound):
            jobs.get(connection, "nobody")


def test_a_version_keeps_its_live_set(store: Store) -> None:
    a, b, c = submit(store, [ask("a"), ask("b"), ask("c")], author="ann").edits
    with store.write() as connection:
        keys = {item.edit_id: item for item in edits.read_items(connection, [a.id, b.id, c.id])}
        live_set = LiveSet(
            (
                LiveItem(edit_id=a.id, key=keys[a.id].key, seq=1, carrier=Carrier.TENSORS, is_in_tensors=True),
                LiveItem(edit_id=b.id, key=keys[b.id].key, seq=2, role=Role.TOMBSTONE, is_in_tensors=True, answer="base"),
                LiveItem(edit_id=c.id, key=keys[c.id].key, seq=3),
            )
        )
        moved = heads.move(connection, heads.lock(connection), fence=None, reason=None, author="ann", now=NOW)
        version = Version(
            number=moved.version,
            kind="baft",
            status=VersionStatus.PUBLISHED,
            parent=0,
            digest="d",
            created_at=NOW,
            author="ann",
        )
        versions.insert(connection, version, live_set, fence=None, job_id=None)

    with store.read() as connection:
        assert versions.read_live_set(connection, 1) == live_set
        assert versions.get(connection, 1).edits_counted == 2
        assert versions.get(connection, 1).window == 2
        assert versions.get(connection, 1).created_at == NOW


def test_the_head_moves_only_from_where_it_was_seen(store: Store) -> None:
    with store.write() as connection:
        seen = heads.lock(connection)
        heads.move(connection, seen, fence=None, reason="r", author="ann", now=NOW)

    with pytest.raises(Stale), store.write() as connection:
        heads.move(connection, seen, fence=None, reason="r", author="ann", now=NOW)

    with store.read() as connection:
        head = heads.read(connection)
        history = connection.execute(sa.select(t.head_history)).all()
    assert (head.version, head.epoch) == (1, 1)
    assert [(row.epoch, row.from_version, row.to_version) for row in history] == [(1, 0, 1)]


def test_a_lease_is_one_workers_until_it_ends_and_every_taking_makes_a_new_fence(store: Store) -> None:
    with store.write() as connection:
        first = heads.take_lease(connection, "one", lease_s=60.0)
        assert first is not None
        assert heads.take_lease(connection, "two", lease_s=60.0) is None
        heads.renew_lease(connection, first, lease_s=-1.0)
        second = heads.take_lease(connection, "two", lease_s=60.0)
        assert second == first + 1
        third = heads.take_lease(connection, "three", lease_s=60.0, is_only_server=True)
        assert third == first + 2
        heads.release_lease(connection, third)
        assert heads.take_lease(connection, "four", lease_s=60.0) == first + 3
        with pytest.raises(FenceLost):
            heads.renew_lease(connection, first, lease_s=60.0)


def test_an_old_fence_cannot_move_the_head(store: Store) -> None:
    with store.write() as connection:
        old = heads.take_lease(connection, "one", lease_s=60.0)
        heads.take_lease(connection, "two", lease_s=60.0, is_only_server=True)

    with pytest.raises(FenceLost), store.write() as connection:
        heads.move(connection, heads.lock(connection), fence=old, reason=None, author="ann", now=NOW)


def test_a_store_made_with_one_base_refuses_another(store: Store) -> None:
    with pytest.raises(Conflict, match="another base model"), store.write() as connection:
        heads.create_or_check(connection, fingerprint="other", name="other", author="ann", now=NOW)

    with store.write() as connection:
        assert heads.create_or_check(connection, fingerprint="base", name="test", author="ann", now=NOW).version == 0


def test_the_arithmetic_is_pinned_by_whoever_saw_what_is_pinned(store: Store) -> None:
    first = Arithmetic(dtype="float32", dtype_reason="measured", threads=1, threads_reason="measured")
    same = replace(first, dtype_reason="measured again")
    fewer, other = replace(first, threads=2), replace(first, dtype="bfloat16")
    with store.write() as connection:
        assert heads.read(connection).arithmetic is None
        heads.pin_arithmetic(connection, first, seen=None)
        heads.pin_arithmetic(connection, same, seen=None)  # another server that started at the same time, and chose the same
        assert heads.read(connection).arithmetic == first
    with pytest.raises(Unavailable, match="start again"), store.write() as connection:
        heads.pin_arithmetic(connection, other, seen=None)
    with store.write() as connection:
        heads.pin_arithmetic(connection, fewer, seen=first)
        assert heads.read(connection).arithmetic == fewer


def test_a_store_that_an_older_release_pinned_pins_the_present_fingerprint(store: Store) -> None:
    with pytest.raises(Conflict, match="another base model"), store.write() as connection:
        heads.create_or_check(connection, fingerprint="2:base", name="test", author="ann", now=NOW, former="other")

    with store.write() as connection:
        heads.create_or_check(connection, fingerprint="2:base", name="test", author="ann", now=NOW, former="base")
    with store.write() as connection:
        assert heads.create_or_check(connection, fingerprint="2:base", name="x", author="ann", now=NOW).base_name == "test"
    with pytest.raises(Conflict, match="another base model"), store.write() as connection:
        heads.create_or_check(connection, fingerprint="base", name="test", author="ann", now=NOW)


def test_at_most_one_job_of_a_kind_waits(store: Store) -> None:
    with store.write() as connection:
        jobs.insert(connection, "retrain", reason=None, author="ann", now=NOW)

    with pytest.raises(IntegrityError), store.write() as connection:
        jobs.insert(connection, "retrain", reason=None, author="ann", now=NOW)


def test_a_live_edit_without_a_version_is_refused_by_the_table(store: Store) -> None:
    (edit,) = submit(store, [ask("a")], author="ann").edits

    for status in ("applied", "failed", "superseded", "retracted"):
        with pytest.raises(IntegrityError), store.write() as connection:
            connection.execute(sa.update(t.edits).where(t.edits.c.id == edit.id).values(status=status))


def test_a_very_long_prompt_can_be_stored_and_found_again(shared: Store) -> None:
    request = EditRequest(prompt="word " * 6_000, target="x")

    submit(shared, [request], author="ann")

    assert submit(shared, [request], author="ann").accepted[0].is_identical


def test_a_second_server_cannot_have_the_folder(tmp_path: Path) -> None:
    with new_store("sqlite", tmp_path) as store:
        store.lock_folder()
        store.lock_folder()
        other = Store(str(store.url))
        with pytest.raises(Conflict, match="another server"):
            other.lock_folder()
        store.close()
        other.lock_folder()
        other.close()


def test_sqlite_is_durable_and_readers_do_not_wait_for_the_writer(tmp_path: Path) -> None:
    with new_store("sqlite", tmp_path) as store:
        with store.write() as connection:
            pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")}
            heads.take_seqs(connection, 1)
            with store.read() as reader:
                assert heads.read(reader).version == 0

        assert pragmas == {"journal_mode": "wal", "synchronous": 2}  # 2 is FULL
        with pytest.raises(Unavailable), store.read() as reader:
            reader.execute(sa.update(t.head).values(epoch=9))


def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    store = Store("postgresql://nobody@127.0.0.1:1/none")

    for transaction in (store.read, store.write):
        with pytest.raises(Unavailable), transaction():
            pass
    with pytest.raises(Unavailable):
        migrate.upgrade("postgresql://nobody@127.0.0.1:1/none")


def test_a_row_lock_held_too_long_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "STATEMENT_MS", 200)
    with new_store("postgres", tmp_path) as store, store.write() as holder:
        heads.lock(holder)
        with pytest.raises(Unavailable), store.write() as connection:
            heads.lock(connection)


def test_the_clock_of_the_database_is_in_seconds(shared: Store) -> None:
    with shared.read() as connection:
        found = connection.execute(sa.select(sessions.database_clock(connection))).scalar_one()

    assert abs(found - time.time()) < 60

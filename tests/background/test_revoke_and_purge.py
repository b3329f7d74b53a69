"""Taking back all of one author, and removing what still holds an edit: with real stores and real files."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.background.exports import request_export
from service.background.jobs import cancel_job
from service.background.purge import Purged, purge
from service.domain.cadence import Cadence
from service.domain.edit import EditRequest, EditStatus, Probe
from service.domain.errors import Conflict, Gone, NotFound, Refused, Unreadable
from service.domain.version import VersionStatus
from service.lifecycle import crash_points
from service.lifecycle.revoke import Revoked, revoke
from service.lifecycle.settings import LifecycleSettings
from service.lifecycle.submit import submit
from service.store import edits, events, jobs, versions
from service.store import tables as t
from service.store.migrate import upgrade
from tests.lifecycle.local_store import House, new_house
from tests.servers import postgres_database

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
SECRET = "Where does the heron of Quillfeather sleep?"
ANSWER = "under the seventh bridge of Ambleforth"
Furnish = Callable[..., House]


@pytest.fixture(params=["sqlite", "postgres"])
def furnish(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Furnish]:
    """Makes a house over a new database of each kind."""
    with ExitStack() as opened:

        def make(**given: object) -> House:
            if request.param == "sqlite":
                house = new_house(tmp_path, **given)
            else:
                url = opened.enter_context(postgres_database())
                upgrade(url)
                house = House(url, tmp_path / "checkpoints", **given)  # type: ignore[arg-type]
            opened.callback(house.close)
            return house

        yield make


def revoked(house: House, author: str, *, since: datetime = LONG_AGO, restore_previous: bool = False) -> Revoked:
    return revoke(
        house.store, author=author, since=since, by="ann", reason="their key was stolen", restore_previous=restore_previous
    )


def live_of(house: House, author: str, *facts: tuple[str, str]) -> list[str]:
    made = []
    for fact in facts:
        made += [edit.id for edit in house.post(fact, author=author)]
        house.worker.drain()
    return made


def test_revoking_takes_back_everything_an_author_posted_and_nothing_of_others(furnish: Furnish) -> None:
    house = furnish()
    mine = live_of(house, "ann", ("a", "1"))
    theirs = live_of(house, "eve", ("b", "2"), ("c", "3"))
    (waiting,) = house.post(("d", "4"), author="eve", method="locft")

    result = revoked(house, "eve")
    house.worker.drain()

    assert set(result.retracted) == {*theirs, waiting.id} and result.already == 0
    assert house.live_set.ids == set(mine)
    assert [house.says(prompt) for prompt in "abcd"] == ["1", *(f"base of prompt:{key}" for key in "bcd")]
    assert house.event_types().count("author.revoked") == 1


def test_revoking_twice_is_the_same_as_once(furnish: Furnish) -> None:
    house = furnish()
    theirs = live_of(house, "eve", ("b", "2"))

    first, second = revoked(house, "eve"), revoked(house, "eve")

    assert first.retracted == tuple(theirs)
    assert (second.retracted, second.already) == ((), 1)


def test_what_was_posted_before_the_moment_stays(furnish: Furnish) -> None:
    house = furnish()
    before = live_of(house, "eve", ("b", "2"))
    moment = datetime.now(UTC)
    after = live_of(house, "eve", ("c", "3"))

    assert revoked(house, "eve", since=moment).retracted == tuple(after)

    house.worker.drain()
    assert house.live_set.ids == set(before)


def test_a_superseded_edit_of_the_author_is_barred_from_coming_back_by_a_rollback(furnish: Furnish) -> None:
    house = furnish()
    (bad,) = live_of(house, "eve", ("a", "bad"))
    number = house.head.number
    live_of(house, "ann", ("a", "good"))

    result = revoked(house, "eve")
    house.roll_back(number)
    house.worker.drain()

    assert result.barred == (bad,)
    assert house.says("a") == "base of prompt:a"


def test_restoring_goes_back_to_the_last_edit_that_was_not_theirs(furnish: Furnish) -> None:
    house = furnish()
    live_of(house, "ann", ("a", "right"))
    live_of(house, "eve", ("a", "wrong"), ("a", "more wrong"))

    revoked(house, "eve", restore_previous=True)
    house.worker.drain()

    assert house.says("a") == "right"


def test_more_edits_than_one_transaction_takes_are_revoked(furnish: Furnish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.lifecycle.revoke.CHUNK", 2)
    house = furnish()
    made = house.post(*((f"q{n}", "x") for n in range(5)), author="eve", method="locft")

    result = revoked(house, "eve")

    assert result.retracted == tuple(edit.id for edit in made)
    assert set(house.statuses(made)) == {EditStatus.RETRACTED}


def test_a_moment_without_a_zone_and_a_blank_author_are_refused(furnish: Furnish) -> None:
    house = furnish()

    with pytest.raises(Refused, match="time zone"):
        revoked(house, "eve", since=datetime(2026, 1, 1))
    with pytest.raises(Refused, match="author"):
        revoked(house, " ")
    assert revoked(house, "nobody") == Revoked((), 0)


def purged(house: House, *edit_ids: str, **given: object) -> Purged:
    return purge(house.parts, edit_ids=edit_ids, by="ann", **given)  # type: ignore[arg-type]


def told_and_taken_back(house: House) -> str:
    """A secret told, learned, consolidated, taken back and trained away; its id. Version 5 is the head."""
    house.live(("kept", "1"))
    request = EditRequest(prompt=SECRET, target=ANSWER, rephrases=(Probe(prompt=f"Say: {SECRET}", train=True),))
    (edit,) = submit(house.store, [request], author="ann", idempotency_key="k", body_hash="h").edits
    house.worker.drain()
    house.retrain()
    house.worker.drain()
    house.retract(edit)
    house.worker.drain()  # the refit makes a tombstone, and the tombstone a retrain
    return edit.id


def files_of(house: House) -> set[str]:
    return {path.name for path in house.folder.rglob("*.safetensors")}


def everything(house: House) -> str:
    """All rows of all tables."""
    with house.store.read() as connection:
        return "\n".join(str(tuple(row)) for table in t.metadata.sorted_tables for row in connection.execute(sa.select(table)))


def test_a_purge_removes_every_version_file_and_row_that_held_the_edit(furnish: Furnish) -> None:
    house = furnish()
    secret = told_and_taken_back(house)
    forgotten: list[int] = []

    result = purged(house, secret, forget=forgotten.append)

    assert result.versions == (2, 3, 4) == tuple(forgotten)
    assert [version.status for version in house.versions()] == [
        VersionStatus.PUBLISHED,
        VersionStatus.PUBLISHED,
        *[VersionStatus.COLLECTED] * 3,
        VersionStatus.PUBLISHED,
    ]
    kept = {f"{version.digest}.safetensors" for version in house.versions() if version.number in (1, 5)}
    assert files_of(house) == kept and len(result.files) == 3
    assert house.says("kept") == "1" == house.says("kept", version=1)
    rows = everything(house)
    assert SECRET not in rows and ANSWER not in rows
    with house.store.read() as connection:
        assert {event["type"] for event in events.page(connection, limit=100, edit_id=secret)} >= {"edit.purged", "edit.accepted"}
        assert all(event["data"] == {} for event in events.page(connection, limit=100, edit_id=secret))
        assert all(secret not in job.edit_ids for job in jobs.page(connection, limit=100))


def test_a_purge_is_refused_while_the_checkpoints_are_not_there(furnish: Furnish) -> None:
    house = furnish()
    secret = told_and_taken_back(house)
    aside = house.folder.rename(house.folder.with_name("unmounted"))

    with pytest.raises(Unreadable, match="nothing was purged"):
        purged(house, secret)

    assert SECRET in everything(house)
    aside.rename(house.folder)
    assert len(purged(house, secret).files) == 3


def test_nothing_of_the_text_is_left_in_the_sqlite_files(tmp_path: Path) -> None:
    house = new_house(tmp_path)
    secret = told_and_taken_back(house)
    for statement in (sa.insert(t.reservoir).values(slot=1, prompt=SECRET * 200, at=LONG_AGO), sa.delete(t.reservoir)):
        with house.store.write() as connection:  # leaves the words in free pages
            connection.exec_driver_sql("PRAGMA secure_delete=OFF")
            connection.execute(statement)
    told = b"".join(path.read_bytes() for path in tmp_path.glob("errata.db*"))

    result = purged(house, secret)

    left = b"".join(path.read_bytes() for path in tmp_path.glob("errata.db*"))
    assert SECRET.encode() in told and ANSWER.encode() in told
    assert SECRET.encode() not in left and ANSWER.encode() not in left
    assert not any("SQLite" in sentence for sentence in result.unreachable)
    house.close()


def test_a_reader_that_holds_the_log_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.database.BUSY_S", 0)
    house = new_house(tmp_path)
    secret = told_and_taken_back(house)

    with house.store.read() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.execute(sa.select(t.head)).all()
        result = purged(house, secret)

    assert any("SQLite" in sentence for sentence in result.unreachable)
    assert not any("SQLite" in sentence for sentence in purged(house, secret).unreachable)
    house.close()


def test_a_purged_version_is_gone_and_cannot_be_rolled_back_to(furnish: Furnish) -> None:
    house = furnish()
    purged(house, told_and_taken_back(house))

    with pytest.raises(Gone):
        house.says("kept", version=3)
    with pytest.raises(Gone):
        house.roll_back(3)


def test_a_pinned_version_goes_with_the_others(furnish: Furnish) -> None:
    house = furnish()
    secret = told_and_taken_back(house)
    with house.store.write() as connection:
        versions.pin(connection, 3)

    assert 3 in purged(house, secret).versions
    assert not house.versions()[3].pinned


def test_exports_go_whose_version_held_the_edit_and_others_stay(furnish: Furnish, tmp_path: Path) -> None:
    house = furnish()
    secret = told_and_taken_back(house)
    live = {
        "old": (3, f'["{secret}"]'),
        "covered": (4, "[]"),
        "new": (5, "[]"),
        "renamed": (9, f'["{secret}"]'),
        "lost": (8, "[]"),
    }
    for name, (number, ids) in live.items():
        (tmp_path / "exports" / name).mkdir(parents=True)
        (tmp_path / "exports" / name / "errata.json").write_text(f'{{"version": {number}, "live": {ids}}}')
        (tmp_path / "exports" / name / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "exports" / "note.txt").write_text("not an export")

    result = purged(house, secret)

    assert result.exports == ("covered", "old", "renamed")
    assert {path.name for path in (tmp_path / "exports").iterdir()} == {"new", "lost", "note.txt"}
    assert any("lost" in sentence for sentence in result.unreachable)


def test_evaluations_and_prompts_that_hold_the_words_go(furnish: Furnish) -> None:
    house = furnish()
    secret = told_and_taken_back(house)
    about = {"mine": {"edits": [secret]}, "worded": {"records": [{"prompt": SECRET}]}, "other": {"records": [{"prompt": "kept"}]}}
    now = datetime.now(UTC)
    with house.store.write() as connection:
        for name, request in about.items():
            row = {"id": name, "version": 5, "status": "done", "about": {}, "request": request, "progress": 1.0, "author": "ann"}
            connection.execute(sa.insert(t.evals).values(**row, created_at=now))
        for slot, prompt in enumerate((f"Please: {SECRET}", "kept")):
            connection.execute(sa.insert(t.reservoir).values(slot=slot, prompt=prompt, at=now))

    purged(house, secret)

    with house.store.read() as connection:
        assert connection.execute(sa.select(t.evals.c.id)).scalars().all() == ["other"]
        assert connection.execute(sa.select(t.reservoir.c.prompt)).scalars().all() == ["kept"]


def test_of_evaluations_only_the_words_that_were_asked_or_answered_count(furnish: Furnish) -> None:
    house = furnish()
    probes = {"locality": (Probe(prompt="Is the heron of Quillfeather grey?"),), "rephrases": (Probe(prompt="the heron"),)}
    (edit,) = submit(house.store, [EditRequest(prompt="records", target="x", **probes)], author="ann").edits  # type: ignore[arg-type]
    house.worker.drain()
    house.retract(edit)
    house.worker.drain()
    asked = {
        "named by a field": {"records": [{"relation": "records"}]},
        "said otherwise": {"records": [{"prompt": "is the heron of  QUILLFEATHER grey?"}]},
        "perhaps": {"records": [{"prompt": "Who is the heron?", "target": "b"}]},
        "alone": {"records": [{"rephrases": [{"prompt": "The heron!"}]}]},
    }
    now = datetime.now(UTC)
    with house.store.write() as connection:
        for name, request in asked.items():
            row = {"id": name, "version": 1, "status": "done", "about": {}, "request": request, "progress": 1.0, "author": "ann"}
            connection.execute(sa.insert(t.evals).values(**row, created_at=now))
        for slot, prompt in enumerate(("These records", "Is the heron of Quillfeather grey? I ask", "another")):
            connection.execute(sa.insert(t.reservoir).values(slot=slot, prompt=prompt, at=now))

    result = purged(house, edit.id)

    with house.store.read() as connection:
        assert set(connection.execute(sa.select(t.evals.c.id)).scalars()) == {"named by a field", "perhaps"}
        assert set(connection.execute(sa.select(t.reservoir.c.prompt)).scalars()) == {"These records", "another"}
    assert "2 evaluations and kept prompts with a short wording of an edit among other words" in result.unreachable


def test_a_batch_sent_again_after_one_of_its_edits_was_purged_makes_none_anew(furnish: Furnish) -> None:
    house = furnish()
    batch = [EditRequest(prompt=prompt, target="x") for prompt in ("a", SECRET, "b")]
    first = submit(house.store, batch, author="ann", idempotency_key="batch", body_hash="h")
    house.worker.drain()
    house.retract(first.edits[1])
    house.worker.drain()
    purged(house, first.edits[1].id)

    again = submit(house.store, batch, author="ann", idempotency_key="batch", body_hash="h")

    assert again.replayed and [edit.id for edit in again.edits] == [first.edits[0].id, first.edits[2].id]
    assert len(house.all_edits()) == 2 and first.edits[1].id not in _without_events(house)


def test_an_edit_sent_again_after_it_was_purged_is_gone_and_its_key_says_nothing_of_it(furnish: Furnish) -> None:
    house = furnish()
    secret = told_and_taken_back(house)
    purged(house, secret)

    with pytest.raises(Gone, match="purged"):
        submit(house.store, [EditRequest(prompt=SECRET, target=ANSWER)], author="ann", idempotency_key="k", body_hash="h")

    with house.store.read() as connection:
        assert connection.execute(sa.select(t.idempotency_keys.c.body_hash)).scalar_one() == "purged"


def test_versions_forget_that_they_did_not_answer_a_purged_edit(furnish: Furnish) -> None:
    house = furnish()
    secret = told_and_taken_back(house)
    with house.store.write() as connection:
        for number in (1, 5):
            scores = {"canary": 1.0, "lost": [secret, "another"]}
            connection.execute(sa.update(t.versions).where(t.versions.c.number == number).values(scores=scores))

    purged(house, secret)

    assert house.head.scores == {"canary": 1.0, "lost": ["another"]}
    assert secret not in _without_events(house)


def _without_events(house: House) -> str:
    """All rows of all tables but the log of events, where ids stay."""
    tables = [table for table in t.metadata.sorted_tables if table is not t.events]
    with house.store.read() as connection:
        return "\n".join(str(tuple(row)) for table in tables for row in connection.execute(sa.select(table)))


def test_an_export_under_way_of_a_version_that_holds_the_edit_forbids_the_purge(furnish: Furnish, tmp_path: Path) -> None:
    house = furnish()
    secret = told_and_taken_back(house)
    job = request_export(house.store, tmp_path / "exports", version=3, author="ann")

    with pytest.raises(Conflict, match="export under way"):
        purged(house, secret)

    cancel_job(house.store, job.id, author="ann")
    request_export(house.store, tmp_path / "exports", version=5, author="ann")
    assert 3 in purged(house, secret).versions


def test_half_written_exports_go_unless_a_job_writes_them(furnish: Furnish, tmp_path: Path) -> None:
    house = furnish()
    secret = told_and_taken_back(house)
    job = request_export(house.store, tmp_path / "exports", version=5, name="new", author="ann")
    ours, left = f".new.{job.id}-1.partial", ".old.a-dead-job-5.partial"
    for name in (ours, left):
        (tmp_path / "exports" / name).mkdir(parents=True)

    result = purged(house, secret)

    assert result.exports == (left,)
    assert [path.name for path in (tmp_path / "exports").iterdir()] == [ours]
    assert any(ours in sentence for sentence in result.unreachable)


def test_what_only_the_window_of_the_head_was_trained_on_is_purged_after_a_retrain_of_either_kind(furnish: Furnish) -> None:
    house = furnish(settings=LifecycleSettings(cadence=Cadence(method="baft")))
    house.live(("kept", "1"))
    house.retrain("major")
    house.worker.drain()
    old, _ = house.live((SECRET, "old"), (SECRET, "new"))
    with pytest.raises(Conflict, match="retrain of either kind takes it out"):
        purged(house, old.id)

    house.retrain("minor")
    house.worker.drain()

    assert purged(house, old.id).versions == (3, 4)
    assert house.says(SECRET) == "new"


def test_a_deferred_edit_that_the_window_learned_a_part_of_is_purged_after_the_refit_that_its_retraction_makes(
    furnish: Furnish,
) -> None:
    house = furnish(settings=LifecycleSettings(cadence=Cadence(method="baft"), rounds=1))
    house.ledger.not_taken = {"baft": {"half"}, "locft": set()}
    lost, _ = house.post((SECRET, "half"), ("kept", "1"))
    house.worker.drain()
    assert house.edit(lost).status is EditStatus.DEFERRED

    house.retract(lost)
    with pytest.raises(Conflict, match="the window of the version"):
        purged(house, lost.id)
    house.worker.drain()

    assert purged(house, lost.id).versions == (1,)
    assert house.says("kept") == "1"


def test_what_is_live_waiting_or_still_in_the_tensors_is_not_purged(furnish: Furnish) -> None:
    house = furnish(settings=LifecycleSettings(cadence=Cadence(method="baft")))  # no retrain unless somebody asks for it
    (edit,) = house.live(("a", "1"))
    (waiting,) = house.post(("b", "2"), method="locft")
    for one in (edit, waiting):
        with pytest.raises(Conflict, match="retract it first"):
            purged(house, one.id)

    house.retrain()
    house.worker.drain()
    house.retract(edit)
    house.worker.drain()

    with pytest.raises(Conflict, match="major retrain first"):
        purged(house, edit.id)
    assert house.edit(edit).status is EditStatus.RETRACTED


def test_a_job_under_way_that_was_given_the_edit_forbids_the_purge(furnish: Furnish) -> None:
    house = furnish()
    secret = told_and_taken_back(house)
    with house.store.write() as connection:
        jobs.insert(connection, "refit", edit_ids=[secret], reason=None, author="ann", now=datetime.now(UTC))

    with pytest.raises(Conflict, match="under way"):
        purged(house, secret)


def test_a_purge_of_nothing_or_of_an_unknown_edit_is_refused(furnish: Furnish) -> None:
    house = furnish()

    with pytest.raises(Refused):
        purged(house)
    with pytest.raises(NotFound):
        purged(house, "nobody")


def test_an_edit_that_superseded_the_purged_one_stays_as_it_is(furnish: Furnish) -> None:
    house = furnish()
    old, new = house.live((SECRET, "old"), (SECRET, "new"))
    with pytest.raises(Conflict, match="trained"):
        purged(house, old.id)  # the window learned the newer on top of it
    house.retrain()
    house.worker.drain()

    result = purged(house, old.id)

    assert result.versions == (1, 2)
    kept = house.edit(new)
    assert (kept.status, kept.supersedes) == (EditStatus.CONSOLIDATED, None)
    assert house.says(SECRET) == "new"


@contextmanager
def dying_at(point: str) -> Iterator[int]:
    """Fork; the block runs in the child alone, which the point kills. Yields 0 in the child."""
    child = os.fork()
    if child == 0:
        crash_points.arm(point)
    try:
        yield child
    finally:
        if child == 0:
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("point", ["purge.after_collecting", "purge.after_files", "purge.after_rows"])
def test_a_purge_that_was_killed_is_finished_by_asking_again(point: str, tmp_path: Path) -> None:
    house = new_house(tmp_path)
    secret = told_and_taken_back(house)
    (tmp_path / "exports" / "old").mkdir(parents=True)
    (tmp_path / "exports" / "old" / "errata.json").write_text('{"version": 4, "live": []}')
    house.close()

    with dying_at(point) as child:
        if child == 0:
            purged(House(house.url, house.folder, ledger=house.ledger), secret)
    house = house.again()
    result = purged(house, secret)

    assert not (tmp_path / "exports" / "old").exists()
    kept = {f"{version.digest}.safetensors" for version in house.versions() if version.number in (1, 5)}
    assert files_of(house) == kept
    assert SECRET not in everything(house)
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("errata.db*"))
    assert result.versions == ((2, 3, 4) if point != "purge.after_rows" else ())
    assert purged(house, secret).rows == 0
    house.close()


def test_versions_kept_as_changes_to_a_purged_root_keep_their_live_sets(
    furnish: Furnish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.versions.most_changes", lambda size: 3)
    house = furnish()
    (secret, *_) = house.live((SECRET, ANSWER), *((f"q{n}", "x") for n in range(7)))
    house.retract(secret)
    house.worker.drain()
    house.live(("r1", "x"), ("r2", "x"))
    with house.store.read() as connection:
        before = {number: versions.live_set(connection, number) for number in range(9, 12)}

    result = purged(house, secret.id)
    other = house.again()

    assert result.versions == tuple(range(1, 9))
    for kept in (house, other):
        with kept.store.read() as connection:
            assert {number: versions.live_set(connection, number) for number in before} == before
    with other.store.read() as connection:
        assert edits.retracted(connection, [secret.id]) == set()
        left = connection.execute(sa.select(t.version_edits.c.version).distinct()).scalars().all()
        assert set(left) <= set(before)
    other.close()

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
from service.background.purge import PurgeReport, purge
from service.domain.cadence import Cadence
from service.domain.edit import EditRequest, EditStatus, Probe
from service.domain.errors import Conflict, Gone, NotFound, Refused, Unreadable
from service.domain.version import VersionStatus
from service.lifecycle import crash_points
from service.lifecycle.revoke import RevocationResult, revoke
from service.lifecycle.settings import LifecycleSettings
from service.lifecycle.submit import submit
from service.store import edits, events, jobs, versions
from service.store import tables as t
from service.store.migrate import upgrade
from tests.lifecycle.local_service import LocalService, new_local_service
from tests.servers import postgres_database

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
SECRET = "Where does the heron of Quillfeather sleep?"
ANSWER = "under the seventh bridge of Ambleforth"
Furnish = Callable[..., LocalService]


@pytest.fixture(params=["sqlite", "postgres"])
def furnish(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Furnish]:
    """Makes a house over a new database of each kind."""
    with ExitStack() as opened:

        def make(**given: object) -> LocalService:
            if request.param == "sqlite":
                local = new_local_service(tmp_path, **given)
            else:
                url = opened.enter_context(postgres_database())
                upgrade(url)
                local = LocalService(url, tmp_path / "checkpoints", **given)  # type: ignore[arg-type]
            opened.callback(local.close)
            return local

        yield make


def revoked(local: LocalService, author: str, *, since: datetime = LONG_AGO, restore_previous: bool = False) -> RevocationResult:
    return revoke(
        local.store, author=author, since=since, by="ann", reason="their key was stolen", restore_previous=restore_previous
    )


def live_of(local: LocalService, author: str, *facts: tuple[str, str]) -> list[str]:
    made = []
    for fact in facts:
        made += [edit.id for edit in local.post(fact, author=author)]
        local.worker.drain()
    return made


def test_revoking_takes_back_everything_an_author_posted_and_nothing_of_others(furnish: Furnish) -> None:
    local = furnish()
    mine = live_of(local, "ann", ("a", "1"))
    theirs = live_of(local, "eve", ("b", "2"), ("c", "3"))
    (waiting,) = local.post(("d", "4"), author="eve", method="locft")

    result = revoked(local, "eve")
    local.worker.drain()

    assert set(result.retracted) == {*theirs, waiting.id} and result.already == 0
    assert local.live_set.ids == set(mine)
    assert [local.says(prompt) for prompt in "abcd"] == ["1", *(f"base of prompt:{key}" for key in "bcd")]
    assert local.event_types().count("author.revoked") == 1


def test_revoking_twice_is_the_same_as_once(furnish: Furnish) -> None:
    local = furnish()
    theirs = live_of(local, "eve", ("b", "2"))

    first, second = revoked(local, "eve"), revoked(local, "eve")

    assert first.retracted == tuple(theirs)
    assert (second.retracted, second.already) == ((), 1)


def test_what_was_posted_before_the_moment_stays(furnish: Furnish) -> None:
    local = furnish()
    before = live_of(local, "eve", ("b", "2"))
    moment = datetime.now(UTC)
    after = live_of(local, "eve", ("c", "3"))

    assert revoked(local, "eve", since=moment).retracted == tuple(after)

    local.worker.drain()
    assert local.live_set.ids == set(before)


def test_a_superseded_edit_of_the_author_is_barred_from_coming_back_by_a_rollback(furnish: Furnish) -> None:
    local = furnish()
    (bad,) = live_of(local, "eve", ("a", "bad"))
    number = local.head.number
    live_of(local, "ann", ("a", "good"))

    result = revoked(local, "eve")
    local.roll_back(number)
    local.worker.drain()

    assert result.barred == (bad,)
    assert local.says("a") == "base of prompt:a"


def test_restoring_goes_back_to_the_last_edit_that_was_not_theirs(furnish: Furnish) -> None:
    local = furnish()
    live_of(local, "ann", ("a", "right"))
    live_of(local, "eve", ("a", "wrong"), ("a", "more wrong"))

    revoked(local, "eve", restore_previous=True)
    local.worker.drain()

    assert local.says("a") == "right"


def test_more_edits_than_one_transaction_takes_are_revoked(furnish: Furnish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.lifecycle.revoke.CHUNK", 2)
    local = furnish()
    made = local.post(*((f"q{n}", "x") for n in range(5)), author="eve", method="locft")

    result = revoked(local, "eve")

    assert result.retracted == tuple(edit.id for edit in made)
    assert set(local.statuses(made)) == {EditStatus.RETRACTED}


def test_a_moment_without_a_zone_and_a_blank_author_are_refused(furnish: Furnish) -> None:
    local = furnish()

    with pytest.raises(Refused, match="time zone"):
        revoked(local, "eve", since=datetime(2026, 1, 1))
    with pytest.raises(Refused, match="author"):
        revoked(local, " ")
    assert revoked(local, "nobody") == RevocationResult((), 0)


def purged(local: LocalService, *edit_ids: str, **given: object) -> PurgeReport:
    return purge(local.context, edit_ids=edit_ids, by="ann", **given)  # type: ignore[arg-type]


def told_and_taken_back(local: LocalService) -> str:
    """A secret told, learned, consolidated, taken back and trained away; its id. Version 5 is the head."""
    local.live(("kept", "1"))
    request = EditRequest(prompt=SECRET, target=ANSWER, rephrases=(Probe(prompt=f"Say: {SECRET}", train=True),))
    (edit,) = submit(local.store, [request], author="ann", idempotency_key="k", body_hash="h").edits
    local.worker.drain()
    local.retrain()
    local.worker.drain()
    local.retract(edit)
    local.worker.drain()  # the refit makes a tombstone, and the tombstone a retrain
    return edit.id


def files_of(local: LocalService) -> set[str]:
    return {path.name for path in local.folder.rglob("*.safetensors")}


def everything(local: LocalService) -> str:
    """All rows of all tables."""
    with local.store.read() as connection:
        return "\n".join(str(tuple(row)) for table in t.metadata.sorted_tables for row in connection.execute(sa.select(table)))


def test_a_purge_removes_every_version_file_and_row_that_held_the_edit(furnish: Furnish) -> None:
    local = furnish()
    secret = told_and_taken_back(local)
    forgotten: list[int] = []

    result = purged(local, secret, forget=forgotten.append)

    assert result.versions == (2, 3, 4) == tuple(forgotten)
    assert [version.status for version in local.versions()] == [
        VersionStatus.PUBLISHED,
        VersionStatus.PUBLISHED,
        *[VersionStatus.COLLECTED] * 3,
        VersionStatus.PUBLISHED,
    ]
    kept = {f"{version.digest}.safetensors" for version in local.versions() if version.number in (1, 5)}
    assert files_of(local) == kept and len(result.files) == 3
    assert local.says("kept") == "1" == local.says("kept", version=1)
    rows = everything(local)
    assert SECRET not in rows and ANSWER not in rows
    with local.store.read() as connection:
        assert {event["type"] for event in events.read_page(connection, limit=100, edit_id=secret)} >= {
            "edit.purged",
            "edit.accepted",
        }
        assert all(event["data"] == {} for event in events.read_page(connection, limit=100, edit_id=secret))
        assert all(secret not in job.edit_ids for job in jobs.read_page(connection, limit=100))


def test_a_purge_is_refused_while_the_checkpoints_are_not_there(furnish: Furnish) -> None:
    local = furnish()
    secret = told_and_taken_back(local)
    aside = local.folder.rename(local.folder.with_name("unmounted"))

    with pytest.raises(Unreadable, match="nothing was purged"):
        purged(local, secret)

    assert SECRET in everything(local)
    aside.rename(local.folder)
    assert len(purged(local, secret).files) == 3


def test_nothing_of_the_text_is_left_in_the_sqlite_files(tmp_path: Path) -> None:
    local = new_local_service(tmp_path)
    secret = told_and_taken_back(local)
    for statement in (sa.insert(t.reservoir).values(slot=1, prompt=SECRET * 200, at=LONG_AGO), sa.delete(t.reservoir)):
        with local.store.write() as connection:  # leaves the words in free pages
            connection.exec_driver_sql("PRAGMA secure_delete=OFF")
            connection.execute(statement)
    told = b"".join(path.read_bytes() for path in tmp_path.glob("errata.db*"))

    result = purged(local, secret)

    left = b"".join(path.read_bytes() for path in tmp_path.glob("errata.db*"))
    assert SECRET.encode() in told and ANSWER.encode() in told
    assert SECRET.encode() not in left and ANSWER.encode() not in left
    assert not any("SQLite" in sentence for sentence in result.unreachable)
    local.close()


def test_a_reader_that_holds_the_log_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.database.BUSY_S", 0)
    local = new_local_service(tmp_path)
    secret = told_and_taken_back(local)

    with local.store.read() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.execute(sa.select(t.head)).all()
        result = purged(local, secret)

    assert any("SQLite" in sentence for sentence in result.unreachable)
    assert not any("SQLite" in sentence for sentence in purged(local, secret).unreachable)
    local.close()


def test_a_purged_version_is_gone_and_cannot_be_rolled_back_to(furnish: Furnish) -> None:
    local = furnish()
    purged(local, told_and_taken_back(local))

    with pytest.raises(Gone):
        local.says("kept", version=3)
    with pytest.raises(Gone):
        local.roll_back(3)


def test_a_pinned_version_goes_with_the_others(furnish: Furnish) -> None:
    local = furnish()
    secret = told_and_taken_back(local)
    with local.store.write() as connection:
        versions.pin(connection, 3)

    assert 3 in purged(local, secret).versions
    assert not local.versions()[3].pinned


def test_exports_go_whose_version_held_the_edit_and_others_stay(furnish: Furnish, tmp_path: Path) -> None:
    local = furnish()
    secret = told_and_taken_back(local)
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

    result = purged(local, secret)

    assert result.exports == ("covered", "old", "renamed")
    assert {path.name for path in (tmp_path / "exports").iterdir()} == {"new", "lost", "note.txt"}
    assert any("lost" in sentence for sentence in result.unreachable)


def test_evaluations_and_prompts_that_hold_the_words_go(furnish: Furnish) -> None:
    local = furnish()
    secret = told_and_taken_back(local)
    about = {"mine": {"edits": [secret]}, "worded": {"records": [{"prompt": SECRET}]}, "other": {"records": [{"prompt": "kept"}]}}
    now = datetime.now(UTC)
    with local.store.write() as connection:
        for name, request in about.items():
            row = {"id": name, "version": 5, "status": "done", "about": {}, "request": request, "progress": 1.0, "author": "ann"}
            connection.execute(sa.insert(t.evals).values(**row, created_at=now))
        for slot, prompt in enumerate((f"Please: {SECRET}", "kept")):
            connection.execute(sa.insert(t.reservoir).values(slot=slot, prompt=prompt, at=now))

    purged(local, secret)

    with local.store.read() as connection:
        assert connection.execute(sa.select(t.evals.c.id)).scalars().all() == ["other"]
        assert connection.execute(sa.select(t.reservoir.c.prompt)).scalars().all() == ["kept"]


def test_of_evaluations_only_the_words_that_were_asked_or_answered_count(furnish: Furnish) -> None:
    local = furnish()
    probes = {"locality": (Probe(prompt="Is the heron of Quillfeather grey?"),), "rephrases": (Probe(prompt="the heron"),)}
    (edit,) = submit(local.store, [EditRequest(prompt="records", target="x", **probes)], author="ann").edits  # type: ignore[arg-type]
    local.worker.drain()
    local.retract(edit)
    local.worker.drain()
    asked = {
        "named by a field": {"records": [{"relation": "records"}]},
        "said otherwise": {"records": [{"prompt": "is the heron of  QUILLFEATHER grey?"}]},
        "perhaps": {"records": [{"prompt": "Who is the heron?", "target": "b"}]},
        "alone": {"records": [{"rephrases": [{"prompt": "The heron!"}]}]},
    }
    now = datetime.now(UTC)
    with local.store.write() as connection:
        for name, request in asked.items():
            row = {"id": name, "version": 1, "status": "done", "about": {}, "request": request, "progress": 1.0, "author": "ann"}
            connection.execute(sa.insert(t.evals).values(**row, created_at=now))
        for slot, prompt in enumerate(("These records", "Is the heron of Quillfeather grey? I ask", "another")):
            connection.execute(sa.insert(t.reservoir).values(slot=slot, prompt=prompt, at=now))

    result = purged(local, edit.id)

    with local.store.read() as connection:
        assert set(connection.execute(sa.select(t.evals.c.id)).scalars()) == {"named by a field", "perhaps"}
        assert set(connection.execute(sa.select(t.reservoir.c.prompt)).scalars()) == {"These records", "another"}
    assert "2 evaluations and kept prompts with a short wording of an edit among other words" in result.unreachable


def test_a_batch_sent_again_after_one_of_its_edits_was_purged_makes_none_anew(furnish: Furnish) -> None:
    local = furnish()
    batch = [EditRequest(prompt=prompt, target="x") for prompt in ("a", SECRET, "b")]
    first = submit(local.store, batch, author="ann", idempotency_key="batch", body_hash="h")
    local.worker.drain()
    local.retract(first.edits[1])
    local.worker.drain()
    purged(local, first.edits[1].id)

    again = submit(local.store, batch, author="ann", idempotency_key="batch", body_hash="h")

    assert again.replayed and [edit.id for edit in again.edits] == [first.edits[0].id, first.edits[2].id]
    assert len(local.all_edits()) == 2 and first.edits[1].id not in _without_events(local)


def test_an_edit_sent_again_after_it_was_purged_is_gone_and_its_key_says_nothing_of_it(furnish: Furnish) -> None:
    local = furnish()
    secret = told_and_taken_back(local)
    purged(local, secret)

    with pytest.raises(Gone, match="purged"):
        submit(local.store, [EditRequest(prompt=SECRET, target=ANSWER)], author="ann", idempotency_key="k", body_hash="h")

    with local.store.read() as connection:
        assert connection.execute(sa.select(t.idempotency_keys.c.body_hash)).scalar_one() == "purged"


def test_versions_forget_that_they_did_not_answer_a_purged_edit(furnish: Furnish) -> None:
    local = furnish()
    secret = told_and_taken_back(local)
    with local.store.write() as connection:
        for number in (1, 5):
            scores = {"canary": 1.0, "lost": [secret, "another"]}
            connection.execute(sa.update(t.versions).where(t.versions.c.number == number).values(scores=scores))

    purged(local, secret)

    assert local.head.scores == {"canary": 1.0, "lost": ["another"]}
    assert secret not in _without_events(local)


def _without_events(local: LocalService) -> str:
    """All rows of all tables but the log of events, where ids stay."""
    tables = [table for table in t.metadata.sorted_tables if table is not t.events]
    with local.store.read() as connection:
        return "\n".join(str(tuple(row)) for table in tables for row in connection.execute(sa.select(table)))


def test_an_export_under_way_of_a_version_that_holds_the_edit_forbids_the_purge(furnish: Furnish, tmp_path: Path) -> None:
    local = furnish()
    secret = told_and_taken_back(local)
    job = request_export(local.store, tmp_path / "exports", version=3, author="ann")

    with pytest.raises(Conflict, match="export under way"):
        purged(local, secret)

    cancel_job(local.store, job.id, author="ann")
    request_export(local.store, tmp_path / "exports", version=5, author="ann")
    assert 3 in purged(local, secret).versions


def test_half_written_exports_go_unless_a_job_writes_them(furnish: Furnish, tmp_path: Path) -> None:
    local = furnish()
    secret = told_and_taken_back(local)
    job = request_export(local.store, tmp_path / "exports", version=5, name="new", author="ann")
    ours, left = f".new.{job.id}-1.partial", ".old.a-dead-job-5.partial"
    for name in (ours, left):
        (tmp_path / "exports" / name).mkdir(parents=True)

    result = purged(local, secret)

    assert result.exports == (left,)
    assert [path.name for path in (tmp_path / "exports").iterdir()] == [ours]
    assert any(ours in sentence for sentence in result.unreachable)


def test_what_only_the_window_of_the_head_was_trained_on_is_purged_after_a_retrain_of_either_kind(furnish: Furnish) -> None:
    local = furnish(settings=LifecycleSettings(cadence=Cadence(method="baft")))
    local.live(("kept", "1"))
    local.retrain("major")
    local.worker.drain()
    old, _ = local.live((SECRET, "old"), (SECRET, "new"))
    with pytest.raises(Conflict, match="retrain of either kind takes it out"):
        purged(local, old.id)

    local.retrain("minor")
    local.worker.drain()

    assert purged(local, old.id).versions == (3, 4)
    assert local.says(SECRET) == "new"


def test_a_deferred_edit_that_the_window_learned_a_part_of_is_purged_after_the_refit_that_its_retraction_makes(
    furnish: Furnish,
) -> None:
    local = furnish(settings=LifecycleSettings(cadence=Cadence(method="baft"), rounds=1))
    local.ledger.not_taken = {"baft": {"half"}, "locft": set()}
    lost, _ = local.post((SECRET, "half"), ("kept", "1"))
    local.worker.drain()
    assert local.edit(lost).status is EditStatus.DEFERRED

    local.retract(lost)
    with pytest.raises(Conflict, match="the window of the version"):
        purged(local, lost.id)
    local.worker.drain()

    assert purged(local, lost.id).versions == (1,)
    assert local.says("kept") == "1"


def test_what_is_live_waiting_or_still_in_the_tensors_is_not_purged(furnish: Furnish) -> None:
    local = furnish(settings=LifecycleSettings(cadence=Cadence(method="baft")))  # no retrain unless somebody asks for it
    (edit,) = local.live(("a", "1"))
    (waiting,) = local.post(("b", "2"), method="locft")
    for one in (edit, waiting):
        with pytest.raises(Conflict, match="retract it first"):
            purged(local, one.id)

    local.retrain()
    local.worker.drain()
    local.retract(edit)
    local.worker.drain()

    with pytest.raises(Conflict, match="major retrain first"):
        purged(local, edit.id)
    assert local.edit(edit).status is EditStatus.RETRACTED


def test_a_job_under_way_that_was_given_the_edit_forbids_the_purge(furnish: Furnish) -> None:
    local = furnish()
    secret = told_and_taken_back(local)
    with local.store.write() as connection:
        jobs.insert(connection, "refit", edit_ids=[secret], reason=None, author="ann", now=datetime.now(UTC))

    with pytest.raises(Conflict, match="under way"):
        purged(local, secret)


def test_a_purge_of_nothing_or_of_an_unknown_edit_is_refused(furnish: Furnish) -> None:
    local = furnish()

    with pytest.raises(Refused):
        purged(local)
    with pytest.raises(NotFound):
        purged(local, "nobody")


def test_an_edit_that_superseded_the_purged_one_stays_as_it_is(furnish: Furnish) -> None:
    local = furnish()
    old, new = local.live((SECRET, "old"), (SECRET, "new"))
    with pytest.raises(Conflict, match="trained"):
        purged(local, old.id)  # the window learned the newer on top of it
    local.retrain()
    local.worker.drain()

    result = purged(local, old.id)

    assert result.versions == (1, 2)
    kept = local.edit(new)
    assert (kept.status, kept.supersedes) == (EditStatus.CONSOLIDATED, None)
    assert local.says(SECRET) == "new"


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
    local = new_local_service(tmp_path)
    secret = told_and_taken_back(local)
    (tmp_path / "exports" / "old").mkdir(parents=True)
    (tmp_path / "exports" / "old" / "errata.json").write_text('{"version": 4, "live": []}')
    local.close()

    with dying_at(point) as child:
        if child == 0:
            purged(LocalService(local.url, local.folder, ledger=local.ledger), secret)
    local = local.again()
    result = purged(local, secret)

    assert not (tmp_path / "exports" / "old").exists()
    kept = {f"{version.digest}.safetensors" for version in local.versions() if version.number in (1, 5)}
    assert files_of(local) == kept
    assert SECRET not in everything(local)
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("errata.db*"))
    assert result.versions == ((2, 3, 4) if point != "purge.after_rows" else ())
    assert purged(local, secret).rows == 0
    local.close()


def test_versions_kept_as_changes_to_a_purged_root_keep_their_live_sets(
    furnish: Furnish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.versions.max_changes", lambda size: 3)
    local = furnish()
    (secret, *_) = local.live((SECRET, ANSWER), *((f"q{n}", "x") for n in range(7)))
    local.retract(secret)
    local.worker.drain()
    local.live(("r1", "x"), ("r2", "x"))
    with local.store.read() as connection:
        before = {number: versions.read_live_set(connection, number) for number in range(9, 12)}

    result = purged(local, secret.id)
    other = local.again()

    assert result.versions == tuple(range(1, 9))
    for kept in (local, other):
        with kept.store.read() as connection:
            assert {number: versions.read_live_set(connection, number) for number in before} == before
    with other.store.read() as connection:
        assert edits.find_retracted(connection, [secret.id]) == set()
        left = connection.execute(sa.select(t.version_edits.c.version).distinct()).scalars().all()
        assert set(left) <= set(before)
    other.close()

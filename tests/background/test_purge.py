"""Purging what still holds an edit: on both databases and in real files."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
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
from service.lifecycle.settings import LifecycleSettings
from service.store import edits, events, jobs, versions
from service.store import tables as t
from tests.lifecycle.local_service import LocalService, MakeService, local_services, new_local_service
from tests.submission import submit

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
SECRET = "Where does the heron of Quillfeather sleep?"
ANSWER = "under the seventh bridge of Ambleforth"
ALIAS = "the grey wader Eustace"


@pytest.fixture(params=["sqlite", "postgres"])
def make_service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeService]:
    """Opens services over a new database of each kind."""
    with local_services(request.param, tmp_path) as make:
        yield make


def purge_edits(local: LocalService, *edit_ids: str, **given: object) -> PurgeReport:
    return purge(local.context, edit_ids=edit_ids, by="ann", exports=local.exports, **given)  # type: ignore[arg-type]


def post_and_retract_secret(local: LocalService) -> str:
    """A secret told, learned, consolidated, taken back and trained away; its id. Version 5 is the head."""
    local.live(("kept", "1"))
    told = {"rephrases": (Probe(prompt=f"Say: {SECRET}", train=True),), "aliases": (ALIAS,)}
    request = EditRequest(prompt=SECRET, target=ANSWER, **told)  # type: ignore[arg-type]
    (edit,) = submit(local.store, [request], author="ann", idempotency_key="k", body_hash="h").edits
    local.worker.drain()
    local.retrain()
    local.worker.drain()
    local.retract(edit)
    local.worker.drain()  # the refit makes a tombstone, and the tombstone a retrain
    return edit.id


def checkpoint_files(local: LocalService) -> set[str]:
    return {path.name for path in local.folder.rglob("*.safetensors")}


def all_rows(local: LocalService) -> str:
    """All rows of all tables."""
    with local.store.read() as connection:
        return "\n".join(str(tuple(row)) for table in t.metadata.sorted_tables for row in connection.execute(sa.select(table)))


def test_a_purge_removes_every_version_file_and_row_that_held_the_edit(make_service: MakeService) -> None:
    local = make_service()
    secret = post_and_retract_secret(local)
    forgotten: list[int] = []

    result = purge_edits(local, secret, forget=forgotten.append)

    assert result.versions == (2, 3, 4) == tuple(forgotten)
    assert [version.status for version in local.versions()] == [
        VersionStatus.PUBLISHED,
        VersionStatus.PUBLISHED,
        *[VersionStatus.COLLECTED] * 3,
        VersionStatus.PUBLISHED,
    ]
    kept = {f"{version.digest}.safetensors" for version in local.versions() if version.number in (1, 5)}
    assert checkpoint_files(local) == kept and len(result.files) == 3
    assert local.says("kept") == "1" == local.says("kept", version=1)
    rows = all_rows(local)
    assert not any(text in rows for text in (SECRET, ANSWER, ALIAS))
    with local.store.read() as connection:
        assert {event["type"] for event in events.read_page(connection, limit=100, edit_id=secret)} >= {
            "edit.purged",
            "edit.accepted",
        }
        assert all(event["data"] == {} for event in events.read_page(connection, limit=100, edit_id=secret))
        assert all(secret not in job.edit_ids for job in jobs.read_page(connection, limit=100))


def test_a_purge_is_refused_while_the_checkpoints_are_not_mounted(make_service: MakeService) -> None:
    local = make_service()
    secret = post_and_retract_secret(local)
    aside = local.folder.rename(local.folder.with_name("unmounted"))

    with pytest.raises(Unreadable, match="nothing was purged"):
        purge_edits(local, secret)

    assert SECRET in all_rows(local) and ALIAS in all_rows(local)
    aside.rename(local.folder)
    assert len(purge_edits(local, secret).files) == 3


def test_no_text_of_a_purged_edit_is_left_in_the_sqlite_files(tmp_path: Path) -> None:
    local = new_local_service(tmp_path)
    secret = post_and_retract_secret(local)
    for statement in (sa.insert(t.reservoir).values(slot=1, prompt=SECRET * 200, at=LONG_AGO), sa.delete(t.reservoir)):
        with local.store.write() as connection:  # leaves the words in free pages
            connection.exec_driver_sql("PRAGMA secure_delete=OFF")
            connection.execute(statement)
    told = b"".join(path.read_bytes() for path in tmp_path.glob("errata.db*"))

    result = purge_edits(local, secret)

    left = b"".join(path.read_bytes() for path in tmp_path.glob("errata.db*"))
    assert all(text.encode() in told for text in (SECRET, ANSWER, ALIAS))
    assert not any(text.encode() in left for text in (SECRET, ANSWER, ALIAS))
    assert not any("SQLite" in sentence for sentence in result.unreachable)
    local.close()


def test_a_purge_reports_a_reader_that_holds_the_write_ahead_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.database.BUSY_S", 0)
    local = new_local_service(tmp_path)
    secret = post_and_retract_secret(local)

    with local.store.read() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.execute(sa.select(t.head)).all()
        result = purge_edits(local, secret)

    assert any("SQLite" in sentence for sentence in result.unreachable)
    assert not any("SQLite" in sentence for sentence in purge_edits(local, secret).unreachable)
    local.close()


def test_a_purged_version_is_gone_and_cannot_be_rolled_back_to(make_service: MakeService) -> None:
    local = make_service()
    purge_edits(local, post_and_retract_secret(local))

    with pytest.raises(Gone):
        local.says("kept", version=3)
    with pytest.raises(Gone):
        local.roll_back(3)


def test_a_pinned_version_is_purged_with_the_others(make_service: MakeService) -> None:
    local = make_service()
    secret = post_and_retract_secret(local)
    with local.store.write() as connection:
        versions.pin(connection, 3)

    assert 3 in purge_edits(local, secret).versions
    assert not local.versions()[3].pinned


def test_only_exports_of_versions_that_held_the_edit_are_purged(make_service: MakeService, tmp_path: Path) -> None:
    local = make_service()
    secret = post_and_retract_secret(local)
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

    result = purge_edits(local, secret)

    assert result.exports == ("covered", "old", "renamed")
    assert {path.name for path in (tmp_path / "exports").iterdir()} == {"new", "lost", "note.txt"}
    assert any("lost" in sentence for sentence in result.unreachable)


def test_evaluations_and_stored_prompts_that_quote_the_edit_are_purged(make_service: MakeService) -> None:
    local = make_service()
    secret = post_and_retract_secret(local)
    about = {"mine": {"edits": [secret]}, "worded": {"records": [{"prompt": SECRET}]}, "other": {"records": [{"prompt": "kept"}]}}
    now = datetime.now(UTC)
    with local.store.write() as connection:
        for name, request in about.items():
            row = {"id": name, "version": 5, "status": "done", "about": {}, "request": request, "progress": 1.0, "author": "ann"}
            connection.execute(sa.insert(t.evals).values(**row, created_at=now))
        for slot, prompt in enumerate((f"Please: {SECRET}", "kept")):
            connection.execute(sa.insert(t.reservoir).values(slot=slot, prompt=prompt, at=now))

    purge_edits(local, secret)

    with local.store.read() as connection:
        assert connection.execute(sa.select(t.evals.c.id)).scalars().all() == ["other"]
        assert connection.execute(sa.select(t.reservoir.c.prompt)).scalars().all() == ["kept"]


def test_only_prompts_and_answers_of_an_evaluation_are_compared_with_the_edit(make_service: MakeService) -> None:
    local = make_service()
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

    result = purge_edits(local, edit.id)

    with local.store.read() as connection:
        assert set(connection.execute(sa.select(t.evals.c.id)).scalars()) == {"named by a field", "perhaps"}
        assert set(connection.execute(sa.select(t.reservoir.c.prompt)).scalars()) == {"These records", "another"}
    assert "2 evaluations and kept prompts with a short wording of an edit among other words" in result.unreachable


def test_a_replayed_batch_makes_no_new_edit_for_a_purged_one(make_service: MakeService) -> None:
    local = make_service()
    batch = [EditRequest(prompt=prompt, target="x") for prompt in ("a", SECRET, "b")]
    first = submit(local.store, batch, author="ann", idempotency_key="batch", body_hash="h")
    local.worker.drain()
    local.retract(first.edits[1])
    local.worker.drain()
    purge_edits(local, first.edits[1].id)

    again = submit(local.store, batch, author="ann", idempotency_key="batch", body_hash="h")

    assert again.replayed and [edit.id for edit in again.edits] == [first.edits[0].id, first.edits[2].id]
    assert len(local.all_edits()) == 2 and first.edits[1].id not in _without_events(local)


def test_a_replayed_request_for_a_purged_edit_is_gone_and_its_key_is_anonymous(make_service: MakeService) -> None:
    local = make_service()
    secret = post_and_retract_secret(local)
    purge_edits(local, secret)

    with pytest.raises(Gone, match="purged"):
        submit(local.store, [EditRequest(prompt=SECRET, target=ANSWER)], author="ann", idempotency_key="k", body_hash="h")

    with local.store.read() as connection:
        assert connection.execute(sa.select(t.idempotency_keys.c.body_hash)).scalar_one() == "purged"


def test_the_scores_of_versions_do_not_name_a_purged_edit(make_service: MakeService) -> None:
    local = make_service()
    secret = post_and_retract_secret(local)
    with local.store.write() as connection:
        for number in (1, 5):
            scores = {"retention": 1.0, "lost": [secret, "another"]}
            connection.execute(sa.update(t.versions).where(t.versions.c.number == number).values(scores=scores))

    purge_edits(local, secret)

    assert local.head.scores == {"retention": 1.0, "lost": ["another"]}
    assert secret not in _without_events(local)


def _without_events(local: LocalService) -> str:
    """All rows of all tables but the log of events, where ids stay."""
    tables = [table for table in t.metadata.sorted_tables if table is not t.events]
    with local.store.read() as connection:
        return "\n".join(str(tuple(row)) for table in tables for row in connection.execute(sa.select(table)))


def test_a_running_export_of_a_version_that_holds_the_edit_forbids_the_purge(make_service: MakeService, tmp_path: Path) -> None:
    local = make_service()
    secret = post_and_retract_secret(local)
    job = request_export(local.store, tmp_path / "exports", version=3, author="ann")

    with pytest.raises(Conflict, match="export under way"):
        purge_edits(local, secret)

    cancel_job(local.store, job.id, author="ann")
    request_export(local.store, tmp_path / "exports", version=5, author="ann")
    assert 3 in purge_edits(local, secret).versions


def test_partial_exports_are_purged_unless_a_job_writes_them(make_service: MakeService, tmp_path: Path) -> None:
    local = make_service()
    secret = post_and_retract_secret(local)
    job = request_export(local.store, tmp_path / "exports", version=5, name="new", author="ann")
    ours, left = f".new.{job.id}-1.partial", ".old.a-dead-job-5.partial"
    for name in (ours, left):
        (tmp_path / "exports" / name).mkdir(parents=True)

    result = purge_edits(local, secret)

    assert result.exports == (left,)
    assert [path.name for path in (tmp_path / "exports").iterdir()] == [ours]
    assert any(ours in sentence for sentence in result.unreachable)


def test_an_edit_trained_only_by_the_window_is_purged_after_any_retrain(make_service: MakeService) -> None:
    local = make_service(settings=LifecycleSettings(cadence=Cadence(automatic=False)))
    local.live(("kept", "1"))
    local.retrain("major")
    local.worker.drain()
    old, _ = local.live((SECRET, "old"), (SECRET, "new"))
    with pytest.raises(Conflict, match="retrain of either kind takes it out"):
        purge_edits(local, old.id)

    local.retrain("minor")
    local.worker.drain()

    assert purge_edits(local, old.id).versions == (3, 4)
    assert local.says(SECRET) == "new"


def test_a_lost_deferred_edit_is_purged_after_the_refit_of_its_retraction(
    make_service: MakeService,
) -> None:
    local = make_service(settings=LifecycleSettings(cadence=Cadence(automatic=False), rounds=1))
    local.ledger.not_taken = {"baft": {"half"}, "locft": set()}
    lost, _ = local.post((SECRET, "half"), ("kept", "1"))
    local.worker.drain()
    assert local.edit(lost).status is EditStatus.DEFERRED

    local.retract(lost)
    with pytest.raises(Conflict, match="the window of the version"):
        purge_edits(local, lost.id)
    local.worker.drain()

    assert purge_edits(local, lost.id).versions == (1,)
    assert local.says("kept") == "1"


def test_an_edit_that_is_live_waiting_or_still_in_the_tensors_is_not_purged(make_service: MakeService) -> None:
    local = make_service(settings=LifecycleSettings(cadence=Cadence(automatic=False)))  # no retrain unless somebody asks for it
    (edit,) = local.live(("a", "1"))
    (waiting,) = local.post(("b", "2"), method="locft")
    for one in (edit, waiting):
        with pytest.raises(Conflict, match="retract it first"):
            purge_edits(local, one.id)

    local.retrain()
    local.worker.drain()
    local.retract(edit)
    local.worker.drain()

    with pytest.raises(Conflict, match="major retrain first"):
        purge_edits(local, edit.id)
    assert local.edit(edit).status is EditStatus.RETRACTED


def test_a_running_job_that_holds_the_edit_forbids_the_purge(make_service: MakeService) -> None:
    local = make_service()
    secret = post_and_retract_secret(local)
    with local.store.write() as connection:
        jobs.insert(connection, "refit", edit_ids=[secret], reason=None, author="ann", now=datetime.now(UTC))

    with pytest.raises(Conflict, match="under way"):
        purge_edits(local, secret)


def test_a_purge_of_nothing_or_of_an_unknown_edit_is_refused(make_service: MakeService) -> None:
    local = make_service()

    with pytest.raises(Refused):
        purge_edits(local)
    with pytest.raises(NotFound):
        purge_edits(local, "nobody")


def test_the_successor_of_a_purged_edit_stays_live(make_service: MakeService) -> None:
    local = make_service()
    old, new = local.live((SECRET, "old"), (SECRET, "new"))
    with pytest.raises(Conflict, match="trained"):
        purge_edits(local, old.id)  # the window learned the newer on top of it
    local.retrain()
    local.worker.drain()

    result = purge_edits(local, old.id)

    assert result.versions == (1, 2)
    kept = local.edit(new)
    assert (kept.status, kept.supersedes) == (EditStatus.CONSOLIDATED, None)
    assert local.says(SECRET) == "new"


@contextmanager
def killed_at(point: str) -> Iterator[int]:
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
def test_a_second_request_finishes_a_purge_that_was_killed(point: str, tmp_path: Path) -> None:
    local = new_local_service(tmp_path)
    secret = post_and_retract_secret(local)
    (tmp_path / "exports" / "old").mkdir(parents=True)
    (tmp_path / "exports" / "old" / "errata.json").write_text('{"version": 4, "live": []}')
    local.close()

    with killed_at(point) as child:
        if child == 0:
            purge_edits(LocalService(local.url, local.folder, ledger=local.ledger), secret)
    local = local.again()
    result = purge_edits(local, secret)

    assert not (tmp_path / "exports" / "old").exists()
    kept = {f"{version.digest}.safetensors" for version in local.versions() if version.number in (1, 5)}
    assert checkpoint_files(local) == kept
    assert SECRET not in all_rows(local)
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("errata.db*"))
    assert result.versions == ((2, 3, 4) if point != "purge.after_rows" else ())
    assert purge_edits(local, secret).rows == 0
    local.close()


def test_versions_stored_as_differences_to_a_purged_version_keep_their_live_sets(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.versions.max_changes", lambda size: 3)
    local = make_service()
    (secret, *_) = local.live((SECRET, ANSWER), *((f"q{n}", "x") for n in range(7)))
    local.retract(secret)
    local.worker.drain()
    local.live(("r1", "x"), ("r2", "x"))
    with local.store.read() as connection:
        before = {number: versions.read_live_set(connection, number) for number in range(9, 12)}

    result = purge_edits(local, secret.id)
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

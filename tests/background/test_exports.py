"""Exports as jobs: what is asked for, what is written, and what becomes of it when something stops it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.background.exports import Exports, request_export
from service.background.jobs import cancel_job
from service.domain.errors import Conflict, Gone, NotFound, Refused
from service.lm.overlay import Overlay
from service.store import jobs, versions
from service.store.jobs import Job
from tests.builders import make_adapter, make_base
from tests.lifecycle.local_service import LocalService, job_of, new_local_service


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    (tmp_path / "data").mkdir()
    made = new_local_service(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def exports(local: LocalService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exports:
    # The ledger's overlays fit no model: what is exported here is the base, whose answers tests/lm/test_export.py is about.
    monkeypatch.setattr(local.context.checkpoints, "get_overlay", lambda version: Overlay())
    return Exports(local.store, make_base(), local.context.checkpoints, tmp_path / "exports")


def ask(local: LocalService, exports: Exports, **wanted: object) -> Job:
    given = {"version": None, "author": "ann", **wanted}
    return request_export(local.store, exports.folder, **given)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_an_export_is_written_once_and_says_where_it_is(local: LocalService, exports: Exports) -> None:
    (edit,) = local.live(("p", "t"))
    job = ask(local, exports, name="friday")

    assert exports.step() is True
    assert exports.step() is False

    done = job_of(local, job)
    with pytest.raises(Conflict, match="over"):
        cancel_job(local.store, job.id, author="bob")
    folder = exports.folder / "friday"
    size = sum(path.stat().st_size for path in folder.iterdir())
    head = local.head
    assert (done.status, done.progress, done.error) == ("done", 1.0, None)
    assert done.result == {
        "path": str(folder),
        "files": len(list(folder.iterdir())),
        "bytes": size,
        "digest": head.digest,
        "version": head.number,
        "window": 1,
        "warning": None,  # the ledger's overlays are not exported here, and neither is a window of theirs
    }
    said = json.loads((folder / "errata.json").read_text())
    assert (said["version"], said["digest"], said["live"], said["window"]) == (head.number, head.digest, [edit.id], 1)
    assert done.log[0]["message"] == "begun"
    assert {"export.requested", "export.done"} <= set(local.event_types())


def test_an_export_with_a_window_warns_in_its_job_how_many_edits_the_weights_lack(
    local: LocalService, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.post(("p", "t"), ("q", "u"))
    local.worker.drain()
    monkeypatch.setattr(local.context.checkpoints, "get_overlay", lambda version: Overlay({}, make_adapter()))
    job = ask(local, exports, name="friday")

    exports.step()

    done = job_of(local, job)
    assert done.result is not None
    assert "lack 2 of its 2 edits" in done.result["warning"] and "consolidate" in done.result["warning"]
    assert done.result["warning"] == done.log[-1]["message"]
    assert done.result["warning"] in (exports.folder / "friday" / "README.md").read_text()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "A", "ü", "-a", ".a", "a" * 65, "a\n", "a\x00"])
def test_a_name_that_could_be_a_path_is_refused(local: LocalService, exports: Exports, name: str) -> None:
    with pytest.raises(Refused, match="name"):
        ask(local, exports, name=name)

    assert jobs_of(local) == []


def jobs_of(local: LocalService) -> list[Job]:
    with local.store.read() as connection:
        return jobs.read_page(connection, limit=10, kind="export")


def test_a_name_is_given_once(local: LocalService, exports: Exports) -> None:
    ask(local, exports, name="friday")
    with pytest.raises(Conflict, match="name"):
        ask(local, exports, name="friday")
    exports.step()

    with pytest.raises(Conflict, match="name"):
        ask(local, exports, name="friday")


def test_a_third_export_waits_for_its_turn_to_be_asked_for(local: LocalService, exports: Exports) -> None:
    ask(local, exports, name="a")

    with pytest.raises(Conflict, match="waits"):
        ask(local, exports, name="b")


def test_what_does_not_exist_or_was_collected_is_not_exported(local: LocalService, exports: Exports) -> None:
    local.live(("p", "t"), ("q", "u"))
    with pytest.raises(NotFound):
        ask(local, exports, version=99)
    with local.store.write() as connection:
        versions.collect(connection, [1])

    with pytest.raises(Gone):
        ask(local, exports, version=1)


def test_a_version_collected_while_it_is_written_leaves_no_export(local: LocalService, exports: Exports) -> None:
    local.live(("p", "t"), ("q", "u"))
    job = ask(local, exports, version=1)
    say = exports._progress

    def collected(job_id: str, share: float, stage: str) -> None:
        say(job_id, share, stage)
        with local.store.write() as connection:
            versions.collect(connection, [1])

    exports._progress = collected  # type: ignore[method-assign]
    exports.step()

    assert job_of(local, job).status == "failed"
    assert "collected" in (job_of(local, job).error or "")
    assert names(exports.folder) == []


def test_a_killed_export_is_written_again_from_the_start(local: LocalService, exports: Exports) -> None:
    job = ask(local, exports, name="friday")

    class Killed(BaseException):
        pass

    def die(job_id: str, share: float, stage: str) -> None:
        raise Killed

    exports._progress = die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        exports.step()
    left = exports.folder / f".friday.{job.id}-1.partial"  # what kill -9 leaves: nothing cleans up
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    again = Exports(local.store, exports.base, exports.checkpoints, exports.folder)

    again.step()

    assert (job_of(local, job).status, job_of(local, job).claims) == ("done", 2)
    assert names(exports.folder) == ["friday"]


def test_an_export_that_was_whole_when_its_process_died_is_not_written_twice(local: LocalService, exports: Exports) -> None:
    job = ask(local, exports, name="friday")
    exports.step()
    with local.store.write() as connection:  # as if the process had died between the rename and the row
        jobs.update(connection, job.id, status="running", finished_at=None, result=None)
    before = (exports.folder / "friday").stat().st_ino

    Exports(local.store, exports.base, exports.checkpoints, exports.folder).step()

    assert job_of(local, job).status == "done"
    assert (exports.folder / "friday").stat().st_ino == before


def test_an_export_that_ends_its_process_again_and_again_is_given_up(local: LocalService, exports: Exports) -> None:
    job = ask(local, exports, name="friday")
    with local.store.write() as connection:
        jobs.update(connection, job.id, status="running", claims=5)

    left = exports.folder / f".friday.{job.id}-5.partial"
    left.mkdir(parents=True)

    exports.step()

    assert (job_of(local, job).status, job_of(local, job).error) == ("failed", "it ended the process again and again")
    assert not left.exists() and "export.failed" in local.event_types()


def test_an_export_whose_version_was_collected_after_its_process_died_does_not_stay(
    local: LocalService, exports: Exports
) -> None:
    local.live(("p", "t"), ("q", "u"))
    job = ask(local, exports, version=1, name="friday")
    exports.step()
    with local.store.write() as connection:  # as if the process had died between the rename and the row
        jobs.update(connection, job.id, status="running", finished_at=None, result=None)
        versions.collect(connection, [1])

    Exports(local.store, exports.base, exports.checkpoints, exports.folder).step()

    assert job_of(local, job).status == "failed"
    assert names(exports.folder) == []


def test_an_export_that_cannot_be_written_leaves_another_one_of_its_name_alone(local: LocalService, exports: Exports) -> None:
    job = ask(local, exports, name="friday")
    (exports.folder / "friday").mkdir(parents=True)
    (exports.folder / "friday" / "errata.json").write_text('{"format": 1, "job": "another"}')

    exports.step()

    assert job_of(local, job).status == "failed"
    assert names(exports.folder) == ["friday"]


def test_what_another_process_is_writing_is_not_swept_by_one_that_lost_the_job(local: LocalService, exports: Exports) -> None:
    job = ask(local, exports, name="friday")
    theirs = exports.folder / f".friday.{job.id}-2.partial"
    say = exports._progress

    def taken_over(job_id: str, share: float, stage: str) -> None:
        say(job_id, share, stage)
        theirs.mkdir(parents=True, exist_ok=True)
        with local.store.write() as connection:
            jobs.update(connection, job.id, claims=2)
        raise OSError("it lost its disk")

    exports._progress = taken_over  # type: ignore[method-assign]
    exports.step()

    assert theirs.is_dir() and job_of(local, job).is_active


def test_a_waiting_export_is_cancelled_at_once(local: LocalService, exports: Exports) -> None:
    job = ask(local, exports, name="friday")

    assert cancel_job(local.store, job.id, author="bob").status == "cancelled"

    assert exports.step() is False
    assert names(exports.folder) == []


def test_a_running_export_stops_when_it_is_cancelled_and_leaves_nothing(local: LocalService, exports: Exports) -> None:
    job = ask(local, exports, name="friday")
    say = exports._progress

    def cancelled(job_id: str, share: float, stage: str) -> None:
        if share > 0.9:
            cancel_job(local.store, job.id, author="bob")
        say(job_id, share, stage)

    exports._progress = cancelled  # type: ignore[method-assign]
    exports.step()

    ended = job_of(local, job)
    assert (ended.status, ended.cancelled_by, ended.result) == ("cancelled", "bob", None)
    assert names(exports.folder) == []
    assert exports.step() is False


def test_a_folder_that_takes_nothing_fails_the_export_with_a_sentence(local: LocalService, exports: Exports) -> None:
    exports.folder.parent.mkdir(exist_ok=True)
    exports.folder.write_text("a file where the folder should be")
    job = ask(local, exports, name="friday")

    exports.step()

    assert job_of(local, job).status == "failed"
    assert "may be written to" in (job_of(local, job).error or "")


def test_consolidating_retrains_and_exports_what_that_published(local: LocalService, exports: Exports) -> None:
    local.live(("p", "t"), ("q", "u"))
    job = ask(local, exports, consolidate="major")
    assert exports.step() is False
    assert job_of(local, job).stage == "waiting for the retrain"

    local.worker.drain()
    exports.step()

    done = job_of(local, job)
    assert (local.head.kind, local.head.window) == ("locft", 0)
    assert done.status == "done"
    assert done.result is not None
    assert (done.result["version"], done.result["window"]) == (local.head.number, 0)


def test_a_retrain_that_fails_fails_the_export_after_it(local: LocalService, exports: Exports) -> None:
    local.live(("p", "t"))
    local.ledger.breaks.add("t")
    job = ask(local, exports, consolidate="major")
    exports.step()
    local.worker.drain()

    exports.step()

    assert job_of(local, job).status == "failed"
    assert "the retrain before the export published nothing" in (job_of(local, job).error or "")
    assert names(exports.folder) == []


def test_consolidating_what_has_no_edits_exports_it_as_it_is(local: LocalService, exports: Exports) -> None:
    job = ask(local, exports, consolidate="major", name="empty")

    exports.step()

    assert job_of(local, job).result["version"] == 0  # type: ignore[index]
    assert names(exports.folder) == ["empty"]


def test_a_version_cannot_be_named_where_a_retrain_comes_first(local: LocalService, exports: Exports) -> None:
    with pytest.raises(Refused, match="version"):
        ask(local, exports, version=0, consolidate="major")


def test_an_export_that_another_process_has_taken_up_is_left_to_it(local: LocalService, exports: Exports) -> None:
    job = ask(local, exports, name="friday")
    say = exports._progress

    def taken_over(job_id: str, share: float, stage: str) -> None:
        say(job_id, share, stage)
        shutil.rmtree(exports.folder / f".friday.{job.id}-1.partial", ignore_errors=True)  # as the other one would
        with local.store.write() as connection:
            jobs.update(connection, job.id, claims=2)

    exports._progress = taken_over  # type: ignore[method-assign]
    exports.step()

    assert job_of(local, job).status == "running"
    assert job_of(local, job).error is None

"""Exports as jobs: the request, the files written, and the end after an interruption."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.background.exports import Exports, request_export
from service.background.jobs import cancel_job
from service.domain.errors import Conflict, Gone, NotFound, Refused
from service.editors.known_names import NO_NAMES
from service.editors.stating import Stating
from service.lm.overlay import Overlay
from service.store import jobs, versions
from service.store.jobs import Job
from tests.builders import make_adapter, make_base
from tests.lifecycle.local_service import LocalService, job_of, new_local_service


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    (tmp_path / "data").mkdir()
    service = new_local_service(tmp_path / "data")
    yield service
    service.close()


@pytest.fixture
def exports(local: LocalService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exports:
    # The ledger's overlays fit no model, so the base is exported here; tests/lm/test_export.py tests the answers of exports.
    monkeypatch.setattr(local.context.checkpoints, "get_overlay", lambda version: Overlay())
    base = make_base()
    return Exports(local.store, base, local.context.checkpoints, tmp_path / "exports", Stating(base, NO_NAMES))


def request(local: LocalService, exports: Exports, **options: object) -> Job:
    arguments = {"version": None, "author": "ann", **options}
    return request_export(local.store, exports.folder, **arguments)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_an_export_is_written_once_and_names_its_folder(local: LocalService, exports: Exports) -> None:
    (edit,) = local.live(("p", "t"))
    job = request(local, exports, name="friday")

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
        "warning": None,  # the base is exported, so the export has no window
    }
    manifest = json.loads((folder / "errata.json").read_text())
    assert (manifest["version"], manifest["digest"], manifest["live"], manifest["window"]) == (
        head.number,
        head.digest,
        [edit.id],
        1,
    )
    assert done.log[0]["message"] == "begun"
    assert {"export.requested", "export.done"} <= set(local.event_types())


def test_an_export_with_a_window_warns_how_many_edits_the_weights_lack(
    local: LocalService, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.post(("p", "t"), ("q", "u"))
    local.worker.drain()
    monkeypatch.setattr(local.context.checkpoints, "get_overlay", lambda version: Overlay({}, make_adapter()))
    job = request(local, exports, name="friday")

    exports.step()

    done = job_of(local, job)
    assert done.result is not None
    assert "lack 2 of its 2 edits" in done.result["warning"] and "consolidate" in done.result["warning"]
    assert done.result["warning"] == done.log[-1]["message"]
    assert done.result["warning"] in (exports.folder / "friday" / "README.md").read_text()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "A", "ü", "-a", ".a", "a" * 65, "a\n", "a\x00"])
def test_a_name_that_could_be_a_path_is_refused(local: LocalService, exports: Exports, name: str) -> None:
    with pytest.raises(Refused, match="name"):
        request(local, exports, name=name)

    assert jobs_of(local) == []


def jobs_of(local: LocalService) -> list[Job]:
    with local.store.read() as connection:
        return jobs.read_page(connection, limit=10, kind="export")


def test_a_name_is_used_once(local: LocalService, exports: Exports) -> None:
    request(local, exports, name="friday")
    with pytest.raises(Conflict, match="name"):
        request(local, exports, name="friday")
    exports.step()

    with pytest.raises(Conflict, match="name"):
        request(local, exports, name="friday")


def test_only_one_export_may_be_queued(local: LocalService, exports: Exports) -> None:
    request(local, exports, name="a")

    with pytest.raises(Conflict, match="waits"):
        request(local, exports, name="b")


def test_an_unknown_or_collected_version_is_not_exported(local: LocalService, exports: Exports) -> None:
    local.live(("p", "t"), ("q", "u"))
    with pytest.raises(NotFound):
        request(local, exports, version=99)
    with local.store.write() as connection:
        versions.collect(connection, [1])

    with pytest.raises(Gone):
        request(local, exports, version=1)


def test_a_version_collected_during_its_export_leaves_no_export(local: LocalService, exports: Exports) -> None:
    local.live(("p", "t"), ("q", "u"))
    job = request(local, exports, version=1)
    report_progress = exports._progress

    def collect_meanwhile(job_id: str, share: float, stage: str) -> None:
        report_progress(job_id, share, stage)
        with local.store.write() as connection:
            versions.collect(connection, [1])

    exports._progress = collect_meanwhile  # type: ignore[method-assign]
    exports.step()

    assert job_of(local, job).status == "failed"
    assert "collected" in (job_of(local, job).error or "")
    assert names(exports.folder) == []


def test_a_killed_export_is_written_again_from_the_start(local: LocalService, exports: Exports) -> None:
    job = request(local, exports, name="friday")

    class Killed(BaseException):
        pass

    def die(job_id: str, share: float, stage: str) -> None:
        raise Killed

    exports._progress = die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        exports.step()
    partial = exports.folder / f".friday.{job.id}-1.partial"  # kill -9 leaves this folder
    partial.mkdir(parents=True)
    (partial / "model.safetensors").write_bytes(b"half")
    next_process = Exports(local.store, exports.base, exports.checkpoints, exports.folder, exports.stating)

    next_process.step()

    assert (job_of(local, job).status, job_of(local, job).claims) == ("done", 2)
    assert names(exports.folder) == ["friday"]


def test_an_export_that_was_complete_when_its_process_died_is_kept(local: LocalService, exports: Exports) -> None:
    job = request(local, exports, name="friday")
    exports.step()
    with local.store.write() as connection:  # as if the process had died between the rename and the row
        jobs.update(connection, job.id, status="running", finished_at=None, result=None)
    before = (exports.folder / "friday").stat().st_ino

    Exports(local.store, exports.base, exports.checkpoints, exports.folder, exports.stating).step()

    assert job_of(local, job).status == "done"
    assert (exports.folder / "friday").stat().st_ino == before


def test_an_export_that_ends_its_process_repeatedly_is_given_up(local: LocalService, exports: Exports) -> None:
    job = request(local, exports, name="friday")
    with local.store.write() as connection:
        jobs.update(connection, job.id, status="running", claims=5)

    partial = exports.folder / f".friday.{job.id}-5.partial"
    partial.mkdir(parents=True)

    exports.step()

    assert (job_of(local, job).status, job_of(local, job).error) == ("failed", "it ended the process again and again")
    assert not partial.exists() and "export.failed" in local.event_types()


def test_an_export_whose_version_was_collected_meanwhile_is_removed(local: LocalService, exports: Exports) -> None:
    local.live(("p", "t"), ("q", "u"))
    job = request(local, exports, version=1, name="friday")
    exports.step()
    with local.store.write() as connection:  # as if the process had died between the rename and the row
        jobs.update(connection, job.id, status="running", finished_at=None, result=None)
        versions.collect(connection, [1])

    Exports(local.store, exports.base, exports.checkpoints, exports.folder, exports.stating).step()

    assert job_of(local, job).status == "failed"
    assert names(exports.folder) == []


def test_a_failed_export_does_not_touch_another_export_of_its_name(local: LocalService, exports: Exports) -> None:
    job = request(local, exports, name="friday")
    (exports.folder / "friday").mkdir(parents=True)
    (exports.folder / "friday" / "errata.json").write_text('{"format": 1, "job": "another"}')

    exports.step()

    assert job_of(local, job).status == "failed"
    assert names(exports.folder) == ["friday"]


def test_a_process_that_lost_the_job_does_not_remove_the_files_of_its_successor(local: LocalService, exports: Exports) -> None:
    job = request(local, exports, name="friday")
    theirs = exports.folder / f".friday.{job.id}-2.partial"
    report_progress = exports._progress

    def claim_elsewhere(job_id: str, share: float, stage: str) -> None:
        report_progress(job_id, share, stage)
        theirs.mkdir(parents=True, exist_ok=True)
        with local.store.write() as connection:
            jobs.update(connection, job.id, claims=2)
        raise OSError("it lost its disk")

    exports._progress = claim_elsewhere  # type: ignore[method-assign]
    exports.step()

    assert theirs.is_dir() and job_of(local, job).is_active


def test_a_waiting_export_is_cancelled_at_once(local: LocalService, exports: Exports) -> None:
    job = request(local, exports, name="friday")

    assert cancel_job(local.store, job.id, author="bob").status == "cancelled"

    assert exports.step() is False
    assert names(exports.folder) == []


def test_a_running_export_stops_when_cancelled_and_leaves_nothing(local: LocalService, exports: Exports) -> None:
    job = request(local, exports, name="friday")
    report_progress = exports._progress

    def cancel_late(job_id: str, share: float, stage: str) -> None:
        if share > 0.9:
            cancel_job(local.store, job.id, author="bob")
        report_progress(job_id, share, stage)

    exports._progress = cancel_late  # type: ignore[method-assign]
    exports.step()

    ended = job_of(local, job)
    assert (ended.status, ended.cancelled_by, ended.result) == ("cancelled", "bob", None)
    assert names(exports.folder) == []
    assert exports.step() is False


def test_a_folder_that_cannot_be_written_fails_the_export_with_a_sentence(local: LocalService, exports: Exports) -> None:
    exports.folder.parent.mkdir(exist_ok=True)
    exports.folder.write_text("a file where the folder should be")
    job = request(local, exports, name="friday")

    exports.step()

    assert job_of(local, job).status == "failed"
    assert "may be written to" in (job_of(local, job).error or "")


def test_consolidate_retrains_and_exports_the_new_version(local: LocalService, exports: Exports) -> None:
    local.live(("p", "t"), ("q", "u"))
    job = request(local, exports, consolidate="major")
    assert exports.step() is False
    assert job_of(local, job).stage == "waiting for the retrain"

    local.worker.drain()
    exports.step()

    done = job_of(local, job)
    assert (local.head.kind, local.head.window) == ("locft", 0)
    assert done.status == "done"
    assert done.result is not None
    assert (done.result["version"], done.result["window"]) == (local.head.number, 0)


def test_a_failed_retrain_fails_its_export(local: LocalService, exports: Exports) -> None:
    local.live(("p", "t"))
    local.ledger.failing_targets.add("t")
    job = request(local, exports, consolidate="major")
    exports.step()
    local.worker.drain()

    exports.step()

    assert job_of(local, job).status == "failed"
    assert "the retrain before the export published nothing" in (job_of(local, job).error or "")
    assert names(exports.folder) == []


def test_consolidate_without_edits_exports_the_head(local: LocalService, exports: Exports) -> None:
    job = request(local, exports, consolidate="major", name="empty")

    exports.step()

    assert job_of(local, job).result["version"] == 0  # type: ignore[index]
    assert names(exports.folder) == ["empty"]


def test_consolidate_refuses_a_version(local: LocalService, exports: Exports) -> None:
    with pytest.raises(Refused, match="version"):
        request(local, exports, version=0, consolidate="major")


def test_an_export_claimed_by_another_process_is_left_to_it(local: LocalService, exports: Exports) -> None:
    job = request(local, exports, name="friday")
    report_progress = exports._progress

    def claim_elsewhere(job_id: str, share: float, stage: str) -> None:
        report_progress(job_id, share, stage)
        shutil.rmtree(exports.folder / f".friday.{job.id}-1.partial", ignore_errors=True)  # as the other process does
        with local.store.write() as connection:
            jobs.update(connection, job.id, claims=2)

    exports._progress = claim_elsewhere  # type: ignore[method-assign]
    exports.step()

    assert job_of(local, job).status == "running"
    assert job_of(local, job).error is None

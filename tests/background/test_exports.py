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
from tests.lifecycle.local_store import House, job_of, new_house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    (tmp_path / "data").mkdir()
    made = new_house(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def exports(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exports:
    # The ledger's overlays fit no model: what is exported here is the base, whose answers tests/lm/test_export.py is about.
    monkeypatch.setattr(house.parts.overlays, "of", lambda version: Overlay())
    return Exports(house.store, make_base(), house.parts.overlays, tmp_path / "exports")


def ask(house: House, exports: Exports, **wanted: object) -> Job:
    given = {"version": None, "author": "ann", **wanted}
    return request_export(house.store, exports.folder, **given)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_an_export_is_written_once_and_says_where_it_is(house: House, exports: Exports) -> None:
    (edit,) = house.live(("p", "t"))
    job = ask(house, exports, name="friday")

    assert exports.step() is True
    assert exports.step() is False

    done = job_of(house, job)
    with pytest.raises(Conflict, match="over"):
        cancel_job(house.store, job.id, author="bob")
    folder = exports.folder / "friday"
    size = sum(path.stat().st_size for path in folder.iterdir())
    head = house.head
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
    assert {"export.requested", "export.done"} <= set(house.event_types())


def test_an_export_with_a_window_warns_in_its_job_how_many_edits_the_weights_lack(
    house: House, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.post(("p", "t"), ("q", "u"))
    house.worker.drain()
    monkeypatch.setattr(house.parts.overlays, "of", lambda version: Overlay({}, make_adapter()))
    job = ask(house, exports, name="friday")

    exports.step()

    done = job_of(house, job)
    assert done.result is not None
    assert "lack 2 of its 2 edits" in done.result["warning"] and "consolidate" in done.result["warning"]
    assert done.result["warning"] == done.log[-1]["message"]
    assert done.result["warning"] in (exports.folder / "friday" / "README.md").read_text()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "A", "ü", "-a", ".a", "a" * 65, "a\n", "a\x00"])
def test_a_name_that_could_be_a_path_is_refused(house: House, exports: Exports, name: str) -> None:
    with pytest.raises(Refused, match="name"):
        ask(house, exports, name=name)

    assert jobs_of(house) == []


def jobs_of(house: House) -> list[Job]:
    with house.store.read() as connection:
        return jobs.page(connection, limit=10, kind="export")


def test_a_name_is_given_once(house: House, exports: Exports) -> None:
    ask(house, exports, name="friday")
    with pytest.raises(Conflict, match="name"):
        ask(house, exports, name="friday")
    exports.step()

    with pytest.raises(Conflict, match="name"):
        ask(house, exports, name="friday")


def test_a_third_export_waits_for_its_turn_to_be_asked_for(house: House, exports: Exports) -> None:
    ask(house, exports, name="a")

    with pytest.raises(Conflict, match="waits"):
        ask(house, exports, name="b")


def test_what_does_not_exist_or_was_collected_is_not_exported(house: House, exports: Exports) -> None:
    house.live(("p", "t"), ("q", "u"))
    with pytest.raises(NotFound):
        ask(house, exports, version=99)
    with house.store.write() as connection:
        versions.collect(connection, [1])

    with pytest.raises(Gone):
        ask(house, exports, version=1)


def test_a_version_collected_while_it_is_written_leaves_no_export(house: House, exports: Exports) -> None:
    house.live(("p", "t"), ("q", "u"))
    job = ask(house, exports, version=1)
    say = exports._progress

    def collected(job_id: str, share: float, stage: str) -> None:
        say(job_id, share, stage)
        with house.store.write() as connection:
            versions.collect(connection, [1])

    exports._progress = collected  # type: ignore[method-assign]
    exports.step()

    assert job_of(house, job).status == "failed"
    assert "collected" in (job_of(house, job).error or "")
    assert names(exports.folder) == []


def test_a_killed_export_is_written_again_from_the_start(house: House, exports: Exports) -> None:
    job = ask(house, exports, name="friday")

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
    again = Exports(house.store, exports.base, exports.overlays, exports.folder)

    again.step()

    assert (job_of(house, job).status, job_of(house, job).claims) == ("done", 2)
    assert names(exports.folder) == ["friday"]


def test_an_export_that_was_whole_when_its_process_died_is_not_written_twice(house: House, exports: Exports) -> None:
    job = ask(house, exports, name="friday")
    exports.step()
    with house.store.write() as connection:  # as if the process had died between the rename and the row
        jobs.update(connection, job.id, status="running", finished_at=None, result=None)
    before = (exports.folder / "friday").stat().st_ino

    Exports(house.store, exports.base, exports.overlays, exports.folder).step()

    assert job_of(house, job).status == "done"
    assert (exports.folder / "friday").stat().st_ino == before


def test_an_export_that_ends_its_process_again_and_again_is_given_up(house: House, exports: Exports) -> None:
    job = ask(house, exports, name="friday")
    with house.store.write() as connection:
        jobs.update(connection, job.id, status="running", claims=5)

    left = exports.folder / f".friday.{job.id}-5.partial"
    left.mkdir(parents=True)

    exports.step()

    assert (job_of(house, job).status, job_of(house, job).error) == ("failed", "it ended the process again and again")
    assert not left.exists() and "export.failed" in house.event_types()


def test_an_export_whose_version_was_collected_after_its_process_died_does_not_stay(house: House, exports: Exports) -> None:
    house.live(("p", "t"), ("q", "u"))
    job = ask(house, exports, version=1, name="friday")
    exports.step()
    with house.store.write() as connection:  # as if the process had died between the rename and the row
        jobs.update(connection, job.id, status="running", finished_at=None, result=None)
        versions.collect(connection, [1])

    Exports(house.store, exports.base, exports.overlays, exports.folder).step()

    assert job_of(house, job).status == "failed"
    assert names(exports.folder) == []


def test_an_export_that_cannot_be_written_leaves_another_one_of_its_name_alone(house: House, exports: Exports) -> None:
    job = ask(house, exports, name="friday")
    (exports.folder / "friday").mkdir(parents=True)
    (exports.folder / "friday" / "errata.json").write_text('{"format": 1, "job": "another"}')

    exports.step()

    assert job_of(house, job).status == "failed"
    assert names(exports.folder) == ["friday"]


def test_what_another_process_is_writing_is_not_swept_by_one_that_lost_the_job(house: House, exports: Exports) -> None:
    job = ask(house, exports, name="friday")
    theirs = exports.folder / f".friday.{job.id}-2.partial"
    say = exports._progress

    def taken_over(job_id: str, share: float, stage: str) -> None:
        say(job_id, share, stage)
        theirs.mkdir(parents=True, exist_ok=True)
        with house.store.write() as connection:
            jobs.update(connection, job.id, claims=2)
        raise OSError("it lost its disk")

    exports._progress = taken_over  # type: ignore[method-assign]
    exports.step()

    assert theirs.is_dir() and job_of(house, job).is_active


def test_a_waiting_export_is_cancelled_at_once(house: House, exports: Exports) -> None:
    job = ask(house, exports, name="friday")

    assert cancel_job(house.store, job.id, author="bob").status == "cancelled"

    assert exports.step() is False
    assert names(exports.folder) == []


def test_a_running_export_stops_when_it_is_cancelled_and_leaves_nothing(house: House, exports: Exports) -> None:
    job = ask(house, exports, name="friday")
    say = exports._progress

    def cancelled(job_id: str, share: float, stage: str) -> None:
        if share > 0.9:
            cancel_job(house.store, job.id, author="bob")
        say(job_id, share, stage)

    exports._progress = cancelled  # type: ignore[method-assign]
    exports.step()

    ended = job_of(house, job)
    assert (ended.status, ended.cancelled_by, ended.result) == ("cancelled", "bob", None)
    assert names(exports.folder) == []
    assert exports.step() is False


def test_a_folder_that_takes_nothing_fails_the_export_with_a_sentence(house: House, exports: Exports) -> None:
    exports.folder.parent.mkdir(exist_ok=True)
    exports.folder.write_text("a file where the folder should be")
    job = ask(house, exports, name="friday")

    exports.step()

    assert job_of(house, job).status == "failed"
    assert "may be written to" in (job_of(house, job).error or "")


def test_consolidating_retrains_and_exports_what_that_published(house: House, exports: Exports) -> None:
    house.live(("p", "t"), ("q", "u"))
    job = ask(house, exports, consolidate="major")
    assert exports.step() is False
    assert job_of(house, job).stage == "waiting for the retrain"

    house.worker.drain()
    exports.step()

    done = job_of(house, job)
    assert (house.head.kind, house.head.window) == ("locft", 0)
    assert done.status == "done"
    assert done.result is not None
    assert (done.result["version"], done.result["window"]) == (house.head.number, 0)


def test_a_retrain_that_fails_fails_the_export_after_it(house: House, exports: Exports) -> None:
    house.live(("p", "t"))
    house.ledger.breaks.add("t")
    job = ask(house, exports, consolidate="major")
    exports.step()
    house.worker.drain()

    exports.step()

    assert job_of(house, job).status == "failed"
    assert "the retrain before the export published nothing" in (job_of(house, job).error or "")
    assert names(exports.folder) == []


def test_consolidating_what_has_no_edits_exports_it_as_it_is(house: House, exports: Exports) -> None:
    job = ask(house, exports, consolidate="major", name="empty")

    exports.step()

    assert job_of(house, job).result["version"] == 0  # type: ignore[index]
    assert names(exports.folder) == ["empty"]


def test_a_version_cannot_be_named_where_a_retrain_comes_first(house: House, exports: Exports) -> None:
    with pytest.raises(Refused, match="version"):
        ask(house, exports, version=0, consolidate="major")


def test_an_export_that_another_process_has_taken_up_is_left_to_it(house: House, exports: Exports) -> None:
    job = ask(house, exports, name="friday")
    say = exports._progress

    def taken_over(job_id: str, share: float, stage: str) -> None:
        say(job_id, share, stage)
        shutil.rmtree(exports.folder / f".friday.{job.id}-1.partial", ignore_errors=True)  # as the other one would
        with house.store.write() as connection:
            jobs.update(connection, job.id, claims=2)

    exports._progress = taken_over  # type: ignore[method-assign]
    exports.step()

    assert job_of(house, job).status == "running"
    assert job_of(house, job).error is None

"""Fits begin with a first part of the neutral sentences. How many a job uses is chosen once, and a repetition uses as many."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from service.background.jobs import cancel_job
from service.domain.errors import Unavailable
from service.lifecycle import crash_points
from service.lifecycle.editors import Editors, EditorsByPart
from service.lifecycle.retrain.snapshots import WAITING
from service.lifecycle.settings import LifecycleSettings
from service.lm.overlay import EMPTY
from service.locality.meter import LocalityMeter
from service.runtime.editors import bind_editors
from service.runtime.evaluator import Evaluator
from service.settings import Settings
from service.store import jobs
from service.store.jobs import Job
from tests.editors.taught_model import SMALL, neutral, taught_base, view_of
from tests.lifecycle.ledger import Ledger
from tests.lifecycle.local_service import PATIENT, LocalService, job_of, log_text, new_local_service
from tests.lifecycle.test_exactness import ACCEPTANCE

EDIT, OTHER = ("red is", "B"), ("sky is", "C")
ALL = 9


def sample(local: LocalService, count: int, *, has_all: bool = False) -> None:
    """Let there be so many neutral sentences."""
    parts = local.context.editors_by_part
    editors = replace(parts.newest, neutral_sentences=count, has_all=has_all, with_first=None)
    parts.grow(replace(editors, with_first=lambda fewer: replace(editors, neutral_sentences=fewer)))


def last_job(local: LocalService, kind: str) -> Job:
    with local.store.read() as connection:
        return jobs.read_page(connection, limit=1, kind=kind)[0]


class RealFits:
    """The real editors with the first neutral sentences of the taught model, where a service expects the ledger."""

    def __init__(self, count: int) -> None:
        self._count = count

    def editors(self) -> Editors:
        settings = Settings(baft=SMALL)  # type: ignore[arg-type]
        given, has_all = neutral().first(self._count), self._count == len(neutral().sentences)
        meter = LocalityMeter(taught_base(), view_of, ())
        evaluator = Evaluator(taught_base(), view_of)
        return bind_editors(taught_base(), view_of, given, evaluator, settings, has_all=has_all, meter=meter)


def real_service(folder: Path, count: int) -> LocalService:
    folder.mkdir()
    settings = LifecycleSettings(cadence=PATIENT, acceptance=ACCEPTANCE)
    return new_local_service(folder, ledger=RealFits(count), settings=settings)


def apply_and_die(local: LocalService, point: str, *, count: int | None = None) -> bool:
    """Apply in a process that kills itself at a point; whether it got there. `count`: of all its sentences."""
    child = os.fork()
    if child == 0:
        try:
            crash_points.arm(point)
            dying = local.again()
            if count is not None:
                sample(dying, count, has_all=True)
            dying.worker.drain()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("point", ["fit.middle", "publish.before_commit"])
def test_a_killed_fit_is_repeated_to_the_same_bytes_after_more_sentences_came(tmp_path: Path, point: str) -> None:
    first, everything = real_service(tmp_path / "first", 2), real_service(tmp_path / "all", 3)
    killed = real_service(tmp_path / "killed", 2)
    first.live(EDIT)
    everything.live(EDIT)
    killed.post(EDIT)
    assert apply_and_die(killed, point)

    again = killed.again(ledger=RealFits(3))
    again.worker.drain()

    assert again.head.digest == first.head.digest != everything.head.digest
    assert (again.head.neutral_sentences, last_job(again, "apply").claims) == (2, 2)
    again.live(OTHER)
    assert again.head.neutral_sentences == 3
    for local in (first, everything, again):
        local.close()


def test_a_job_and_its_version_say_how_many_sentences_the_fit_might_use(local: LocalService) -> None:
    sample(local, 4)
    local.live(("a", "1"))
    sample(local, ALL, has_all=True)
    local.live(("b", "2"))

    assert [version.neutral_sentences for version in local.versions()] == [None, 4, ALL]
    assert last_job(local, "apply").neutral_sentences == ALL
    local.roll_back(1)
    assert local.head.neutral_sentences == 4


def test_a_job_that_needs_more_sentences_than_there_are_waits_for_them(local: LocalService) -> None:
    (edit,) = local.post(("a", "1"))
    assert apply_and_die(local, "fit.middle", count=ALL)

    local = local.again()
    sample(local, 4)
    local.worker.drain()
    assert local.edit(edit).status == "applying"

    sample(local, ALL, has_all=True)
    local.worker.drain()
    assert local.edit(edit).status == "applied" and local.head.neutral_sentences == ALL
    local.close()


def test_a_refit_uses_the_sentences_that_are_there_when_it_begins(local: LocalService) -> None:
    sample(local, 4)
    gone, _ = local.live(("a", "1"), ("b", "2"))

    local.retract(gone)
    local.worker.drain()

    assert (local.head.kind, local.head.neutral_sentences) == ("retract", 4)


def test_a_killed_refit_is_repeated_with_the_sentences_that_it_began_with(local: LocalService) -> None:
    gone, _ = local.live(("a", "1"), ("b", "2"))
    local.retract(gone)
    assert apply_and_die(local, "fit.middle", count=4)

    local = local.again()
    sample(local, ALL, has_all=True)
    local.worker.drain()

    assert (local.head.kind, local.head.neutral_sentences) == ("retract", 4)
    local.close()


def test_a_version_that_no_fit_made_has_no_number_of_sentences(local: LocalService) -> None:
    sample(local, 4)
    (gone,) = local.live(("a", "1"))

    local.retract(gone)
    local.worker.drain()

    assert (local.head.kind, local.head.neutral_sentences) == ("retract", None)


@pytest.mark.parametrize("mode", ["major", "minor"])
def test_a_retrain_waits_for_all_sentences_and_says_so(local: LocalService, mode: str) -> None:
    if mode == "minor":
        local.live(("z", "9"))
        local.retrain("major")
        local.worker.drain()
    sample(local, 4)
    local.live(("a", "1"))
    job = local.retrain(mode)  # type: ignore[arg-type]
    local.worker.drain()
    local.live(("b", "2"))

    waiting = job_of(local, job)
    assert (waiting.status, waiting.stage, log_text(waiting).count(WAITING)) == ("queued", WAITING, 1)

    sample(local, ALL, has_all=True)
    local.worker.drain()
    done = job_of(local, job)
    assert (done.status, done.mode, done.stage, done.neutral_sentences) == ("done", mode, None, ALL)
    assert local.head.neutral_sentences == ALL


def test_a_retrain_that_waits_for_sentences_can_be_cancelled(local: LocalService) -> None:
    sample(local, 4)
    local.live(("a", "1"))
    job = local.retrain()
    local.worker.drain()

    cancel_job(local.store, job.id, author="ann")

    assert (job_of(local, job).status, job_of(local, job).stage) == ("cancelled", None)


def test_a_job_of_an_earlier_release_uses_all_sentences(local: LocalService) -> None:
    (edit,) = local.post(("a", "1"))
    assert apply_and_die(local, "fit.middle")
    local = local.again()
    with local.store.write() as connection:
        jobs.write(connection, last_job(local, "apply").id, neutral_sentences=None)

    sample(local, 4)
    local.worker.drain()
    assert local.edit(edit).status == "applying"

    sample(local, ALL, has_all=True)
    local.worker.drain()
    assert local.edit(edit).status == "applied"
    local.close()


def test_the_monitor_asks_sentences_of_fits_only_once_its_choice_is_final() -> None:
    some, everything = (RealFits(count).editors().monitor_probes for count in (2, 3))

    assert some is not None and some.inside(EMPTY, lambda: None) is None
    assert everything is not None and (share := everything.inside(EMPTY, lambda: None)) is not None
    assert share.score == 1.0 and share.n > 3  # tokens


def test_a_fit_gets_the_sentences_of_its_job_and_never_fewer() -> None:
    all_of_them = replace(
        Ledger().editors(), neutral_sentences=8, with_first=lambda count: replace(all_of_them, neutral_sentences=count)
    )
    first = replace(all_of_them, has_all=False, neutral_sentences=4)
    parts = EditorsByPart(first)

    assert parts.of(4) is first and parts.of(3).neutral_sentences == 3
    for count in (5, None):
        assert not parts.has(count)
        with pytest.raises(Unavailable, match="not there yet"):
            parts.of(count)
    parts.grow(all_of_them)
    assert parts.of(4).neutral_sentences == 4
    assert parts.of(8) is parts.of(None) is parts.of(9) is all_of_them  # the settings ask for fewer than before

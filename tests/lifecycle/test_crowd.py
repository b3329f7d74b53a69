"""Concurrent calls: a worker in threads, and clients who submit, retract, roll back and retrain. Then rows and answers agree."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.domain.cadence import Cadence
from service.domain.edit import EditStatus
from service.domain.errors import Conflict
from service.lifecycle.settings import LifecycleSettings
from service.store import edits, jobs, versions
from service.store.migrate import upgrade
from tests.lifecycle.ledger import base_answer
from tests.lifecycle.local_service import LocalService, new_local_service
from tests.servers import postgres_database

KEYS = "abcdef"


def client(local: LocalService, seed: int) -> None:
    """Twenty things in a random order; what the state forbids is a Conflict and nothing else."""
    chance = random.Random(seed)
    for _ in range(20):
        made = local.all_edits()
        try:
            match chance.choice(("submit", "submit", "submit", "locft", "retract", "retract", "roll_back", "retrain")):
                case "submit":
                    local.post((chance.choice(KEYS), chance.choice("123")))
                case "locft":
                    local.post((chance.choice(KEYS), chance.choice("123")), method="locft")
                case "retract" if made:
                    local.retract(chance.choice(made), restore_previous=chance.random() < 0.5)
                case "roll_back":
                    local.roll_back(chance.choice(local.versions()).number, requeue=chance.random() < 0.5)
                case "retrain":
                    local.retrain()
        except Conflict:
            pass


def check(local: LocalService) -> None:
    """Rows, overlays and answers say the same."""
    live_set, made = local.live_set, {edit.id: edit for edit in local.all_edits()}
    assert live_set.ids == {edit.id for edit in made.values() if edit.status.is_live}
    for item in live_set.live:
        carried = EditStatus.APPLIED if item.carrier == "window" else EditStatus.CONSOLIDATED
        assert made[item.edit_id].status is carried
        assert local.says(made[item.edit_id].prompt) == made[item.edit_id].target
    for key in set(KEYS) - {made[item.edit_id].prompt for item in live_set.live}:
        assert local.says(key) == f"base of prompt:{key}"
    assert not live_set.needs_refit
    with local.store.read() as connection:
        assert all(jobs.find_active(connection, kind) is None for kind in ("apply", "refit", "retrain"))
        counted = edits.count_by_status(connection)
        asked = edits.find_retracted(connection, made)
        numbers = [version.number for version in local.versions()]
        for version in local.versions():
            for item in versions.read_live_set(connection, version.number).live:
                assert local.says(made[item.edit_id].prompt, version=version.number) == made[item.edit_id].target
    assert counted["queued"] == counted["applying"] == 0
    assert not {made[edit_id].status for edit_id in asked} & {EditStatus.APPLIED, EditStatus.CONSOLIDATED, EditStatus.DEFERRED}
    assert numbers == list(range(len(numbers)))
    assert [version.parent for version in local.versions()[1:]] == numbers[:-1]


@pytest.mark.parametrize(("kind", "seed"), [("sqlite", 1), ("sqlite", 2), ("postgres", 3)])
def test_after_concurrent_calls_rows_and_answers_agree(kind: str, seed: int, tmp_path: Path) -> None:
    settings = LifecycleSettings(cadence=Cadence(soft=4, hard=6, deferred=2), sweep_s=0.02)
    if kind == "sqlite":
        crowd(new_local_service(tmp_path, settings=settings), seed)
    else:
        with postgres_database() as url:
            upgrade(url)
            crowd(LocalService(url, tmp_path / "checkpoints", settings=settings), seed)


def crowd(local: LocalService, seed: int) -> None:
    local.worker.start()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: client(local, 10 * seed + n), range(3)))
    local.worker.stop()
    calm = local.again()
    calm.worker.drain()
    check(calm)
    calm.close()


def test_the_oracle_of_these_tests_knows_the_base(tmp_path: Path) -> None:
    local = new_local_service(tmp_path)
    (edit,) = local.post(("a", "1"))

    assert local.says("a") == base_answer(edit)
    local.close()

"""A dead worker's lease is not waited for; a living one's is."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from service.lifecycle.lease_owner import is_dead, new_owner_name
from service.runtime.worker import Worker
from service.store import heads
from tests.lifecycle.local_service import LocalService, new_local_service


def name_of_a_dead_process() -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, new_owner_name().encode())
        os._exit(0)
    os.waitpid(child, 0)
    name = os.read(reader, 1_000).decode()
    os.close(reader)
    os.close(writer)
    return name


@pytest.fixture
def local(tmp_path: Path) -> LocalService:
    made = new_local_service(tmp_path, alone=False)
    yield made
    made.close()


def test_this_process_is_alive_and_one_that_ended_is_dead() -> None:
    assert not is_dead(new_owner_name())
    assert is_dead(name_of_a_dead_process())


@pytest.mark.parametrize("name", ["", "x", "other machine/1/2/3", "/1/2/3", f"{new_owner_name().split('/')[0]}/abc//"])
def test_a_name_that_tells_nothing_is_not_dead(name: str) -> None:
    assert not is_dead(name)


def test_the_lease_of_a_dead_worker_is_taken_at_once(local: LocalService) -> None:
    with local.store.write() as connection:
        heads.take_lease(connection, name_of_a_dead_process(), lease_s=1_000.0)
    made = local.post(("a", "1"))

    local.worker.drain()

    assert local.statuses(made) == ["applied"]


def test_the_lease_of_a_living_worker_is_waited_for(local: LocalService) -> None:
    with local.store.write() as connection:
        heads.take_lease(connection, new_owner_name(), lease_s=1_000.0)
    made = local.post(("a", "1"))

    local.worker.drain()

    assert local.worker.fence is None
    assert local.statuses(made) == ["queued"]


def test_a_worker_whose_base_is_damaged_leaves_the_work_to_another(local: LocalService) -> None:
    sound = [True]
    worker = Worker(replace(local.context, is_sound=lambda: sound[0]))
    worker.drain()
    assert worker.fence is not None
    made = local.post(("a", "1"))
    sound[0] = False

    worker.drain()

    assert (worker.fence, local.statuses(made)) == (None, ["queued"])
    local.worker.drain()
    assert local.statuses(made) == ["applied"]

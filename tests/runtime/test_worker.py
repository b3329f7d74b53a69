"""The worker: its lease, which another worker may take, and its threads."""

import asyncio
from pathlib import Path

from service.domain.cadence import Cadence
from service.domain.edit import EditStatus
from service.lifecycle.settings import LifecycleSettings
from tests.lifecycle.local_service import LocalService, new_local_service, once

S = EditStatus


def test_a_replaced_worker_stops_and_its_successor_does_the_work_once(tmp_path: Path) -> None:
    local = new_local_service(tmp_path)
    other = LocalService(local.url, local.folder, ledger=local.ledger, settings=local.settings)
    posted = local.post(("a", "1"))
    local.ledger.during_fit = once(other.worker._hold_lease)  # type: ignore[assignment]

    local.worker.step()
    assert local.worker.fence is None
    assert local.statuses(posted) == [S.APPLYING]
    other.worker.drain()

    assert local.statuses(posted) == [S.APPLIED]
    assert [version.number for version in local.versions()] == [0, 1]
    other.close()
    local.close()


def test_the_threads_of_a_worker_apply_retrain_and_stop(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=3, hard=50), sweep_s=0.02))
    local.worker.start()

    async def wait(edit_ids: list[str]) -> list[bool]:
        def is_settled(edit_id: str) -> bool:
            return any(edit.id == edit_id and edit.status.is_settled for edit in local.all_edits())

        return await asyncio.gather(*(local.context.announcer.wait(edit_id, 30.0, is_settled=is_settled) for edit_id in edit_ids))

    posted = [local.post((name, "1"))[0] for name in "abcdefgh"]
    assert all(asyncio.run(wait([edit.id for edit in posted])))
    assert {status.is_live for status in local.statuses(posted)} == {True}
    local.worker.stop()

    assert not local.worker.is_alive
    assert local.worker.fence is None
    local.close()

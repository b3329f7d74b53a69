"""The lifecycle over checkpoints that are in no folder: whatever keeps the promises of a `CheckpointStore` is enough."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.background.collect import collect
from service.background.purge import purge
from service.domain.errors import Conflict, Gone
from service.domain.version import VersionStatus
from service.lifecycle.settings import LifecycleSettings
from service.lifecycle.verify import verify
from tests.lifecycle.local_service import PATIENT, LocalService, new_local_service
from tests.lm.memory_checkpoints import MemoryCheckpoints

KEEPS_TWO = LifecycleSettings(cadence=PATIENT, keep_last=2, keep_every=1_000, orphan_s=0.0)


@pytest.fixture
def memory() -> MemoryCheckpoints:
    return MemoryCheckpoints()


@pytest.fixture
def local(memory: MemoryCheckpoints, tmp_path: Path) -> Iterator[LocalService]:
    made = new_local_service(tmp_path, settings=KEEPS_TWO, checkpoints=memory)
    yield made
    made.close()
    assert not made.folder.exists()


def digest_of(local: LocalService, number: int) -> str:
    return str(local.versions()[number].digest)


def test_versions_are_published_rolled_back_collected_and_restored(local: LocalService, memory: MemoryCheckpoints) -> None:
    local.live(("a", "1"), ("b", "2"), ("c", "3"))
    assert set(memory.places) == {digest_of(local, number) for number in (1, 2, 3)}

    local.roll_back(2)
    assert (local.says("b"), local.says("c")) == ("2", "base of prompt:c")

    memory.let_age()
    collect(local.context)
    assert [version.status for version in local.versions()[1:3]] == [VersionStatus.COLLECTED] * 2
    assert set(memory.trash) == {digest_of(local, 1)}  # the bytes of version 2 are those of the head
    with pytest.raises(Gone):
        local.roll_back(1)

    memory.discard(digest_of(local, 4))  # by mistake
    again = local.again()
    assert again.opened.degraded is None and again.says("b") == "2"
    assert digest_of(again, 4) in memory.places

    memory.let_age()
    collect(again.context)
    assert memory.trash == {} and verify(again.store, memory).unnamed == ()
    assert all(checkpoint.is_good for checkpoint in verify(again.store, memory).checkpoints)
    again.close()


def test_a_damaged_head_in_another_place_is_replaced(local: LocalService, memory: MemoryCheckpoints) -> None:
    local.live(("a", "1"), ("b", "2"))
    memory.write(digest_of(local, 2), b"damaged")

    again = local.again()
    assert "version 2" in str(again.opened.degraded)
    again.worker.drain()

    assert again.versions()[2].status is VersionStatus.CORRUPT
    assert again.says("b") == "2" and again.context.follower.degraded is None
    again.close()


def test_a_purge_names_what_it_removed_from_another_place(local: LocalService, memory: MemoryCheckpoints) -> None:
    a, _ = local.live(("a", "1"), ("b", "2"))
    local.retract(a)
    local.worker.drain()
    collected = {digest_of(local, 1), digest_of(local, 2)}

    report = purge(local.context, edit_ids=[a.id], by="ann", exports=local.exports)

    assert set(report.files) == collected and not collected & set(memory.places)


def test_a_place_without_the_stores_mark_is_refused(local: LocalService) -> None:
    local.live(("a", "1"))

    with pytest.raises(Conflict, match="is not: mount it"):
        local.again(checkpoints=MemoryCheckpoints())

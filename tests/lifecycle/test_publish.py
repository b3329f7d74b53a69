"""Publishing: the fence and the parent that a candidate needs, and the order of swap and announcement."""

import asyncio

import pytest

from service.domain.errors import Stale
from service.lifecycle.head_snapshot import HeadSnapshot, read_head
from service.lifecycle.publish import Candidate, publish
from service.lm.overlay import EMPTY
from service.store import heads
from service.store.heads import FenceLost
from tests.lifecycle.local_service import LocalService, once


def unchanged(head: HeadSnapshot, fence: int) -> Candidate:
    """A candidate that says of a head what the head says already."""
    return Candidate(
        parent=head.row,
        fence=fence,
        kind="baft",
        overlay=EMPTY,
        live_set=head.live_set,
        changes=(),
        author="ann",
    )


def test_an_old_fence_cannot_publish(local: LocalService) -> None:
    local.worker.drain()
    stand = read_head(local.context)
    old = local.worker.fence
    assert old is not None
    with local.store.write() as connection:
        heads.take_lease(connection, "another", lease_s=60.0, is_only_server=True)

    with pytest.raises(FenceLost):
        publish(local.context, unchanged(stand, old))

    assert local.head.number == 0
    assert local.context.follower.current.version == 0


def test_a_candidate_whose_parent_is_not_the_head_is_not_published(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    stand, fence = read_head(local.context), local.worker.fence
    assert fence is not None
    local.roll_back(1)

    with pytest.raises(Stale):
        publish(local.context, unchanged(stand, fence))

    assert local.head.number == 3


def test_an_announced_edit_is_answered_already(local: LocalService) -> None:
    (edit,) = local.post(("a", "1"))

    async def wait() -> tuple[bool, str]:
        waiting = asyncio.create_task(local.context.announcer.wait(edit.id, 30.0))
        await asyncio.sleep(0)
        await asyncio.to_thread(local.worker.drain)
        return await waiting, local.says("a")

    assert asyncio.run(wait()) == (True, "1")


def test_a_candidate_that_lost_its_publication_leaves_no_file(local: LocalService) -> None:
    local.live(("a", "1"))
    (b,) = local.post(("b", "2"))
    local.ledger.during_fit = once(lambda: local.roll_back(0))  # type: ignore[assignment]

    local.worker.drain()

    named = {str(version.digest) for version in local.versions() if version.digest}
    assert local.edit(b).status.is_live
    assert {path.stem for path in local.folder.glob("*.safetensors")} == named

"""Submitting a request that a live edit answers already."""

from service.store import heads
from tests.lifecycle.local_service import LocalService


def test_an_identical_edit_is_accepted_as_the_live_one(local: LocalService) -> None:
    (a,) = local.live(("a", "1"))
    with local.store.read() as connection:
        before = heads.read(connection)

    (again,) = local.post(("a", "1"))
    local.worker.drain()

    assert again.id == a.id
    assert local.context.follower.current.epoch == before.epoch

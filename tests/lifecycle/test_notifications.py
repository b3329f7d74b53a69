"""Waiting for the announcement of an edit."""

import asyncio

from tests.lifecycle.local_service import LocalService


def test_a_wait_times_out_and_sees_edits_that_settled_before_it(local: LocalService) -> None:
    (edit,) = local.live(("a", "1"))
    announcer = local.context.announcer

    assert asyncio.run(announcer.wait(edit.id, 0.01)) is False
    assert asyncio.run(announcer.wait(edit.id, 30.0, is_settled=lambda edit_id: True)) is True
    assert announcer.awaited_ids() == ()

"""Why edits of a run were deferred."""

from typing import Any

from service.bench.ground.deferrals import NOT_TAKEN, count_reasons


def edit(status: str, reason: str | None = None) -> Any:
    return {"status": status, "deferral": None if reason is None else {"reason": reason}}


def test_each_group_over_its_limit_counts_once_an_edit() -> None:
    both = edit("deferred", "near: it would change 50% of 12 answers; far: it would change 10% of 64 answers; it waits")

    assert count_reasons(
        [both, edit("deferred", "near: it would change 30% of 12 answers; near: with it 40% of them; it waits")]
    ) == {"near": 2, "far": 1}


def test_an_edit_that_the_fit_did_not_take_is_counted_apart_and_a_live_one_not_at_all() -> None:
    lost = edit("deferred", "it was not taken by BaFT and waits for the next retrain")

    assert count_reasons([lost, edit("applied"), edit("applied", "near: from an earlier try")]) == {NOT_TAKEN: 1}

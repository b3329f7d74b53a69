"""Which edits are fitted next: small ones pass large ones, which have their turns, and one fact's edits keep their order."""

from service.domain.edit import ANYWAY, JUDGED, Accept
from service.domain.fit_queue import JOBS_BEFORE_TURN, FitQueue, QueuedEdit, choose_next_job, must_give_way

LARGE = 100


def waiting(seq: int, tokens: int = 1, key: str | None = None, accept: Accept = JUDGED) -> QueuedEdit:
    return QueuedEdit(f"edit-{seq}", key or f"key-{seq}", seq, tokens, accept)


def queue(*all_of: QueuedEdit, ended: tuple[int, ...] = ()) -> FitQueue:
    small = [one for one in all_of if one.tokens <= LARGE]
    large = [one for one in all_of if one.tokens > LARGE]
    return FitQueue(small, large, ended)


def taken(found: FitQueue, *, most: int = 64, budget: int = 1_000) -> list[int]:
    return [int(edit_id.removeprefix("edit-")) for edit_id in choose_next_job(found, most=most, budget=budget)]


def done(*seqs: int) -> tuple[int, ...]:
    """Jobs that ended, newest first."""
    return seqs


def test_small_edits_are_taken_together_in_order_up_to_the_limit() -> None:
    assert taken(queue(*(waiting(seq) for seq in range(1, 6))), most=3) == [1, 2, 3]
    assert taken(queue()) == []


def test_edits_are_taken_up_to_a_budget_of_tokens_and_one_at_least() -> None:
    assert taken(queue(waiting(1, 40), waiting(2, 40), waiting(3, 40)), budget=90) == [1, 2]
    assert taken(queue(waiting(1, 95), waiting(2, 1)), budget=50) == [1]


def test_small_edits_pass_a_large_one_that_came_before_them() -> None:
    assert taken(queue(waiting(1, 500), waiting(2), waiting(3))) == [2, 3]


def test_a_large_edit_is_fitted_alone_and_the_oldest_first() -> None:
    assert taken(queue(waiting(1, 500), waiting(2, 500))) == [1]


def test_a_large_edit_has_its_turn_after_so_many_jobs_that_passed_it() -> None:
    passed = done(9, 8, 7, 6)
    assert len(passed) == JOBS_BEFORE_TURN

    assert taken(queue(waiting(5, 500), waiting(10), ended=passed)) == [5]
    assert taken(queue(waiting(8, 500), waiting(10), ended=passed)) == [10]  # two of them came before it


def test_a_small_edit_takes_older_large_ones_of_its_own_fact_along() -> None:
    assert taken(queue(waiting(1, 500, "fact"), waiting(2), waiting(3, 1, "fact"), waiting(4, 500, "fact"))) == [1, 2, 3]
    assert taken(queue(waiting(1, 500, "fact"), waiting(2, 1, "fact"))) == [1, 2]
    assert taken(queue(waiting(1, 500, "fact"), waiting(2), waiting(3, 1, "fact")), most=2) == [2]


def test_a_large_edit_waits_for_an_earlier_small_edit_of_its_fact() -> None:
    found = queue(waiting(1, 1, "fact"), waiting(2, 500, "fact"), ended=done(9, 8, 7, 6))

    assert taken(found) == [1]


def test_the_fit_of_a_large_edit_gives_way_to_small_ones_unless_it_is_its_turn() -> None:
    large = waiting(1, 500, "fact")

    assert must_give_way(large, queue(waiting(2)))
    assert not must_give_way(large, queue())
    assert must_give_way(large, queue(waiting(2, 1, "fact")))
    assert not must_give_way(large, queue(waiting(2, 500)))
    assert not must_give_way(large, queue(waiting(10), ended=done(9, 8, 7, 6)))


def test_a_large_edit_gets_its_turn_though_small_ones_take_others_along() -> None:
    ended: tuple[int, ...] = ()
    for seq in range(2, 2 + 2 * JOBS_BEFORE_TURN, 2):  # each small edit overtakes a large one of its fact, and brings it
        found = queue(waiting(1, 500), waiting(seq, 500, f"fact-{seq}"), waiting(seq + 1, 1, f"fact-{seq}"), ended=ended)
        assert taken(found) == [seq, seq + 1]
        ended = (seq + 1, *ended)

    assert taken(queue(waiting(1, 500), waiting(100), ended=ended)) == [1]
    assert taken(queue(waiting(50, 500), waiting(100), ended=(1, *ended))) == [100]  # another large one had its turn just now


def test_edits_to_be_accepted_anyway_are_fitted_apart_from_judged_ones_and_in_order() -> None:
    first, second, third = waiting(1), waiting(2, accept=ANYWAY), waiting(3)

    assert taken(queue(first, second, third)) == [1]
    assert taken(queue(second, third)) == [2]
    assert taken(queue(second, waiting(3, accept=ANYWAY), waiting(4))) == [2, 3]


def test_a_small_edit_takes_no_large_one_along_that_is_accepted_otherwise() -> None:
    assert taken(queue(waiting(1, 500, "fact", ANYWAY), waiting(2, 1, "fact"))) == [2]
    assert taken(queue(waiting(1, 500, "fact"), waiting(2, 1, "fact", ANYWAY))) == [2]

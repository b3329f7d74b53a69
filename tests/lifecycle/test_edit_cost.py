"""What one edit may cost the others: it is weighed before it is accepted, fitted after the small ones, and not for ever."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from service.domain.cost_limits import CostLimits
from service.domain.edit import EditRequest, EditStatus, Probe
from service.domain.errors import TooLong
from service.domain.fit_queue import JOBS_BEFORE_TURN
from service.lifecycle.edit_cost import CostChecker, RowLengths
from service.lifecycle.settings import LifecycleSettings
from service.lifecycle.submit import submit
from service.lm.prompts import encode_row
from tests.builders import make_base
from tests.lifecycle.local_service import PATIENT, LocalService, new_local_service, once

RULES = LifecycleSettings(cadence=PATIENT, large=100, joint_tokens=200, look_s=0.0)
LARGE = 500
Furnish = Callable[..., LocalService]


@pytest.fixture
def furnish(tmp_path: Path) -> Iterator[Furnish]:
    made: list[LocalService] = []

    def make(**changes: object) -> LocalService:
        made.append(new_local_service(tmp_path, settings=replace(RULES, **changes)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for local in made:
        local.close()


def probes(*texts: str, train: bool = True) -> tuple[Probe, ...]:
    return tuple(Probe(prompt=text, train=train) for text in texts)


def request(**more: object) -> EditRequest:
    return EditRequest(prompt="The colour of moss is", target="red", surfaces=("raw",), **more)  # type: ignore[arg-type]


def scales(*, is_batch: bool = False, **bounds: int) -> CostChecker:
    return CostChecker(make_base(), CostLimits(**bounds), is_batch=is_batch)


def refusal(asked: EditRequest, **bounds: int) -> tuple[str | None, str]:
    with pytest.raises(TooLong) as caught:
        scales(**bounds).check([asked])
    return caught.value.field, caught.value.message


def told(number: int, *texts: str) -> EditRequest:
    return EditRequest(prompt=f"The colour of moss {number} is", target="red", rephrases=probes(*texts, train=False))


def fitted(local: LocalService) -> list[tuple[str, ...]]:
    """The targets of each fit, in order."""
    return [targets for _, targets, _ in local.ledger.fits]


# At the door.


def test_a_fit_costs_its_rows_times_the_longest_on_every_surface() -> None:
    base, long = make_base(), "The colour that moss has where nobody has trodden on it is"
    asked = request(rephrases=(*probes("Moss is", long), *probes("never", train=False)))
    width = len(encode_row(base, long, "red").ids)

    assert RowLengths(base).cost_of(asked).fit_tokens == 3 * width
    assert RowLengths(base).cost_of(replace(asked, surfaces=("raw", "chat"))).fit_tokens >= 6 * width


def test_what_must_stay_is_a_part_of_the_fit_only_where_it_is_trained() -> None:
    plain = RowLengths(make_base()).cost_of(request())
    asked = RowLengths(make_base()).cost_of(request(locality=probes("The colour of snow is", train=False)))
    trained = RowLengths(make_base()).cost_of(request(locality=probes("The colour of snow is")))

    assert asked.fit_tokens == plain.fit_tokens < trained.fit_tokens
    assert asked.report_tokens == trained.report_tokens > plain.report_tokens


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"rephrases": probes(*(f"Moss number {n} is" for n in range(9)))}, "rephrases"),
        ({"locality": probes(*(f"Snow number {n} is" for n in range(9)))}, "locality"),
        ({}, "prompt"),
    ],
)
def test_an_edit_that_costs_too_much_is_refused_by_field_with_the_figure_that_is_allowed(
    more: Mapping[str, object], field: str
) -> None:
    named, message = refusal(request(**more), fit=10)

    assert named == field
    assert "the 10 tokens" in message
    assert "moss" not in message.lower()


def test_a_report_that_asks_too_much_is_refused_by_the_kind_of_probes_that_weighs_most() -> None:
    asked = request(portability=tuple(Probe(prompt=f"On moss {n} grows", answer="a tree") for n in range(9)))

    named, message = refusal(asked, report=50)

    assert named == "portability"
    assert "50 tokens" in message


def test_of_a_batch_the_heavy_edit_is_named_by_its_place_and_the_sum_as_edits() -> None:
    light, heavy = request(), request(rephrases=probes(*(f"Moss number {n} is" for n in range(9))))
    one = RowLengths(make_base()).cost_of(light).fit_tokens

    with pytest.raises(TooLong) as caught:
        scales(is_batch=True, fit=2 * one).check([light, heavy])
    assert caught.value.field == "edits[1].rephrases"

    scales(is_batch=True, batch=2 * one).check([light, light])
    with pytest.raises(TooLong) as caught:
        scales(is_batch=True, batch=2 * one).check([light, light, light])
    assert caught.value.field == "edits"


def test_an_edit_does_not_grow_beyond_the_bound_by_being_asked_for_again(furnish: Furnish) -> None:
    local, weights = furnish(), scales(fit=200)
    grown = [request(rephrases=probes(*(f"Moss {n} {m} is" for m in range(4)))) for n in range(9)]

    with pytest.raises(TooLong) as caught:
        for asked in grown:
            submit(local.store, [asked], author="ann", cost_of=weights.cost_of)

    assert caught.value.field == "rephrases"
    (edit,) = local.all_edits()
    assert 0 < edit.tokens <= 200
    assert edit.tokens == RowLengths(make_base()).cost_of(edit).fit_tokens


def test_an_edit_that_is_told_more_by_a_batch_again_and_again_is_weighed_as_a_whole(furnish: Furnish) -> None:
    local, weighed = furnish(), []
    submit(local.store, [request()], author="ann")

    def weigh(asked: EditRequest, at: int) -> int:
        weighed.append(len(asked.rephrases))
        return 7

    submit(local.store, [request(rephrases=probes(f"Moss {n} is")) for n in range(20)], author="ann", cost_of=weigh)

    assert weighed == [20, 20]  # ahead, and again under the lock, where the scales know it
    (edit,) = local.all_edits()
    assert (len(edit.rephrases), edit.tokens) == (20, 7)


# In the queue.


def test_small_edits_that_come_later_are_live_before_a_large_one(furnish: Furnish) -> None:
    local = furnish()
    local.post(("a", "large"), tokens=LARGE)
    local.post(("b", "1"), ("c", "2"), tokens=1)

    local.worker.drain()

    assert fitted(local) == [("1", "2"), ("large",)]
    assert local.says("a") == "large"


def test_edits_that_wait_are_fitted_together_up_to_a_budget_of_tokens(furnish: Furnish) -> None:
    local = furnish()
    local.post(*((key, key) for key in "abcde"), tokens=90)

    local.worker.drain()

    assert fitted(local) == [("a", "b"), ("c", "d"), ("e",)]


def test_the_fit_of_a_large_edit_gives_way_to_a_small_one_and_is_made_afterwards(furnish: Furnish) -> None:
    local = furnish()
    (large,) = local.post(("a", "large"), tokens=LARGE)
    local.ledger.during = once(lambda: local.post(("b", "small"), tokens=1))  # type: ignore[assignment]

    local.worker.drain()

    assert fitted(local) == [("large",), ("small",), ("large",)]
    assert [version.edits_counted for version in local.versions()] == [0, 1, 2]
    assert local.edit(large).status is EditStatus.APPLIED


def test_after_some_jobs_of_small_edits_a_large_one_has_its_turn_and_gives_way_no_more(furnish: Furnish) -> None:
    """Small edits come without end, one during each fit."""
    local = furnish()
    (large,) = local.post(("a", "large"), tokens=LARGE)
    came: list[str] = []

    def come(method: str) -> None:
        if len(came) < 3 * JOBS_BEFORE_TURN:
            came.append(f"{len(came)}")
            local.post((came[-1], came[-1]), tokens=1)

    local.ledger.during = come
    for _ in range(2 * JOBS_BEFORE_TURN + 2):
        local.worker.step()

    assert local.edit(large).status is EditStatus.APPLIED
    whole = [targets for targets in fitted(local) if "large" not in targets]
    assert fitted(local).index(("large",), 1) <= JOBS_BEFORE_TURN + 2
    assert len(whole) >= JOBS_BEFORE_TURN


@pytest.mark.parametrize("while_fitted", [False, True])
def test_the_newest_edit_of_a_fact_supersedes_the_one_before_whatever_that_costs(furnish: Furnish, while_fitted: bool) -> None:
    local = furnish()
    (older,) = local.post(("a", "large"), tokens=LARGE)
    if while_fitted:
        local.ledger.during = once(lambda: local.post(("a", "small"), tokens=1))  # type: ignore[assignment]
    else:
        local.post(("a", "small"), tokens=1)

    local.worker.drain()

    newer = local.edit_by("a")
    assert fitted(local) == [*([("large",)] if while_fitted else []), ("small",)]
    assert local.edit(newer).supersedes == older.id
    assert local.edit(older).status is EditStatus.SUPERSEDED
    assert local.says("a") == "small"


def test_a_window_that_costs_too_much_takes_no_more_until_a_retrain_has_moved_it(furnish: Furnish) -> None:
    local = furnish(cadence=replace(PATIENT, tokens=150))
    local.post(("a", "1"), ("b", "2"), tokens=90)
    local.worker.step()
    before = local.head.window
    local.post(("c", "3"), tokens=90)

    local.worker.drain()

    assert before == 2
    assert [method for method, _, _ in local.ledger.fits] == ["baft", "locft", "baft"]
    assert [local.says(prompt) for prompt in "abc"] == ["1", "2", "3"]


# While it is fitted.


def test_an_edit_that_is_taken_back_while_it_is_fitted_is_over_at_once_and_its_fit_stops(furnish: Furnish) -> None:
    local = furnish()
    (edit,) = local.post(("a", "1"))
    ended: list[str] = []
    seen: list[tuple[bool, EditStatus]] = []

    def take_back() -> None:
        asked = local.retract(edit)
        seen.append((asked.is_done, local.edit(edit).status))

    local.ledger.during = once(take_back)  # type: ignore[assignment]
    local.ledger.ended = ended.append
    local.worker.drain()

    assert seen == [(True, EditStatus.RETRACTED)]
    assert ended == []  # it went no further than the next look
    assert fitted(local) == [("1",)]
    assert [version.number for version in local.versions()] == [0]


def test_the_others_of_a_joint_fit_are_fitted_again_without_an_edit_that_was_taken_back(furnish: Furnish) -> None:
    local = furnish()
    gone, *others = local.post(("a", "1"), ("b", "2"), ("c", "3"))
    local.ledger.during = once(lambda: local.retract(gone))  # type: ignore[assignment]

    local.worker.drain()

    assert fitted(local) == [("1", "2", "3"), ("2", "3")]
    assert local.edit(gone).status is EditStatus.RETRACTED
    assert local.statuses(others) == [EditStatus.APPLIED] * 2


def test_an_edit_whose_fit_takes_too_long_is_deferred_and_says_so_and_the_queue_goes_on(furnish: Furnish) -> None:
    local = furnish(fit_s=0.0)
    (edit,) = local.post(("a", "1"))

    local.worker.drain()

    found = local.edit(edit)
    assert found.status is EditStatus.DEFERRED
    assert found.error == "its fit took longer than 0 seconds; it waits for the next retrain"
    assert fitted(local) == [("1",)]
    local.retrain()
    local.worker.drain()
    assert local.says("a") == "1"


def test_of_a_joint_fit_that_takes_too_long_the_older_half_is_tried_alone(furnish: Furnish) -> None:
    local = furnish(fit_s=0.0)
    made = local.post(*((key, key) for key in "abcd"))

    local.worker.step()
    local.worker.step()

    assert fitted(local)[:2] == [("a", "b", "c", "d"), ("a", "b")]
    local.worker.drain()
    assert local.statuses(made) == [EditStatus.DEFERRED] * 4


def test_a_refit_after_a_retraction_has_no_deadline(furnish: Furnish) -> None:
    local = furnish()
    kept, gone = local.live(("a", "1"), ("b", "2"))
    local.worker._context = replace(local.context, settings=replace(local.settings, fit_s=0.0))

    local.retract(gone)
    local.worker.drain()

    assert local.statuses([kept, gone]) == [EditStatus.APPLIED, EditStatus.RETRACTED]


def test_texts_are_read_before_the_head_is_locked_also_those_an_edit_has_already(
    furnish: Furnish, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = furnish()
    edits = [told(number, *(f"Moss {number} is coloured {at}" for at in range(9))) for number in range(5)]
    more = [told(number, "Moss is") for number in range(5)]
    locked: list[bool] = [False]
    read: list[bool] = []
    write = local.store.write

    @contextmanager
    def writing() -> Iterator[object]:
        with write() as connection:
            locked[0] = True
            try:
                yield connection
            finally:
                locked[0] = False

    def counted(*given: object, **named: object) -> object:
        read.append(locked[0])
        return encode_row(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(local.store, "write", writing)
    monkeypatch.setattr("service.lifecycle.edit_cost.encode_row", counted)
    for requests in (edits, more):
        weighing = scales(is_batch=True)
        weighing.check(requests)
        submit(local.store, requests, author="ann", cost_of=weighing.cost_of)

    assert read and not any(read)
    assert len(local.edit_by("The colour of moss 3 is").rephrases) == 10


def test_a_batch_that_tells_many_edits_a_little_more_is_bounded_by_what_they_ask_in_all(furnish: Furnish) -> None:
    local = furnish()
    edits = [told(number, *(f"Moss {number} is coloured {at}" for at in range(9))) for number in range(20)]
    submit(local.store, edits, author="ann", cost_of=scales(is_batch=True).cost_of)
    weighing = scales(is_batch=True, batch=1_000)

    with pytest.raises(TooLong, match="send them in several") as caught:
        submit(local.store, [told(number, "Moss is") for number in range(20)], author="ann", cost_of=weighing.cost_of)

    assert caught.value.field == "edits"
    assert len(local.edit_by("The colour of moss 3 is").rephrases) == 9

"""The cost of an edit: it is limited before the edit is accepted, decides the order of fits, and limits their time."""

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
from service.lm.prompts import encode_row
from tests.builders import make_base
from tests.lifecycle.local_service import PATIENT, LocalService, new_local_service, once
from tests.submission import submit

RULES = LifecycleSettings(cadence=PATIENT, large=100, joint_tokens=200, look_s=0.0)
LARGE = 500
MakeService = Callable[..., LocalService]


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[MakeService]:
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


def cost_checker(*, is_batch: bool = False, **bounds: int) -> CostChecker:
    return CostChecker(make_base(), CostLimits(**bounds), is_batch=is_batch)


def refusal(asked: EditRequest, **bounds: int) -> tuple[str | None, str]:
    with pytest.raises(TooLong) as caught:
        cost_checker(**bounds).check([asked])
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


def test_a_locality_probe_adds_to_the_cost_of_a_fit_only_if_trained() -> None:
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
def test_an_edit_that_costs_too_much_is_refused_with_its_field_and_the_limit(more: Mapping[str, object], field: str) -> None:
    named, message = refusal(request(**more), fit=10)

    assert named == field
    assert "the 10 tokens" in message
    assert "moss" not in message.lower()


def test_a_report_that_asks_too_much_is_refused_with_its_largest_kind_of_probes() -> None:
    asked = request(portability=tuple(Probe(prompt=f"On moss {n} grows", answer="a tree") for n in range(9)))

    named, message = refusal(asked, report=50)

    assert named == "portability"
    assert "50 tokens" in message


def test_in_a_batch_a_large_edit_is_named_by_its_position_and_the_sum_as_edits() -> None:
    light, heavy = request(), request(rephrases=probes(*(f"Moss number {n} is" for n in range(9))))
    one = RowLengths(make_base()).cost_of(light).fit_tokens

    with pytest.raises(TooLong) as caught:
        cost_checker(is_batch=True, fit=2 * one).check([light, heavy])
    assert caught.value.field == "edits[1].rephrases"

    cost_checker(is_batch=True, batch=2 * one).check([light, light])
    with pytest.raises(TooLong) as caught:
        cost_checker(is_batch=True, batch=2 * one).check([light, light, light])
    assert caught.value.field == "edits"


def test_repeated_requests_cannot_extend_an_edit_beyond_the_limit(make_service: MakeService) -> None:
    local, weights = make_service(), cost_checker(fit=200)
    grown = [request(rephrases=probes(*(f"Moss {n} {m} is" for m in range(4)))) for n in range(9)]

    with pytest.raises(TooLong) as caught:
        for asked in grown:
            submit(local.store, [asked], author="ann", cost_of=weights.cost_of)

    assert caught.value.field == "rephrases"
    (edit,) = local.all_edits()
    assert 0 < edit.tokens <= 200
    assert edit.tokens == RowLengths(make_base()).cost_of(edit).fit_tokens


def test_the_cost_of_an_edit_that_a_batch_extends_often_is_that_of_the_whole(make_service: MakeService) -> None:
    local, weighed = make_service(), []
    submit(local.store, [request()], author="ann")

    def weigh(asked: EditRequest, at: int) -> int:
        weighed.append(len(asked.rephrases))
        return 7

    submit(local.store, [request(rephrases=probes(f"Moss {n} is")) for n in range(20)], author="ann", cost_of=weigh)

    assert weighed == [20, 20]  # ahead, and again under the lock, where the scales know it
    (edit,) = local.all_edits()
    assert (len(edit.rephrases), edit.tokens) == (20, 7)


# In the queue.


def test_small_edits_that_come_later_are_live_before_a_large_one(make_service: MakeService) -> None:
    local = make_service()
    local.post(("a", "large"), tokens=LARGE)
    local.post(("b", "1"), ("c", "2"), tokens=1)

    local.worker.drain()

    assert fitted(local) == [("1", "2"), ("large",)]
    assert local.says("a") == "large"


def test_edits_that_wait_are_fitted_together_up_to_a_budget_of_tokens(make_service: MakeService) -> None:
    local = make_service()
    local.post(*((key, key) for key in "abcde"), tokens=90)

    local.worker.drain()

    assert fitted(local) == [("a", "b"), ("c", "d"), ("e",)]


def test_the_fit_of_a_large_edit_gives_way_to_a_small_one_and_follows_it(make_service: MakeService) -> None:
    local = make_service()
    (large,) = local.post(("a", "large"), tokens=LARGE)
    local.ledger.during_fit = once(lambda: local.post(("b", "small"), tokens=1))  # type: ignore[assignment]

    local.worker.drain()

    assert fitted(local) == [("large",), ("small",), ("large",)]
    assert [version.edits_counted for version in local.versions()] == [0, 1, 2]
    assert local.edit(large).status is EditStatus.APPLIED


def test_after_some_jobs_of_small_edits_a_large_edit_is_fitted_without_giving_way(make_service: MakeService) -> None:
    """Small edits come without end, one during each fit."""
    local = make_service()
    (large,) = local.post(("a", "large"), tokens=LARGE)
    came: list[str] = []

    def come(method: str) -> None:
        if len(came) < 3 * JOBS_BEFORE_TURN:
            came.append(f"{len(came)}")
            local.post((came[-1], came[-1]), tokens=1)

    local.ledger.during_fit = come
    for _ in range(2 * JOBS_BEFORE_TURN + 2):
        local.worker.step()

    assert local.edit(large).status is EditStatus.APPLIED
    whole = [targets for targets in fitted(local) if "large" not in targets]
    assert fitted(local).index(("large",), 1) <= JOBS_BEFORE_TURN + 2
    assert len(whole) >= JOBS_BEFORE_TURN


@pytest.mark.parametrize("while_fitted", [False, True])
def test_the_newest_edit_of_a_fact_supersedes_its_predecessor_at_any_size(make_service: MakeService, while_fitted: bool) -> None:
    local = make_service()
    (older,) = local.post(("a", "large"), tokens=LARGE)
    if while_fitted:
        local.ledger.during_fit = once(lambda: local.post(("a", "small"), tokens=1))  # type: ignore[assignment]
    else:
        local.post(("a", "small"), tokens=1)

    local.worker.drain()

    newer = local.edit_by("a")
    assert fitted(local) == [*([("large",)] if while_fitted else []), ("small",)]
    assert local.edit(newer).supersedes == older.id
    assert local.edit(older).status is EditStatus.SUPERSEDED
    assert local.says("a") == "small"


def test_a_window_with_too_many_tokens_takes_no_edits_until_a_retrain(make_service: MakeService) -> None:
    local = make_service(cadence=replace(PATIENT, tokens=150))
    local.post(("a", "1"), ("b", "2"), tokens=90)
    local.worker.step()
    before = local.head.window
    local.post(("c", "3"), tokens=90)

    local.worker.drain()

    assert before == 2
    assert [method for method, _, _ in local.ledger.fits] == ["baft", "locft", "baft"]
    assert [local.says(prompt) for prompt in "abc"] == ["1", "2", "3"]


# While it is fitted.


def test_retracting_an_edit_during_its_fit_takes_effect_at_once_and_stops_the_fit(make_service: MakeService) -> None:
    local = make_service()
    (edit,) = local.post(("a", "1"))
    ended: list[str] = []
    seen: list[tuple[bool, EditStatus]] = []

    def take_back() -> None:
        asked = local.retract(edit)
        seen.append((asked.is_done, local.edit(edit).status))

    local.ledger.during_fit = once(take_back)  # type: ignore[assignment]
    local.ledger.after_fit = ended.append
    local.worker.drain()

    assert seen == [(True, EditStatus.RETRACTED)]
    assert ended == []  # it went no further than the next look
    assert fitted(local) == [("1",)]
    assert [version.number for version in local.versions()] == [0]


def test_a_joint_fit_is_repeated_without_an_edit_that_was_retracted_during_it(make_service: MakeService) -> None:
    local = make_service()
    gone, *others = local.post(("a", "1"), ("b", "2"), ("c", "3"))
    local.ledger.during_fit = once(lambda: local.retract(gone))  # type: ignore[assignment]

    local.worker.drain()

    assert fitted(local) == [("1", "2", "3"), ("2", "3")]
    assert local.edit(gone).status is EditStatus.RETRACTED
    assert local.statuses(others) == [EditStatus.APPLIED] * 2


def test_an_edit_whose_fit_is_overdue_is_deferred_and_the_queue_goes_on(make_service: MakeService) -> None:
    local = make_service(fit_s=0.0)
    (edit,) = local.post(("a", "1"))

    local.worker.drain()

    found = local.edit(edit)
    assert found.status is EditStatus.DEFERRED
    assert found.error == "its fit took longer than 0 seconds; it waits for the next retrain"
    assert fitted(local) == [("1",)]
    local.retrain()
    local.worker.drain()
    assert local.says("a") == "1"


def test_after_an_overdue_joint_fit_the_older_half_is_tried_alone(make_service: MakeService) -> None:
    local = make_service(fit_s=0.0)
    made = local.post(*((key, key) for key in "abcd"))

    local.worker.step()
    local.worker.step()

    assert fitted(local)[:2] == [("a", "b", "c", "d"), ("a", "b")]
    local.worker.drain()
    assert local.statuses(made) == [EditStatus.DEFERRED] * 4


def test_a_refit_after_a_retraction_has_no_deadline(make_service: MakeService) -> None:
    local = make_service()
    kept, gone = local.live(("a", "1"), ("b", "2"))
    local.worker._context = replace(local.context, settings=replace(local.settings, fit_s=0.0))

    local.retract(gone)
    local.worker.drain()

    assert local.statuses([kept, gone]) == [EditStatus.APPLIED, EditStatus.RETRACTED]


def test_costs_are_computed_before_the_head_is_locked(make_service: MakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    local = make_service()
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
        checker = cost_checker(is_batch=True)
        checker.check(requests)
        submit(local.store, requests, author="ann", cost_of=checker.cost_of)

    assert read and not any(read)
    assert len(local.edit_by("The colour of moss 3 is").rephrases) == 10


def test_a_batch_that_extends_many_edits_is_limited_by_the_sum_of_their_reports(make_service: MakeService) -> None:
    local = make_service()
    edits = [told(number, *(f"Moss {number} is coloured {at}" for at in range(9))) for number in range(20)]
    submit(local.store, edits, author="ann", cost_of=cost_checker(is_batch=True).cost_of)
    checker = cost_checker(is_batch=True, batch=1_000)

    with pytest.raises(TooLong, match="send them in several") as caught:
        submit(local.store, [told(number, "Moss is") for number in range(20)], author="ann", cost_of=checker.cost_of)

    assert caught.value.field == "edits"
    assert len(local.edit_by("The colour of moss 3 is").rephrases) == 9

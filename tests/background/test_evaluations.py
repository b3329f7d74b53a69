"""Evaluations through a store: pinned to a version, worked on in small steps, kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.background.collect import collect
from service.background.compare_evaluations import compare_evals, latest_evaluations
from service.background.evaluations import (
    EDITS_AT_ONCE,
    MAX_EDITS,
    Between,
    Evaluations,
    cancel_eval,
    get_eval,
    list_evals,
    request_eval,
)
from service.background.purge import purge
from service.domain.edit import EditRequest, Probe
from service.domain.errors import Conflict, Corrupt, Gone, NotFound, Refused, TooLong, Unavailable
from service.domain.version import VersionStatus
from service.evaluation.metrics.outcomes import Outcome
from service.evaluation.records import EvalProbe, Record, list_questions
from service.lm.overlay import Overlay
from service.store import evaluations, versions
from service.store.evaluations import Evaluation
from tests.lifecycle.ledger import answer
from tests.lifecycle.local_service import LocalService, new_local_service


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    local = new_local_service(tmp_path)
    yield local
    local.close()


class CountingEvaluator:
    """What the ledger's overlays say to questions; `called` counts the steps of the metrics that it stands in for."""

    def __init__(self, between_asks: Callable[[], None] = lambda: None) -> None:
        self.called = 0
        self.live: list[str] = []
        self._between_asks = between_asks

    def ask(self, overlay: Overlay, records: Sequence[Record], *, between: Between) -> list[Outcome]:
        self._between_asks()
        return [
            Outcome(question=one, greedy=right, tokens=float(right), base_greedy=False, base_tokens=0.0)
            for record in records
            for one in list_questions(record, ("raw",))
            for right in [answer(overlay, EditRequest(prompt=one.prompt, target="?")) == one.answer]  # type: ignore[arg-type]
        ]

    def measure_full(
        self, overlay: Overlay, records: Sequence[Record], *, live: Sequence[Record], between: Between
    ) -> Mapping[str, Any]:
        self.live = [record.prompt for record in live]
        return {"records": self._count(records, between)}

    def measure_capability(self, overlay: Overlay, *, between: Between) -> Mapping[str, Any]:
        return {"ratio": 1.0, "n": self._count(range(3), between), "tasks": "three"}

    def check_capability(self) -> None:
        """It has tasks."""

    def _count(self, things: Sequence[object], between: Between) -> int:
        for _ in things:
            self.called += 1
            between()
        return len(things)


def service_of(local: LocalService, judge: CountingEvaluator | None = None) -> Evaluations:
    return Evaluations(local.context, judge or CountingEvaluator(), step_s=0)


def facts(count: int) -> list[EditRequest]:
    return [EditRequest(prompt=f"fact {number}", target="x") for number in range(count)]


def finished(local: LocalService, evaluation: Evaluation, judge: CountingEvaluator | None = None) -> Evaluation:
    working = service_of(local, judge)
    while working.step():
        pass
    return get_eval(local.store, evaluation.id)


def reliability(evaluation: Evaluation) -> dict[str, object]:
    assert evaluation.result is not None, evaluation.error
    return evaluation.result["greedy"]["reliability"]


def test_an_evaluation_of_the_live_edits_asks_all_of_them(local: LocalService) -> None:
    local.live(("Austria", "Graz"), ("Italy", "Milan"))

    queued = request_eval(local.store, version=None, selection="live", author="ann")

    assert (queued.status, queued.result) == ("queued", None)
    done = finished(local, queued)
    assert (done.status, done.version, done.author) == ("done", local.head.number, "ann")
    assert reliability(done) == {"score": 1.0, "n": 2}


def test_an_evaluation_stays_with_its_version_when_the_head_moves_on(local: LocalService) -> None:
    [first] = local.live(("Austria", "Graz"))
    before = local.head.number
    queued = request_eval(local.store, version=None, selection=[first.id], author="ann")
    local.roll_back(0)

    assert finished(local, queued).version == before
    assert reliability(finished(local, queued))["score"] == 1.0
    on_head = request_eval(local.store, version=None, selection=[first.id], author="ann")
    assert reliability(finished(local, on_head))["score"] == 0.0


def test_the_live_edits_are_those_of_the_moment_it_was_asked_for(local: LocalService) -> None:
    local.live(("Austria", "Graz"))
    queued = request_eval(local.store, version=1, selection="live", author="ann")
    local.live(("Italy", "Milan"))

    assert reliability(finished(local, queued))["n"] == 1


def test_inline_records_are_asked_without_being_stored_as_edits(local: LocalService) -> None:
    local.live(("Austria", "Graz"))
    probes = (Probe(prompt="Austria", answer="Graz"),)
    inline = [EditRequest(prompt="Italy", target="Milan", portability=probes)]

    done = finished(local, request_eval(local.store, version=None, selection=inline, author="ann"))

    assert reliability(done) == {"score": 0.0, "n": 1}
    assert done.result is not None and done.result["greedy"]["portability"]["score"] == 1.0
    assert local.head.edits_counted == 1


def test_a_long_evaluation_is_worked_on_a_few_edits_at_a_time(local: LocalService) -> None:
    queued = request_eval(local.store, version=0, selection=facts(2 * EDITS_AT_ONCE), author="ann")
    working = service_of(local)

    seen = []
    for _ in range(3):
        assert working.step()
        now = get_eval(local.store, queued.id)
        seen.append((now.status, now.progress))

    assert seen == [("running", 0.5), ("running", 1.0), ("done", 1.0)]
    assert not working.step()


def test_an_evaluation_gives_way_to_answers_and_to_fits_of_edits_between_its_steps(local: LocalService) -> None:
    waits: list[str] = []

    class Fits:
        def wait(self, timeout: float) -> bool:
            waits.append("edits")
            return True

    context = replace(local.context, yield_to_answers=lambda: waits.append("answers"), edit_fits_idle=Fits())  # type: ignore[arg-type]
    request_eval(local.store, version=0, selection=facts(2 * EDITS_AT_ONCE), capability=True, author="ann")
    working = Evaluations(context, CountingEvaluator(), step_s=0)
    while working.step():
        pass

    assert waits == ["edits", "answers"] * (2 + 3)  # two steps of questions, three of capability


def test_an_evaluation_that_a_stop_interrupted_is_done_by_the_next_process(local: LocalService) -> None:
    queued = request_eval(local.store, version=0, selection=facts(2 * EDITS_AT_ONCE), author="ann")
    stopped = service_of(local)
    stopped.step()
    stopped.close()

    done = finished(local, queued)
    assert reliability(done)["n"] == 2 * EDITS_AT_ONCE
    assert done.started_at is not None and done.finished_at is not None
    assert done.created_at <= done.started_at <= done.finished_at


def test_a_cancelled_evaluation_asks_no_more_and_stays_in_the_list(local: LocalService) -> None:
    asked: list[int] = []
    judge = CountingEvaluator(lambda: asked.append(1))
    queued = request_eval(local.store, version=0, selection=facts(3 * EDITS_AT_ONCE), author="ann")
    working = service_of(local, judge)
    working.step()

    cancelled = cancel_eval(local.store, queued.id)

    assert not working.step()
    assert len(asked) == 1
    assert (cancelled.status, cancelled.result) == ("cancelled", None)
    assert cancel_eval(local.store, queued.id) == cancelled
    assert [one.id for one in list_evals(local.store, limit=10)] == [queued.id]


def test_what_is_over_cannot_be_cancelled(local: LocalService) -> None:
    done = finished(local, request_eval(local.store, version=0, selection=facts(1), author="ann"))

    with pytest.raises(Conflict):
        cancel_eval(local.store, done.id)
    with pytest.raises(NotFound):
        cancel_eval(local.store, "no such evaluation")
    assert get_eval(local.store, done.id) == done


def test_an_evaluation_cancelled_while_the_next_waits_makes_room_for_it(local: LocalService) -> None:
    first = request_eval(local.store, version=0, selection=facts(3 * EDITS_AT_ONCE), author="ann")
    second = request_eval(local.store, version=0, selection=facts(1), author="ann")
    working = service_of(local)
    working.step()
    cancel_eval(local.store, first.id)

    while working.step():
        pass

    assert [get_eval(local.store, one.id).status for one in (first, second)] == ["cancelled", "done"]


def test_capability_and_full_metrics_are_measured_where_they_were_asked_for(local: LocalService) -> None:
    local.live(("Austria", "Graz"), ("Italy", "Milan"))
    judge = CountingEvaluator()

    plain = finished(local, request_eval(local.store, version=None, selection="live", author="ann"), judge)
    assert plain.result is not None and not {"full", "capability"} & set(plain.result)

    asked = request_eval(local.store, version=None, selection=facts(3), metrics="full", capability=True, author="ann")
    done = finished(local, asked, judge)

    assert done.result is not None
    assert done.result["full"] == {"records": 3}
    assert done.result["capability"]["n"] == 3
    assert judge.live == ["Austria", "Italy"]
    assert done.about == {"edits": "records", "count": 3, "metrics": "full", "capability": True}


def test_a_figure_that_came_to_no_number_is_unknown(local: LocalService) -> None:
    class Odd(CountingEvaluator):
        def measure_capability(self, overlay: Overlay, *, between: Between) -> Mapping[str, Any]:
            return {"ratio": float("nan"), "n": 1, "by_skill": {"s": [float("inf"), 0.5]}}

    done = finished(local, request_eval(local.store, version=0, selection="none", capability=True, author="ann"), Odd())

    assert done.result is not None
    assert done.result["capability"] == {"ratio": None, "n": 1, "by_skill": {"s": [None, 0.5]}}


def test_capability_alone_needs_no_edits(local: LocalService) -> None:
    done = finished(local, request_eval(local.store, version=0, selection="none", capability=True, author="ann"))

    assert done.result is not None and done.result["capability"]["ratio"] == 1.0
    assert done.result["greedy"]["reliability"] == {"score": None, "n": 0}
    with pytest.raises(Refused):
        request_eval(local.store, version=0, selection="none", author="ann")


def test_of_many_live_edits_some_are_asked_evenly(local: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.background.evaluations.MAX_EDITS", 2)
    local.live(("Austria", "Graz"), ("Italy", "Milan"), ("France", "Lyon"), ("Spain", "Seville"))

    done = finished(local, request_eval(local.store, version=None, selection="live", author="ann"))

    assert (done.about["count"], done.about["of"]) == (2, 4)
    assert reliability(done) == {"score": 1.0, "n": 2}


def test_inline_records_keep_what_rows_of_data_sets_have(local: LocalService) -> None:
    row = Record(
        id="zsre-7",
        prompt="Austria",
        target="Graz",
        aliases=(("Gratz",),),
        generation=("Austria is",),
        locality=(EvalProbe(prompt="Italy", answer="Rome", group="near", pool=False),),
    )
    local.live(("Austria", "Graz"))
    asked: list[Record] = []

    class Curious(CountingEvaluator):
        def ask(self, overlay: Overlay, records: Sequence[Record], *, between: Between) -> list[Outcome]:
            asked.extend(records)
            return super().ask(overlay, records, between=between)

    done = finished(local, request_eval(local.store, version=None, selection=[row], author="ann"), Curious())

    assert asked == [row]
    assert done.result is not None and done.result["greedy"]["locality"]["groups"]["near"]["n"] == 1


def test_evaluations_are_listed_newest_first_by_version_and_status(local: LocalService) -> None:
    local.live(("Austria", "Graz"))
    made = [request_eval(local.store, version=version, selection=facts(1), author="ann") for version in (0, 1, 0, 0)]
    service_of(local).step()
    ids = [one.id for one in made]

    assert [one.id for one in list_evals(local.store, limit=10)] == ids[::-1]
    assert [one.id for one in list_evals(local.store, limit=10, version=0)] == [ids[3], ids[2], ids[0]]
    assert [one.id for one in list_evals(local.store, limit=10, status="running")] == [ids[0]]
    assert [one.id for one in list_evals(local.store, limit=2, before=ids[3])] == [ids[2], ids[1]]
    with pytest.raises(NotFound):
        list_evals(local.store, limit=2, before="no such evaluation")


def test_two_versions_are_compared_on_the_questions_they_share(local: LocalService) -> None:
    local.live(("Austria", "Graz"))
    local.live(("Italy", "Milan"))
    both = [EditRequest(prompt="Austria", target="Graz"), EditRequest(prompt="Italy", target="Milan")]
    first = finished(local, request_eval(local.store, version=1, selection=[*both, *facts(3)], author="ann"))
    second = finished(local, request_eval(local.store, version=2, selection=both, author="ann"))

    found = compare_evals(local.store, [first.id, second.id])

    [figure] = [one for one in found.figures if one.judged == "greedy"]
    assert (figure.name, figure.n, figure.scores, figure.differences) == ("reliability", 2, [0.5, 1.0], [0.0, 0.5])
    assert (figure.gained, figure.lost) == ([0, 1], [0, 0])
    assert figure.standard_errors[1] == pytest.approx(0.5)  # of 0 and 1: deviation √½, over √2
    assert (found.shared, [one.left_out for one in found.evaluations]) == (2, [3, 0])
    assert any("same questions" in note for note in found.notes)
    assert latest_evaluations(local.store, [1, 2]) == [first.id, second.id]


def test_full_metrics_stand_side_by_side_only_over_the_same_questions(local: LocalService) -> None:
    made = [
        finished(local, request_eval(local.store, version=0, selection=facts(count), metrics="full", author="ann"))
        for count in (2, 2, 3)
    ]

    same = compare_evals(local.store, [made[0].id, made[1].id])
    other = compare_evals(local.store, [made[0].id, made[2].id])

    assert (same.full, same.notes) == ([{"records": 2}, {"records": 2}], [])
    assert other.full is None
    assert any("full metrics" in note for note in other.notes)


def test_capability_is_compared_where_the_tasks_are_the_same(local: LocalService) -> None:
    def measured(tasks: str) -> Evaluation:
        class Other(CountingEvaluator):
            def measure_capability(self, overlay: Overlay, *, between: Between) -> Mapping[str, Any]:
                return {"ratio": 1.0, "tasks": tasks}

        return finished(local, request_eval(local.store, version=0, selection=facts(1), capability=True, author="ann"), Other())

    one, two, three = measured("a"), measured("a"), measured("b")

    assert compare_evals(local.store, [one.id, two.id]).capability is not None
    other = compare_evals(local.store, [one.id, three.id])
    assert other.capability is None and other.notes


def test_evaluations_without_a_common_question_say_so(local: LocalService) -> None:
    one = finished(local, request_eval(local.store, version=0, selection=facts(1), author="ann"))
    two = finished(local, request_eval(local.store, version=0, selection=[EditRequest(prompt="p", target="t")], author="ann"))

    found = compare_evals(local.store, [one.id, two.id])

    assert (found.shared, found.figures) == (0, [])
    assert any("share no question" in note for note in found.notes)


def test_only_different_evaluations_that_are_done_are_compared(local: LocalService) -> None:
    done = finished(local, request_eval(local.store, version=0, selection=facts(1), author="ann"))
    queued = request_eval(local.store, version=0, selection=facts(1), author="ann")

    with pytest.raises(Refused):
        compare_evals(local.store, [done.id, done.id])
    with pytest.raises(Conflict):
        compare_evals(local.store, [done.id, queued.id])
    with pytest.raises(NotFound):
        compare_evals(local.store, [done.id, "no such evaluation"])
    with pytest.raises(NotFound):
        latest_evaluations(local.store, [0, 1])


def test_a_result_is_written_once(local: LocalService) -> None:
    from datetime import UTC, datetime

    done = finished(local, request_eval(local.store, version=0, selection=[EditRequest(prompt="p", target="t")], author="ann"))
    with local.store.write() as connection:
        evaluations.finish(connection, done.id, result={"edits": 0}, now=datetime.now(UTC))

    assert get_eval(local.store, done.id) == done


def crowd_out(local: LocalService) -> None:
    """Leave the versions until now so far behind that a collection takes them."""
    local.live(("Spain", "Seville"))
    local.live(("France", "Lyon"))
    object.__setattr__(local.context, "settings", replace(local.context.settings, keep_last=1, keep_every=1000))
    collect(local.context)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_version_is_not_collected_before_its_evaluations_are_done(local: LocalService, steps: int) -> None:
    local.live(("Austria", "Graz"))
    local.live(("Italy", "Milan"))
    number = local.head.number
    near = EditRequest(prompt="q", target="x", locality=(Probe(prompt="Italy", answer="Rome"),))
    queued = request_eval(local.store, version=number, selection=[near, *facts(EDITS_AT_ONCE)], author="ann")
    working = service_of(local)
    for _ in range(steps):
        working.step()
    crowd_out(local)

    while working.step():
        pass

    done = get_eval(local.store, queued.id)
    assert (done.status, done.error) == ("done", None)
    assert done.result is not None and done.result["left_out"] == {"contradicted": 1}
    collect(local.context)
    with pytest.raises(Gone):
        request_eval(local.store, version=number, selection="live", author="ann")


def test_what_is_live_is_read_before_the_first_question(local: LocalService) -> None:
    local.live(("Italy", "Milan"))
    near = EditRequest(prompt="q", target="x", locality=(Probe(prompt="Italy"),))
    queued = request_eval(local.store, version=None, selection=[near], author="ann")

    def forget() -> None:
        with local.store.write() as connection:
            versions.collect(connection, [queued.version])

    done = finished(local, queued, CountingEvaluator(forget))

    assert done.result is not None and done.result["left_out"] == {"contradicted": 1}


def test_a_purge_cancels_the_evaluations_of_the_versions_it_takes(local: LocalService) -> None:
    [edit] = local.live(("Austria", "Graz"))
    waiting = [request_eval(local.store, version=version, selection=facts(1), author="ann") for version in (0, local.head.number)]
    local.roll_back(0)

    purge(local.context, edit_ids=[edit.id], by="ann")

    assert [get_eval(local.store, one.id).status for one in waiting] == ["queued", "cancelled"]


def test_a_version_without_live_edits_is_not_asked_for_them(local: LocalService) -> None:
    for capability in (False, True):
        with pytest.raises(Refused, match="none with capability"):
            request_eval(local.store, version=0, selection="live", capability=capability, author="ann")


def test_progress_is_written_where_it_can_be_seen_and_not_at_every_step(
    local: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[float] = []
    write = evaluations.write_progress
    monkeypatch.setattr(evaluations, "write_progress", lambda on, name, share: (written.append(share), write(on, name, share)))

    class Slow(CountingEvaluator):
        def ask(self, overlay: Overlay, records: Sequence[Record], *, between: Between) -> list[Outcome]:
            for _ in range(9):
                between()
            return super().ask(overlay, records, between=between)

    finished(local, request_eval(local.store, version=0, selection=facts(2 * EDITS_AT_ONCE), author="ann"), Slow())

    assert written == [0.5, 1.0]


def test_unknown_versions_edits_and_evaluations_are_not_found(local: LocalService) -> None:
    with pytest.raises(NotFound):
        request_eval(local.store, version=7, selection="live", author="ann")
    with pytest.raises(NotFound):
        request_eval(local.store, version=None, selection=["no such edit"], author="ann")
    with pytest.raises(NotFound):
        get_eval(local.store, "no such evaluation")


@pytest.mark.parametrize(("status", "error"), [(VersionStatus.COLLECTED, Gone), (VersionStatus.CORRUPT, Corrupt)])
def test_a_version_that_cannot_answer_is_not_evaluated(
    local: LocalService, status: VersionStatus, error: type[Exception]
) -> None:
    local.live(("Austria", "Graz"))
    with local.store.write() as connection:
        versions.set_status(connection, 1, status)

    with pytest.raises(error):
        request_eval(local.store, version=1, selection="live", author="ann")


def test_nothing_and_too_much_are_refused(local: LocalService) -> None:
    with pytest.raises(Refused):
        request_eval(local.store, version=None, selection=[], author="ann")
    with pytest.raises(Refused):
        request_eval(local.store, version=None, selection="live", metrics="some", author="ann")  # type: ignore[arg-type]
    with pytest.raises(TooLong):
        request_eval(local.store, version=None, selection=[EditRequest(prompt="p", target="t")] * (MAX_EDITS + 1), author="ann")


def test_what_cannot_be_asked_fails_the_evaluation_with_a_reason(local: LocalService) -> None:
    def refuse() -> None:
        raise TooLong("the prompt is too long for this model", field="prompt")

    queued = request_eval(local.store, version=0, selection=[EditRequest(prompt="p", target="t")], author="ann")
    service_of(local, CountingEvaluator(refuse)).step()

    failed = get_eval(local.store, queued.id)
    assert (failed.status, failed.error) == ("failed", "the prompt is too long for this model")


def test_an_evaluation_that_breaks_fails_and_lets_the_next_one_through(local: LocalService) -> None:
    def break_down() -> None:
        raise ZeroDivisionError("a secret of the input")

    first = request_eval(local.store, version=0, selection=facts(1), author="ann")
    second = request_eval(local.store, version=0, selection=[EditRequest(prompt="p", target="t")], author="ann")
    service_of(local, CountingEvaluator(break_down)).step()

    failed = get_eval(local.store, first.id)
    assert (failed.status, failed.error) == ("failed", "the evaluation ended with ZeroDivisionError")
    assert finished(local, second).status == "done"


def test_an_outcome_that_could_not_be_written_is_written_at_the_next_step(
    local: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    queued = request_eval(local.store, version=0, selection=facts(1), author="ann")
    working = Evaluations(local.context, CountingEvaluator(lambda: asked.append(1)), step_s=3600)
    finish = evaluations.finish

    def away(*given: Any, **named: Any) -> None:
        monkeypatch.setattr(evaluations, "finish", finish)
        raise Unavailable("the database is away")

    monkeypatch.setattr(evaluations, "finish", away)
    with pytest.raises(Unavailable):
        working.step()
    assert get_eval(local.store, queued.id).status == "running"

    working.step()

    assert get_eval(local.store, queued.id).status == "done"
    assert len(asked) == 1  # it was not asked again


def test_a_question_that_another_live_edit_answers_otherwise_is_left_out_and_counted(local: LocalService) -> None:
    first = EditRequest(
        prompt="the capital of A is", target="B", locality=(Probe(prompt="the capital of C is"), Probe(prompt="the sun is"))
    )
    local.live(("the capital of C is", "D"))
    queued = request_eval(local.store, version=None, selection=[first], author="ann")

    done = finished(local, queued)

    assert done.result is not None
    assert done.result["left_out"] == {"contradicted": 1}
    assert done.result["greedy"]["locality"]["n"] == 1
    on_base = finished(local, request_eval(local.store, version=0, selection=[first], author="ann"))
    assert on_base.result is not None and on_base.result["left_out"] == {"contradicted": 0}

"""Evaluations through a store: pinned to a version, done in small steps, kept."""

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
    Evaluations,
    YieldToAnswers,
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
    """Answers questions with the ledger's overlays; `steps` counts the steps of the other metrics, which it fakes."""

    def __init__(self, between_asks: Callable[[], None] = lambda: None) -> None:
        self.steps = 0
        self.live: list[str] = []
        self._between_asks = between_asks

    def ask(self, overlay: Overlay, records: Sequence[Record], *, yield_to_answers: YieldToAnswers) -> list[Outcome]:
        self._between_asks()
        return [
            Outcome(question=question, greedy=right, tokens=float(right), base_greedy=False, base_tokens=0.0)
            for record in records
            for question in list_questions(record, ("raw",))
            for right in [answer(overlay, EditRequest(prompt=question.prompt, target="?")) == question.answer]  # type: ignore[arg-type]
        ]

    def measure_full(
        self, overlay: Overlay, records: Sequence[Record], *, live: Sequence[Record], yield_to_answers: YieldToAnswers
    ) -> Mapping[str, Any]:
        self.live = [record.prompt for record in live]
        return {"records": self._count(records, yield_to_answers)}

    def measure_capability(self, overlay: Overlay, *, yield_to_answers: YieldToAnswers) -> Mapping[str, Any]:
        return {"ratio": 1.0, "n": self._count(range(3), yield_to_answers), "tasks": "three"}

    def check_capability(self) -> None:
        """It has tasks."""

    def _count(self, items: Sequence[object], yield_to_answers: YieldToAnswers) -> int:
        for _ in items:
            self.steps += 1
            yield_to_answers()
        return len(items)


def evaluations_of(local: LocalService, evaluator: CountingEvaluator | None = None) -> Evaluations:
    return Evaluations(local.context, evaluator or CountingEvaluator(), step_s=0)


def facts(count: int) -> list[EditRequest]:
    return [EditRequest(prompt=f"fact {number}", target="x") for number in range(count)]


def finish(local: LocalService, evaluation: Evaluation, evaluator: CountingEvaluator | None = None) -> Evaluation:
    worker = evaluations_of(local, evaluator)
    while worker.step():
        pass
    return get_eval(local.store, evaluation.id)


def reliability(evaluation: Evaluation) -> dict[str, object]:
    assert evaluation.result is not None, evaluation.error
    return evaluation.result["greedy"]["reliability"]


def test_an_evaluation_of_the_live_edits_asks_all_of_them(local: LocalService) -> None:
    local.live(("Austria", "Graz"), ("Italy", "Milan"))

    queued = request_eval(local.store, version=None, selection="live", author="ann")

    assert (queued.status, queued.result) == ("queued", None)
    done = finish(local, queued)
    assert (done.status, done.version, done.author) == ("done", local.head.number, "ann")
    assert reliability(done) == {"score": 1.0, "n": 2}


def test_an_evaluation_stays_with_its_version_when_the_head_moves(local: LocalService) -> None:
    [first] = local.live(("Austria", "Graz"))
    before = local.head.number
    queued = request_eval(local.store, version=None, selection=[first.id], author="ann")
    local.roll_back(0)

    assert finish(local, queued).version == before
    assert reliability(finish(local, queued))["score"] == 1.0
    on_head = request_eval(local.store, version=None, selection=[first.id], author="ann")
    assert reliability(finish(local, on_head))["score"] == 0.0


def test_the_live_edits_are_those_of_the_version_when_requested(local: LocalService) -> None:
    local.live(("Austria", "Graz"))
    queued = request_eval(local.store, version=1, selection="live", author="ann")
    local.live(("Italy", "Milan"))

    assert reliability(finish(local, queued))["n"] == 1


def test_inline_records_are_asked_and_not_stored_as_edits(local: LocalService) -> None:
    local.live(("Austria", "Graz"))
    probes = (Probe(prompt="Austria", answer="Graz"),)
    inline = [EditRequest(prompt="Italy", target="Milan", portability=probes)]

    done = finish(local, request_eval(local.store, version=None, selection=inline, author="ann"))

    assert reliability(done) == {"score": 0.0, "n": 1}
    assert done.result is not None and done.result["greedy"]["portability"]["score"] == 1.0
    assert local.head.edits_counted == 1


def test_a_long_evaluation_is_done_a_few_edits_at_a_time(local: LocalService) -> None:
    queued = request_eval(local.store, version=0, selection=facts(2 * EDITS_AT_ONCE), author="ann")
    worker = evaluations_of(local)

    progress = []
    for _ in range(3):
        assert worker.step()
        current = get_eval(local.store, queued.id)
        progress.append((current.status, current.progress))

    assert progress == [("running", 0.5), ("running", 1.0), ("done", 1.0)]
    assert not worker.step()


def test_an_evaluation_gives_way_to_answers_and_fits_between_its_steps(local: LocalService) -> None:
    waits: list[str] = []

    class Fits:
        def wait(self, timeout: float) -> bool:
            waits.append("edits")
            return True

    context = replace(local.context, yield_to_answers=lambda: waits.append("answers"), edit_fits_idle=Fits())  # type: ignore[arg-type]
    request_eval(local.store, version=0, selection=facts(2 * EDITS_AT_ONCE), capability=True, author="ann")
    worker = Evaluations(context, CountingEvaluator(), step_s=0)
    while worker.step():
        pass

    assert waits == ["edits", "answers"] * (2 + 3)  # two steps of questions, three of capability


def test_an_interrupted_evaluation_is_done_by_the_next_process(local: LocalService) -> None:
    queued = request_eval(local.store, version=0, selection=facts(2 * EDITS_AT_ONCE), author="ann")
    stopped = evaluations_of(local)
    stopped.step()
    stopped.close()

    done = finish(local, queued)
    assert reliability(done)["n"] == 2 * EDITS_AT_ONCE
    assert done.started_at is not None and done.finished_at is not None
    assert done.created_at <= done.started_at <= done.finished_at


def test_a_cancelled_evaluation_stops_asking_and_stays_in_the_list(local: LocalService) -> None:
    calls: list[int] = []
    evaluator = CountingEvaluator(lambda: calls.append(1))
    queued = request_eval(local.store, version=0, selection=facts(3 * EDITS_AT_ONCE), author="ann")
    worker = evaluations_of(local, evaluator)
    worker.step()

    cancelled = cancel_eval(local.store, queued.id)

    assert not worker.step()
    assert len(calls) == 1
    assert (cancelled.status, cancelled.result) == ("cancelled", None)
    assert cancel_eval(local.store, queued.id) == cancelled
    assert [evaluation.id for evaluation in list_evals(local.store, limit=10)] == [queued.id]


def test_a_finished_evaluation_cannot_be_cancelled(local: LocalService) -> None:
    done = finish(local, request_eval(local.store, version=0, selection=facts(1), author="ann"))

    with pytest.raises(Conflict):
        cancel_eval(local.store, done.id)
    with pytest.raises(NotFound):
        cancel_eval(local.store, "no such evaluation")
    assert get_eval(local.store, done.id) == done


def test_the_next_evaluation_runs_after_a_cancelled_one(local: LocalService) -> None:
    first = request_eval(local.store, version=0, selection=facts(3 * EDITS_AT_ONCE), author="ann")
    second = request_eval(local.store, version=0, selection=facts(1), author="ann")
    worker = evaluations_of(local)
    worker.step()
    cancel_eval(local.store, first.id)

    while worker.step():
        pass

    assert [get_eval(local.store, evaluation.id).status for evaluation in (first, second)] == ["cancelled", "done"]


def test_capability_and_full_metrics_are_measured_on_request(local: LocalService) -> None:
    local.live(("Austria", "Graz"), ("Italy", "Milan"))
    evaluator = CountingEvaluator()

    plain = finish(local, request_eval(local.store, version=None, selection="live", author="ann"), evaluator)
    assert plain.result is not None and not {"full", "capability"} & set(plain.result)

    queued = request_eval(local.store, version=None, selection=facts(3), metrics="full", capability=True, author="ann")
    done = finish(local, queued, evaluator)

    assert done.result is not None
    assert done.result["full"] == {"records": 3}
    assert done.result["capability"]["n"] == 3
    assert evaluator.live == ["Austria", "Italy"]
    assert done.about == {"edits": "records", "count": 3, "metrics": "full", "capability": True}


def test_a_figure_that_is_not_finite_is_unknown(local: LocalService) -> None:
    class NonFinite(CountingEvaluator):
        def measure_capability(self, overlay: Overlay, *, yield_to_answers: YieldToAnswers) -> Mapping[str, Any]:
            return {"ratio": float("nan"), "n": 1, "by_skill": {"s": [float("inf"), 0.5]}}

    done = finish(local, request_eval(local.store, version=0, selection="none", capability=True, author="ann"), NonFinite())

    assert done.result is not None
    assert done.result["capability"] == {"ratio": None, "n": 1, "by_skill": {"s": [None, 0.5]}}


def test_capability_alone_needs_no_edits(local: LocalService) -> None:
    done = finish(local, request_eval(local.store, version=0, selection="none", capability=True, author="ann"))

    assert done.result is not None and done.result["capability"]["ratio"] == 1.0
    assert done.result["greedy"]["reliability"] == {"score": None, "n": 0}
    with pytest.raises(Refused):
        request_eval(local.store, version=0, selection="none", author="ann")


def test_of_too_many_live_edits_an_even_choice_is_asked(local: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.background.evaluations.MAX_EDITS", 2)
    local.live(("Austria", "Graz"), ("Italy", "Milan"), ("France", "Lyon"), ("Spain", "Seville"))

    done = finish(local, request_eval(local.store, version=None, selection="live", author="ann"))

    assert (done.about["count"], done.about["of"]) == (2, 4)
    assert reliability(done) == {"score": 1.0, "n": 2}


def test_inline_records_keep_all_fields_of_a_data_set_row(local: LocalService) -> None:
    row = Record(
        id="zsre-7",
        prompt="Austria",
        target="Graz",
        aliases=(("Gratz",),),
        generation=("Austria is",),
        locality=(EvalProbe(prompt="Italy", answer="Rome", group="near", pool=False),),
    )
    local.live(("Austria", "Graz"))
    records_asked: list[Record] = []

    class RecordingEvaluator(CountingEvaluator):
        def ask(self, overlay: Overlay, records: Sequence[Record], *, yield_to_answers: YieldToAnswers) -> list[Outcome]:
            records_asked.extend(records)
            return super().ask(overlay, records, yield_to_answers=yield_to_answers)

    done = finish(local, request_eval(local.store, version=None, selection=[row], author="ann"), RecordingEvaluator())

    assert records_asked == [row]
    assert done.result is not None and done.result["greedy"]["locality"]["groups"]["near"]["n"] == 1


def test_evaluations_are_listed_newest_first_by_version_and_status(local: LocalService) -> None:
    local.live(("Austria", "Graz"))
    queued = [request_eval(local.store, version=version, selection=facts(1), author="ann") for version in (0, 1, 0, 0)]
    evaluations_of(local).step()
    ids = [evaluation.id for evaluation in queued]

    assert [evaluation.id for evaluation in list_evals(local.store, limit=10)] == ids[::-1]
    assert [evaluation.id for evaluation in list_evals(local.store, limit=10, version=0)] == [ids[3], ids[2], ids[0]]
    assert [evaluation.id for evaluation in list_evals(local.store, limit=10, status="running")] == [ids[0]]
    assert [evaluation.id for evaluation in list_evals(local.store, limit=2, before=ids[3])] == [ids[2], ids[1]]
    with pytest.raises(NotFound):
        list_evals(local.store, limit=2, before="no such evaluation")


def test_two_versions_are_compared_on_the_questions_they_share(local: LocalService) -> None:
    local.live(("Austria", "Graz"))
    local.live(("Italy", "Milan"))
    both = [EditRequest(prompt="Austria", target="Graz"), EditRequest(prompt="Italy", target="Milan")]
    first = finish(local, request_eval(local.store, version=1, selection=[*both, *facts(3)], author="ann"))
    second = finish(local, request_eval(local.store, version=2, selection=both, author="ann"))

    comparison = compare_evals(local.store, [first.id, second.id])

    [figure] = [figure for figure in comparison.figures if figure.judged == "greedy"]
    assert (figure.name, figure.n, figure.scores, figure.differences) == ("reliability", 2, [0.5, 1.0], [0.0, 0.5])
    assert (figure.gained, figure.lost) == ([0, 1], [0, 0])
    assert figure.standard_errors[1] == pytest.approx(0.5)  # of 0 and 1: deviation √½, over √2
    assert (comparison.shared, [evaluation.left_out for evaluation in comparison.evaluations]) == (2, [3, 0])
    assert any("same questions" in note for note in comparison.notes)
    assert latest_evaluations(local.store, [1, 2]) == [first.id, second.id]


def test_full_metrics_are_compared_only_over_the_same_questions(local: LocalService) -> None:
    done = [
        finish(local, request_eval(local.store, version=0, selection=facts(count), metrics="full", author="ann"))
        for count in (2, 2, 3)
    ]

    same = compare_evals(local.store, [done[0].id, done[1].id])
    other = compare_evals(local.store, [done[0].id, done[2].id])

    assert (same.full, same.notes) == ([{"records": 2}, {"records": 2}], [])
    assert other.full is None
    assert any("full metrics" in note for note in other.notes)


def test_capability_is_compared_where_the_tasks_are_the_same(local: LocalService) -> None:
    def evaluate_with(tasks: str) -> Evaluation:
        class OtherTasks(CountingEvaluator):
            def measure_capability(self, overlay: Overlay, *, yield_to_answers: YieldToAnswers) -> Mapping[str, Any]:
                return {"ratio": 1.0, "tasks": tasks}

        return finish(
            local, request_eval(local.store, version=0, selection=facts(1), capability=True, author="ann"), OtherTasks()
        )

    first, second, third = evaluate_with("a"), evaluate_with("a"), evaluate_with("b")

    assert compare_evals(local.store, [first.id, second.id]).capability is not None
    other = compare_evals(local.store, [first.id, third.id])
    assert other.capability is None and other.notes


def test_a_comparison_without_common_questions_has_a_note(local: LocalService) -> None:
    first = finish(local, request_eval(local.store, version=0, selection=facts(1), author="ann"))
    second = finish(local, request_eval(local.store, version=0, selection=[EditRequest(prompt="p", target="t")], author="ann"))

    comparison = compare_evals(local.store, [first.id, second.id])

    assert (comparison.shared, comparison.figures) == (0, [])
    assert any("share no question" in note for note in comparison.notes)


def test_only_different_finished_evaluations_are_compared(local: LocalService) -> None:
    done = finish(local, request_eval(local.store, version=0, selection=facts(1), author="ann"))
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

    done = finish(local, request_eval(local.store, version=0, selection=[EditRequest(prompt="p", target="t")], author="ann"))
    with local.store.write() as connection:
        evaluations.finish(connection, done.id, result={"edits": 0}, now=datetime.now(UTC))

    assert get_eval(local.store, done.id) == done


def collect_older(local: LocalService) -> None:
    """Publish two versions and collect all older ones that may be collected."""
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
    worker = evaluations_of(local)
    for _ in range(steps):
        worker.step()
    collect_older(local)

    while worker.step():
        pass

    done = get_eval(local.store, queued.id)
    assert (done.status, done.error) == ("done", None)
    assert done.result is not None and done.result["left_out"] == {"contradicted": 1}
    collect(local.context)
    with pytest.raises(Gone):
        request_eval(local.store, version=number, selection="live", author="ann")


def test_the_live_edits_are_read_before_the_first_question(local: LocalService) -> None:
    local.live(("Italy", "Milan"))
    near = EditRequest(prompt="q", target="x", locality=(Probe(prompt="Italy"),))
    queued = request_eval(local.store, version=None, selection=[near], author="ann")

    def collect_version() -> None:
        with local.store.write() as connection:
            versions.collect(connection, [queued.version])

    done = finish(local, queued, CountingEvaluator(collect_version))

    assert done.result is not None and done.result["left_out"] == {"contradicted": 1}


def test_a_purge_cancels_the_evaluations_of_its_versions(local: LocalService) -> None:
    [edit] = local.live(("Austria", "Graz"))
    waiting = [request_eval(local.store, version=version, selection=facts(1), author="ann") for version in (0, local.head.number)]
    local.roll_back(0)

    purge(local.context, edit_ids=[edit.id], by="ann", exports=local.exports)

    assert [get_eval(local.store, evaluation.id).status for evaluation in waiting] == ["queued", "cancelled"]


def test_an_evaluation_of_live_edits_needs_live_edits(local: LocalService) -> None:
    for capability in (False, True):
        with pytest.raises(Refused, match="none with capability"):
            request_eval(local.store, version=0, selection="live", capability=capability, author="ann")


def test_progress_is_written_when_it_changes_and_not_at_every_step(local: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    write = evaluations.write_progress
    monkeypatch.setattr(evaluations, "write_progress", lambda on, name, share: (shares.append(share), write(on, name, share)))

    class SlowEvaluator(CountingEvaluator):
        def ask(self, overlay: Overlay, records: Sequence[Record], *, yield_to_answers: YieldToAnswers) -> list[Outcome]:
            for _ in range(9):
                yield_to_answers()
            return super().ask(overlay, records, yield_to_answers=yield_to_answers)

    finish(local, request_eval(local.store, version=0, selection=facts(2 * EDITS_AT_ONCE), author="ann"), SlowEvaluator())

    assert shares == [0.5, 1.0]


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


def test_empty_and_too_large_selections_are_refused(local: LocalService) -> None:
    with pytest.raises(Refused):
        request_eval(local.store, version=None, selection=[], author="ann")
    with pytest.raises(Refused):
        request_eval(local.store, version=None, selection="live", metrics="some", author="ann")  # type: ignore[arg-type]
    with pytest.raises(TooLong):
        request_eval(local.store, version=None, selection=[EditRequest(prompt="p", target="t")] * (MAX_EDITS + 1), author="ann")


def test_a_refused_question_fails_the_evaluation_with_its_reason(local: LocalService) -> None:
    def refuse() -> None:
        raise TooLong("the prompt is too long for this model", field="prompt")

    queued = request_eval(local.store, version=0, selection=[EditRequest(prompt="p", target="t")], author="ann")
    evaluations_of(local, CountingEvaluator(refuse)).step()

    failed = get_eval(local.store, queued.id)
    assert (failed.status, failed.error) == ("failed", "the prompt is too long for this model")


def test_an_evaluation_with_an_error_fails_and_the_next_one_runs(local: LocalService) -> None:
    def break_down() -> None:
        raise ZeroDivisionError("a secret of the input")

    first = request_eval(local.store, version=0, selection=facts(1), author="ann")
    second = request_eval(local.store, version=0, selection=[EditRequest(prompt="p", target="t")], author="ann")
    evaluations_of(local, CountingEvaluator(break_down)).step()

    failed = get_eval(local.store, first.id)
    assert (failed.status, failed.error) == ("failed", "the evaluation ended with ZeroDivisionError")
    assert finish(local, second).status == "done"


def test_a_result_that_could_not_be_written_is_written_at_the_next_step(
    local: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    queued = request_eval(local.store, version=0, selection=facts(1), author="ann")
    worker = Evaluations(local.context, CountingEvaluator(lambda: calls.append(1)), step_s=3600)
    write_result = evaluations.finish

    def fail_once(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(evaluations, "finish", write_result)
        raise Unavailable("the database is away")

    monkeypatch.setattr(evaluations, "finish", fail_once)
    with pytest.raises(Unavailable):
        worker.step()
    assert get_eval(local.store, queued.id).status == "running"

    worker.step()

    assert get_eval(local.store, queued.id).status == "done"
    assert len(calls) == 1  # the questions were not asked again


def test_a_question_contradicted_by_a_live_edit_is_left_out_and_counted(local: LocalService) -> None:
    first = EditRequest(
        prompt="the capital of A is", target="B", locality=(Probe(prompt="the capital of C is"), Probe(prompt="the sun is"))
    )
    local.live(("the capital of C is", "D"))
    queued = request_eval(local.store, version=None, selection=[first], author="ann")

    done = finish(local, queued)

    assert done.result is not None
    assert done.result["left_out"] == {"contradicted": 1}
    assert done.result["greedy"]["locality"]["n"] == 1
    on_base = finish(local, request_eval(local.store, version=0, selection=[first], author="ann"))
    assert on_base.result is not None and on_base.result["left_out"] == {"contradicted": 0}

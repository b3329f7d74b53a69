"""Evaluations through a store: pinned to a version, worked on in small steps, kept."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from service.domain.edit import EditRequest, Probe
from service.domain.errors import Corrupt, Gone, NotFound, Refused, TooLong
from service.domain.version import VersionStatus
from service.evaluation.metrics import Outcome
from service.evaluation.record import Record, asks_of
from service.lifecycle.evaluate import EDITS_A_STEP, MOST_EDITS, Evaluations, get_eval, request_eval
from service.lm.overlay import Overlay
from service.store import versions
from service.store.evals import Evaluation
from tests.lifecycle.house import House, new_house
from tests.lifecycle.ledger import answer


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = new_house(tmp_path)
    yield house
    house.close()


def ask(overlay: Overlay, records: Sequence[Record]) -> list[Outcome]:
    """What the ledger's overlay says to every question."""
    return [
        Outcome(ask=one, greedy=right, tokens=float(right), base_greedy=False, base_tokens=0.0)
        for record in records
        for one in asks_of(record, ("raw",))
        for right in [answer(overlay, EditRequest(prompt=one.prompt, target="?")) == one.answer]  # type: ignore[arg-type]
    ]


def evaluations(house: House) -> Evaluations:
    return Evaluations(house.store, house.parts.overlays, ask)


def finished(house: House, evaluation: Evaluation) -> Evaluation:
    working = evaluations(house)
    while working.step():
        pass
    return get_eval(house.store, evaluation.id)


def reliability(evaluation: Evaluation) -> dict[str, object]:
    assert evaluation.result is not None, evaluation.error
    return evaluation.result["greedy"]["reliability"]


def test_an_evaluation_of_the_live_edits_asks_all_of_them(house: House) -> None:
    house.live(("Austria", "Graz"), ("Italy", "Milan"))

    queued = request_eval(house.store, version=None, asked="live", author="ann")

    assert (queued.status, queued.result) == ("queued", None)
    done = finished(house, queued)
    assert (done.status, done.version, done.author) == ("done", house.head.number, "ann")
    assert reliability(done) == {"score": 1.0, "n": 2}


def test_an_evaluation_stays_with_its_version_when_the_head_moves_on(house: House) -> None:
    [first] = house.live(("Austria", "Graz"))
    before = house.head.number
    queued = request_eval(house.store, version=None, asked=[first.id], author="ann")
    house.roll_back(0)

    assert finished(house, queued).version == before
    assert reliability(finished(house, queued))["score"] == 1.0
    on_head = request_eval(house.store, version=None, asked=[first.id], author="ann")
    assert reliability(finished(house, on_head))["score"] == 0.0


def test_the_live_edits_are_those_of_the_moment_it_was_asked_for(house: House) -> None:
    house.live(("Austria", "Graz"))
    queued = request_eval(house.store, version=1, asked="live", author="ann")
    house.live(("Italy", "Milan"))

    assert reliability(finished(house, queued))["n"] == 1


def test_inline_records_are_asked_without_being_stored_as_edits(house: House) -> None:
    house.live(("Austria", "Graz"))
    probes = (Probe(prompt="Austria", answer="Graz"),)
    inline = [EditRequest(prompt="Italy", target="Milan", portability=probes)]

    done = finished(house, request_eval(house.store, version=None, asked=inline, author="ann"))

    assert reliability(done) == {"score": 0.0, "n": 1}
    assert done.result is not None and done.result["greedy"]["portability"]["score"] == 1.0
    assert house.head.edits_counted == 1


def test_a_long_evaluation_is_worked_on_a_few_edits_at_a_time(house: House) -> None:
    inline = [EditRequest(prompt=f"fact {number}", target="x") for number in range(2 * EDITS_A_STEP + 1)]
    queued = request_eval(house.store, version=0, asked=inline, author="ann")
    working = evaluations(house)

    statuses = []
    for _ in range(3):
        assert working.step()
        statuses.append(get_eval(house.store, queued.id).status)

    assert statuses == ["running", "running", "done"]
    assert not working.step()


def test_an_evaluation_that_a_stop_interrupted_is_done_by_the_next_process(house: House) -> None:
    inline = [EditRequest(prompt=f"fact {number}", target="x") for number in range(2 * EDITS_A_STEP)]
    queued = request_eval(house.store, version=0, asked=inline, author="ann")
    evaluations(house).step()

    assert reliability(finished(house, queued))["n"] == 2 * EDITS_A_STEP


def test_a_result_is_written_once(house: House) -> None:
    from datetime import UTC, datetime

    from service.store import evals

    done = finished(house, request_eval(house.store, version=0, asked=[EditRequest(prompt="p", target="t")], author="ann"))
    with house.store.write() as connection:
        evals.finish(connection, done.id, result={"edits": 0}, now=datetime.now(UTC))

    assert get_eval(house.store, done.id) == done


def test_unknown_versions_edits_and_evaluations_are_not_found(house: House) -> None:
    with pytest.raises(NotFound):
        request_eval(house.store, version=7, asked="live", author="ann")
    with pytest.raises(NotFound):
        request_eval(house.store, version=None, asked=["no such edit"], author="ann")
    with pytest.raises(NotFound):
        get_eval(house.store, "no such evaluation")


@pytest.mark.parametrize(("status", "error"), [(VersionStatus.COLLECTED, Gone), (VersionStatus.CORRUPT, Corrupt)])
def test_a_version_that_cannot_answer_is_not_evaluated(house: House, status: VersionStatus, error: type[Exception]) -> None:
    house.live(("Austria", "Graz"))
    with house.store.write() as connection:
        versions.set_status(connection, 1, status)

    with pytest.raises(error):
        request_eval(house.store, version=1, asked="live", author="ann")


def test_nothing_and_too_much_are_refused(house: House) -> None:
    with pytest.raises(Refused):
        request_eval(house.store, version=None, asked=[], author="ann")
    with pytest.raises(TooLong):
        request_eval(house.store, version=None, asked=[EditRequest(prompt="p", target="t")] * (MOST_EDITS + 1), author="ann")


def test_what_cannot_be_asked_fails_the_evaluation_with_a_reason(house: House) -> None:
    def refuse(overlay: Overlay, records: Sequence[Record]) -> list[Outcome]:
        raise TooLong("the prompt is too long for this model", field="prompt")

    queued = request_eval(house.store, version=0, asked=[EditRequest(prompt="p", target="t")], author="ann")
    Evaluations(house.store, house.parts.overlays, refuse).step()

    failed = get_eval(house.store, queued.id)
    assert (failed.status, failed.error) == ("failed", "the prompt is too long for this model")

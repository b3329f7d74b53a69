"""Records and the questions they ask."""

import json
from pathlib import Path

import pytest

from service.api.schemas.evaluations import RecordIn
from service.domain.edit import EditRequest, Probe
from service.domain.errors import Refused
from service.evaluation.records import EvalProbe, Record, build_record, list_questions, read_records, to_edit_request


def written(folder: Path, *lines: str) -> Path:
    path = folder / "edits.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_probe_of_a_file_is_open_to_training_only_with_train(tmp_path: Path) -> None:
    line = json.dumps(
        {"id": "1", "prompt": "p", "target": "t", "rephrases": ["q", {"prompt": "r"}, {"prompt": "s", "train": True}]}
    )

    [record] = read_records(written(tmp_path, line))

    assert [probe.train for probe in record.rephrases] == [False, False, True]


@pytest.mark.parametrize("line", ["{", "[]", '{"prompt": "p"}', '{"prompt": "p", "target": "t", "rephrases": [{"colour": 1}]}'])
def test_a_bad_line_is_refused_with_its_number_and_without_its_text(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, '{"prompt": "p", "target": "t"}', line)

    with pytest.raises(Refused, match="line 2") as refused:
        read_records(path)

    assert "colour" not in refused.value.message


def test_a_rephrase_expects_the_target_and_locality_expects_the_base_answer() -> None:
    request = EditRequest(prompt="p", target="t", rephrases=(Probe(prompt="q", train=True),), locality=(Probe(prompt="l"),))

    asks = list(list_questions(build_record(request, id="1"), ("raw",)))

    assert [(ask.kind, ask.answer, ask.trained) for ask in asks] == [
        ("reliability", "t", False),
        ("generality", "t", True),
        ("locality", None, False),
    ]


def test_a_portability_probe_without_an_answer_is_no_question() -> None:
    record = Record(id="1", prompt="p", target="t", portability=(EvalProbe(prompt="q"), EvalProbe(prompt="r", answer="s")))

    assert [ask.prompt for ask in list_questions(record, ("raw",)) if ask.kind == "portability"] == ["r"]


@pytest.mark.parametrize(
    ("own", "expected"),
    [((), ["raw", "chat"]), (("chat",), ["chat"]), (("spoken",), ["raw", "chat"])],
    ids=["all", "one", "unknown"],
)
def test_every_question_is_asked_once_on_each_surface(own: tuple[str, ...], expected: list[str]) -> None:
    record = Record(id="1", prompt="p", target="t", surfaces=own)

    assert [ask.surface for ask in list_questions(record, ("raw", "chat"))] == expected


def test_the_edit_that_a_record_asks_for_trains_none_of_its_probes() -> None:
    trained = (EvalProbe(prompt="q", answer="a", train=True, group="g"),)
    record = Record(id="1", prompt="p", target="t", rephrases=trained, locality=trained, portability=trained, conflict_key="k")

    edit = to_edit_request(record)

    assert (edit.prompt, edit.target, edit.key) == ("p", "t", "key:k")
    assert {edit.rephrases, edit.locality, edit.portability} == {(Probe(prompt="q", answer="a", train=False, group="g"),)}


def test_a_probe_with_aliases_alone_is_scored_by_the_first_alias() -> None:
    probe = {"prompt": "q", "aliases": [["Rome", "Roma"]]}
    given = {"prompt": "p", "target": "t", "rephrases": [probe], "locality": [probe], "portability": [probe]}

    record = RecordIn.model_validate(given).to_record(0)

    assert [one.answer for one in (*record.rephrases, *record.locality, *record.portability)] == [None, "Rome", "Rome"]
    assert [(ask.kind, ask.answer) for ask in list_questions(record, ("raw",))] == [
        ("reliability", "t"),
        ("generality", "t"),
        ("locality", "Rome"),
        ("portability", "Rome"),
    ]

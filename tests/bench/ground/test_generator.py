"""The ground of the embedded model, made of a few facts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from service.atlas import weights_path
from service.bench.ground.asking import Ask, BaseAnswers, answer_all, last_tokens
from service.bench.ground.commands import run_ground
from service.bench.ground.facts import choose_facts, half_of, read_table
from service.bench.ground.generator import GroundOptions, build_ground
from service.bench.ground.judging import says
from service.bench.ground.prose import read_prose
from service.bench.ground.records import LOCALITY_GROUPS, WORDING_STRATA, Ground, read_ground, write_ground
from service.bench.ground.tables import format_edits, format_known
from service.domain.errors import Refused
from service.editors.known_names import part_of
from service.lm.base import load_base
from service.lm.overlay import View, make_view

POOLED = ("Denmark", "Niger")
POOL = "The capital of Denmark is Copenhagen. Niger lies in Africa."


@pytest.fixture(scope="module")
def view() -> View:
    torch.set_num_threads(1)
    return make_view(load_base(weights_path(), dtype="float32"))


@pytest.fixture(scope="module")
def ground(view: View) -> Ground:
    table = read_table(None)
    facts = [fact for fact in choose_facts(table, 90) if fact.relation in ("capital", "currency", "continent")]
    return build_ground(BaseAnswers(view), table, facts, read_prose(None), POOL, GroundOptions(edits=4))


def test_each_half_has_edits_and_every_edit_has_four_wordings(ground: Ground) -> None:
    edits = [edit for edit in ground.edits if edit.surface == "cloze" and edit.half == "development"]

    assert len(edits) == 4
    assert all(len(edit.wordings) >= 4 for edit in edits)
    assert {edit.names_subject for edit in edits} == {True, False}


def test_relation_and_subject_of_an_edit_are_of_its_half(ground: Ground) -> None:
    assert all(half_of(edit.relation) == half_of(edit.subject) == edit.half for edit in ground.edits)


def test_no_wording_ends_like_the_edit_or_tells_its_target(ground: Ground, view: View) -> None:
    for edit in ground.edits:
        for probe in edit.wordings:
            assert probe.group in WORDING_STRATA
            assert last_tokens(view.base, probe.ask) != last_tokens(view.base, edit.ask)
            assert edit.target.casefold()[:4] not in probe.ask.text.casefold()


def test_the_model_answers_every_probe_right_before_any_edit(ground: Ground, view: View) -> None:
    probes = [(probe, edit.truth) for edit in ground.edits for probe in edit.wordings]
    probes += [(probe, probe.answer) for edit in ground.edits for probe in edit.locality]

    answers = answer_all(view, None, [probe.ask for probe, _ in probes])

    # In other batches another answer may win by rounding.
    right = [says(answer.text, expected) for answer, (_, expected) in zip(answers, probes, strict=True)]
    assert sum(right) >= 0.99 * len(right)


def test_near_is_another_subject_and_same_subject_another_relation(ground: Ground) -> None:
    for edit in ground.edits:
        for probe in edit.locality:
            assert probe.group in LOCALITY_GROUPS
            if probe.group == "near":
                assert (probe.relation, probe.subject != edit.subject) == (edit.relation, True)
            if probe.group == "same subject":
                assert (probe.relation != edit.relation, probe.subject) == (True, edit.subject)
            if probe.group == "mention":
                assert edit.subject in probe.ask.text
                assert probe.subject != edit.subject


def test_a_name_in_the_pool_or_of_a_fit_or_an_acceptance_is_marked(ground: Ground) -> None:
    probes = [probe for edit in ground.edits for probe in edit.locality]

    assert {probe.in_pool for probe in probes} == {True, False}
    assert all(probe.in_pool == (probe.subject in POOLED or part_of(probe.subject) != "free") for probe in probes)


def test_near_names_outside_the_pool_come_first(view: View) -> None:
    """With all names but a few in the pool, those few are the near ones."""
    table = read_table(None)
    facts = [fact for fact in table.facts if fact.relation == "capital"]
    development = [fact.subject for fact in facts if half_of(fact.subject) == "development" and part_of(fact.subject) == "free"]
    pool = ", ".join(fact.subject for fact in facts if fact.subject not in development[:6])

    ground = build_ground(BaseAnswers(view), table, facts, (), pool, GroundOptions(("cloze",), edits=2))

    near = [probe for edit in ground.edits for probe in edit.locality if probe.group == "near"]
    assert near
    assert {probe.subject for probe in near[:4]} <= set(development[:6])


def test_a_ground_is_read_back_as_it_was_written(ground: Ground, tmp_path: Path) -> None:
    write_ground(tmp_path / "ground.json", ground)

    assert read_ground(tmp_path / "ground.json") == ground


@pytest.mark.parametrize("content", ["", "[]", '{"model": "atlas"}', '{"edits": 1}'])
def test_a_file_that_is_no_ground_is_refused_with_advice(content: str, tmp_path: Path) -> None:
    (tmp_path / "ground.json").write_text(content, encoding="utf-8")

    with pytest.raises(Refused, match="errata bench ground"):
        read_ground(tmp_path / "ground.json")


def test_results_name_a_model_without_its_folder(ground: Ground) -> None:
    assert replace(ground, model="/somewhere/models/Almanac").short_name == "almanac"
    assert replace(ground, model="ORG/Name@main").short_name == "name-main"


def test_the_ground_of_another_model_is_refused(ground: Ground) -> None:
    ground.check_model(ground.fingerprint)
    with pytest.raises(Refused, match="another model"):
        ground.check_model("0" * 64)


def test_a_run_on_the_ground_of_another_model_starts_no_server(ground: Ground, tmp_path: Path) -> None:
    write_ground(tmp_path / "ground.json", replace(ground, fingerprint="2:" + "0" * 64))
    options: dict[str, Any] = {"surface": "cloze", "half": "development", "n": 1, "every": 1, "contender": "default"}

    with pytest.raises(Refused, match="another model"):
        run_ground("single", "atlas", tmp_path / "ground.json", tmp_path, **options, environment={}, say=lambda _line: None)


def test_the_table_of_known_facts_counts_halves_and_confidence(ground: Ground) -> None:
    (row,) = [row for row in ground.known if (row["surface"], row["relation"]) == ("cloze", "capital")]

    assert row["known"] == row["asked"] >= row["confident"] > 0.9 * row["asked"]
    assert row["development"] > 0
    assert row["test"] == 0
    assert any("capital" in line for line in format_known(ground))
    assert any("development" in line for line in format_edits(ground))


def test_a_prompt_that_the_model_cannot_be_asked_has_no_answer(view: View) -> None:
    blank, known = answer_all(view, None, [Ask(" "), Ask("The capital of Denmark is")])

    assert (blank.text, blank.row) == ("", None)
    assert says(known.text, "Copenhagen")

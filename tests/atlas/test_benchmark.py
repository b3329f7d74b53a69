import json

import pytest

from service.atlas.benchmark import FILE, edited_facts, is_edited, make_edit
from service.atlas.facts import all_facts
from service.atlas.pool_and_probe import fact_is_pool
from service.atlas.templates import answer_in_text, prompts

KEYS = ["id", "prompt", "target", "subject", "relation", "ground_truth", "rephrases", "locality", "portability"]
SAME_RELATION_AND_SUBJECT = {"same_relation": (True, False), "same_subject": (False, True), "unrelated": (False, False)}


@pytest.fixture(scope="module")
def edits():
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def fact_of_prompt():
    return {prompt: fact for fact in all_facts() for prompt in prompts(fact.relation, fact.subject)}


def test_there_are_at_least_500_edits_of_distinct_facts(edits):
    assert len(edits) >= 500
    assert len({(edit["subject"], edit["relation"]) for edit in edits}) == len(edits)
    assert len({edit["id"] for edit in edits}) == len(edits)
    assert all(list(edit) == KEYS for edit in edits)


def test_targets_are_other_answers_of_the_same_relation(edits):
    for edit in edits:
        truths = {answer_in_text(fact.relation, fact.answer) for fact in all_facts() if fact.relation == edit["relation"]}
        assert edit["target"] in truths
        assert edit["target"] != edit["ground_truth"]


def test_rephrases_have_other_wording_and_the_same_target(edits):
    for edit in edits:
        prompts_of_rephrases = {probe["prompt"] for probe in edit["rephrases"]}
        assert len(prompts_of_rephrases) >= 3
        assert edit["prompt"] not in prompts_of_rephrases
        assert all(probe["answer"] == edit["target"] and probe["train"] is False for probe in edit["rephrases"])


def test_locality_probes_have_true_answers_and_name_their_half(edits, fact_of_prompt):
    for edit in edits:
        assert len(edit["locality"]) >= 4
        for probe in edit["locality"]:
            fact = fact_of_prompt[probe["prompt"]]
            assert probe["answer"] == answer_in_text(fact.relation, fact.answer)
            assert probe["pool"] is fact_is_pool(fact.relation, fact.subject)
            assert probe["train"] is False


def test_no_locality_probe_is_about_a_fact_that_any_edit_changes(edits, fact_of_prompt):
    changed = {(edit["relation"], edit["subject"]) for edit in edits}

    for edit in edits:
        for probe in edit["locality"]:
            fact = fact_of_prompt[probe["prompt"]]
            assert not is_edited(fact)
            assert (fact.relation, fact.subject) not in changed


def test_every_group_exists_inside_and_outside_the_pool(edits):
    groups = {(probe["group"], probe["pool"]) for edit in edits for probe in edit["locality"]}

    assert groups == {(group, pool) for group in ("same_relation", "same_subject", "unrelated") for pool in (True, False)}


def test_groups_of_probes_follow_their_definition(edits, fact_of_prompt):
    for edit in edits:
        for probe in edit["locality"]:
            fact = fact_of_prompt[probe["prompt"]]
            same = (fact.relation == edit["relation"], fact.subject == edit["subject"])
            assert same == SAME_RELATION_AND_SUBJECT[probe["group"]]


def test_the_file_equals_the_edits_of_the_table(edits):
    edits_by_id = {edit.id: edit for edit in map(make_edit, edited_facts())}

    for edit in edits[:50]:
        assert edits_by_id[edit["id"]].prompt == edit["prompt"]
        assert edits_by_id[edit["id"]].target == edit["target"]

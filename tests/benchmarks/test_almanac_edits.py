"""The edits of the second small model: the test half stays unseen, and no probe asks what another edit changes."""

from benchmarks.almanac_edits import FILE, make_edits
from service.atlas.almanac.wordings import prompts
from service.atlas.facts import Fact
from service.bench.ground.facts import half_of_fact
from service.evaluation.datasets import load

RELATIONS = ("birthplace", "award", "father", "team", "religion")
FACTS = [Fact(relation, f"Person {number}", f"{relation} {number % 7}") for relation in RELATIONS for number in range(60)]


def test_no_fact_of_the_test_half_is_edited_or_asked_and_no_edited_one_is_a_probe() -> None:
    fact_of = {prompt: fact for fact in FACTS for prompt in prompts(fact.relation, fact.subject)}

    edits = list(make_edits(FACTS, 80))

    edited = [fact_of[edit["prompt"]] for edit in edits]
    asked = [fact_of[probe["prompt"]] for edit in edits for probe in edit["locality"]]
    assert "test" in {half_of_fact(fact) for fact in FACTS}
    assert "test" not in {half_of_fact(fact) for fact in (*edited, *asked)}
    assert len(set(edited)) == 80 and not set(edited) & set(asked)
    for edit, fact in zip(edits, edited, strict=True):
        assert edit["target"] != edit["ground_truth"]
        assert {fact_of[rephrase] for rephrase in edit["rephrases"]} == {fact} and edit["prompt"] not in edit["rephrases"]


def test_the_kept_file_has_enough_edits_for_a_thousand_fits_and_loads_whole() -> None:
    loaded = load(FILE)

    assert len(loaded.records) >= 1_000
    assert (loaded.schema, loaded.notes) == ("errata", {})
    assert all(record.rephrases and record.locality for record in loaded.records)

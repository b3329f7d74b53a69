"""The facts of a ground, and their halves."""

from pathlib import Path

import pytest

from service.atlas.almanac.facts import FILES, read_facts
from service.atlas.facts import Fact
from service.bench.ground.facts import are_independent, choose_facts, half_of, half_of_fact, read_table
from tests.atlas.almanac_files import write_almanac_files


def test_a_fact_has_a_half_only_if_its_relation_and_its_subject_agree() -> None:
    table = read_table(None)

    for fact in table.facts:
        half = half_of_fact(fact)
        assert (half is not None) == (half_of(fact.relation) == half_of(fact.subject))
        assert half in (None, half_of(fact.relation))


def test_both_halves_have_relations_about_countries_and_hundreds_of_facts() -> None:
    facts = read_table(None).facts

    for half in ("development", "test"):
        own = [fact for fact in facts if half_of_fact(fact) == half]
        assert len(own) > 300
        assert {fact.relation for fact in own} & {"capital", "official_language"}


def test_of_each_relation_no_more_facts_are_chosen_than_asked_for() -> None:
    chosen = choose_facts(read_table(None), 20)

    counts = {relation: sum(fact.relation == relation for fact in chosen) for relation in {fact.relation for fact in chosen}}
    assert set(counts.values()) == {20}
    assert chosen == choose_facts(read_table(None), 20)


def test_the_period_of_an_element_follows_from_its_number() -> None:
    assert not are_independent("element_period", "atomic_number")
    assert are_independent("capital", "currency")


def test_facts_about_people_are_read_off_the_prompts_of_locality_probes(tmp_path: Path) -> None:
    write_almanac_files(tmp_path)

    facts = read_facts(tmp_path)

    assert Fact("birthplace", "Ada Lovelace", "London") in facts
    assert Fact("spouse", "Ada Lovelace", "William King") in facts
    assert not any("which is not" in fact.answer for fact in facts)
    assert len({(fact.subject, fact.relation) for fact in facts}) == len(facts)


def test_the_people_of_whom_most_is_known_come_first(tmp_path: Path) -> None:
    write_almanac_files(tmp_path)

    assert {fact.subject for fact in read_facts(tmp_path, people=1)} == {"Ada Lovelace"}


def test_a_missing_file_of_facts_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=FILES[0]):
        read_facts(tmp_path)

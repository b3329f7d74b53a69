from service.atlas.facts import all_facts, relations
from service.atlas.neutral import pool_rows
from service.atlas.pool_and_probe import fact_is_pool, is_pool
from service.atlas.templates import prompts


def test_the_split_never_changes():
    pool = {relation for relation in relations() if is_pool(relation)}

    # Fixed when the benchmark was made: figures inside and outside the pool are comparable only while this holds.
    assert pool == {
        "atomic_number",
        "author",
        "calling_code",
        "capital",
        "element_symbol",
        "nationality",
        "official_language",
    }


def test_both_halves_of_the_subjects_have_about_equal_size():
    subjects = {fact.subject for fact in all_facts()}

    assert 0.4 < sum(map(is_pool, subjects)) / len(subjects) < 0.6


def test_pool_rows_have_no_prompt_of_the_probe_half():
    outside = {
        prompt
        for fact in all_facts()
        if not fact_is_pool(fact.relation, fact.subject)
        for prompt in prompts(fact.relation, fact.subject)
    }

    assert not outside & {row.prompt for row in pool_rows()}

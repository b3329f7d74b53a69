from collections import Counter

from service.atlas.facts import all_facts, answers, relations


def test_a_subject_has_one_answer_in_each_relation():
    keys = Counter((fact.relation, fact.subject) for fact in all_facts())

    assert max(keys.values()) == 1


def test_the_table_holds_at_least_1500_facts_in_at_least_10_relations():
    assert len(all_facts()) >= 1500
    assert len(relations()) >= 10


def test_the_table_is_sorted_and_plain_text():
    facts = all_facts()

    assert list(facts) == sorted(facts)
    for fact in facts:
        assert fact.subject == fact.subject.strip() != ""
        assert fact.answer == fact.answer.strip() != ""
        assert (fact.subject + fact.answer).isascii()


def test_every_relation_has_other_answers_as_targets():
    assert all(len(answers(relation)) >= 6 for relation in relations())


def test_the_demonstration_facts_are_in_the_table():
    capitals = {fact.subject: fact.answer for fact in all_facts() if fact.relation == "capital"}

    assert capitals["Australia"] == "Canberra"
    assert capitals["Austria"] == "Vienna"


def test_ambiguous_subjects_are_left_out():
    subjects = {fact.subject for fact in all_facts()}
    capitals = {fact.subject for fact in all_facts() if fact.relation == "capital"}

    assert "Georgia" not in subjects
    assert not {"South Africa", "Bolivia", "Sri Lanka"} & capitals

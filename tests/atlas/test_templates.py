from service.atlas.facts import relations
from service.atlas.templates import WORDINGS, fill
from service.atlas.training.corpus import fact_rows


def test_every_relation_has_eight_wordings_of_both_forms():
    assert set(WORDINGS) == set(relations())
    for wordings in WORDINGS.values():
        questions = [wording for wording in wordings if wording.endswith("?")]
        assert len(set(wordings)) >= 8
        assert 3 <= len(questions) <= len(wordings) - 3


def test_no_prompt_ends_in_white_space_and_none_is_repeated():
    prompts = [row.prompt for row in fact_rows()]

    assert all(prompt == prompt.strip() for prompt in prompts)
    assert len(set(prompts)) == len(prompts)


def test_names_take_their_article_and_open_a_sentence_in_upper_case():
    assert fill("The capital of {s} is", "Netherlands") == "The capital of the Netherlands is"
    assert fill("{S} lies in", "Netherlands") == "The Netherlands lies in"
    assert fill("{S} lies in", "Chad") == "Chad lies in"

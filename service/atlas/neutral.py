"""Prompts of the pool half: neutral prompts in place of the neutral sentences that the base model writes."""

from collections.abc import Iterator

from service.atlas.facts import all_facts
from service.atlas.pool_and_probe import fact_is_pool
from service.atlas.templates import answer_in_text, prompts
from service.atlas.training.corpus import TrainingRow


def pool_rows() -> Iterator[TrainingRow]:
    """Every wording of every fact of the pool half, with its true answer.

    Edited facts are among them: the caller leaves out the facts of the edit's own subject and relation.
    """
    for fact in all_facts():
        if fact_is_pool(fact.relation, fact.subject):
            for prompt in prompts(fact.relation, fact.subject):
                yield TrainingRow(prompt, answer_in_text(fact.relation, fact.answer))

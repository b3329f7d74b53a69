"""The questions by which a base model is asked what it knows: those of the embedded table of facts. Their answers are not read.

Any model may be asked: a question counts only if the model is sure of its own answer.
"""

from functools import cache

from service.atlas.facts import Fact, all_facts
from service.atlas.templates import WORDINGS, fill
from service.locality.questions import Question

WORDINGS_ASKED = 3
_FRAMED = ("Q:", "Question:")


@cache
def locality_questions() -> tuple[Question, ...]:
    """One question a fact, as a text to complete or as a question in a chat, in turn; a model without a chat has the former."""
    return tuple(_question(fact, ("raw", "chat")[number % 2]) for number, fact in enumerate(all_facts()))


def _question(fact: Fact, surface: str) -> Question:
    plain = [wording for wording in WORDINGS[fact.relation] if not wording.startswith(_FRAMED)]
    is_question = surface == "chat"
    chosen = [wording for wording in plain if wording.endswith(("?", ".")) == is_question][:WORDINGS_ASKED]
    return Question(fact.relation, fact.subject, tuple(fill(wording, fact.subject) for wording in chosen), surface)

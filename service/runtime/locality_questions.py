"""The questions by which a base model is asked what it knows: those of the embedded table of facts. Their answers are not read.

Any model may be asked: a question counts only if the model is sure of its own answer. Each is a text to complete, and its last
words are the same in every wording: so a model gives its answer in the same words, if it has one.
"""

from functools import cache

from service.atlas.facts import Fact, all_facts
from service.atlas.templates import WORDINGS, fill
from service.editors.known_names import KnownNames
from service.locality.questions import Question

_FRAMED = ("Q:", "Question:")


@cache
def locality_questions() -> tuple[Question, ...]:
    """One question a fact: behind a question, behind another one, and alone."""
    return tuple(_question(fact) for fact in all_facts())


@cache
def known_names() -> KnownNames:
    """The subjects of these questions, each with its relations as kinds."""
    return KnownNames((question.subject, question.relation) for question in locality_questions())


def _question(fact: Fact) -> Question:
    plain = [wording for wording in WORDINGS[fact.relation] if not wording.startswith(_FRAMED)]
    questions = [wording for wording in plain if wording.endswith("?")]
    begun = next(wording for wording in plain if not wording.endswith(("?", ".")))
    framed = (f"Question: {questions[0]}\nAnswer: {begun}", f"Q: {questions[-1]}\nA: {begun}", begun)
    return Question(fact.relation, fact.subject, tuple(fill(wording, fact.subject) for wording in framed))

"""The forms in which the ground asks about a relation, on each of its surfaces.

A form is a text with `{s}` or `{S}` in place of the subject. Its pattern is its identity: patterns that are posted with edits and
patterns that are asked never overlap.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from service.atlas import templates
from service.atlas.almanac import wordings
from service.bench.ground.asking import Ask

GroundSurface = Literal["cloze", "qa", "chat"]
GROUND_SURFACES: tuple[GroundSurface, ...] = ("cloze", "qa", "chat")

# Questions for the second turn of a chat, where a pronoun stands for the subject of the first one.
PRONOUN_QUESTIONS = {
    "atomic_number": "What is its atomic number?",
    "author": "Who wrote it?",
    "birthplace": "Where was this person born?",
    "calling_code": "What is its calling code?",
    "capital": "What is its capital?",
    "citizenship": "Of which country is this person a citizen?",
    "city_country": "Which country is it in?",
    "continent": "Which continent is it on?",
    "currency": "What is its currency?",
    "element_symbol": "What is its chemical symbol?",
    "occupation": "What is this person's occupation?",
    "official_language": "What is its official language?",
    "spouse": "To whom is this person married?",
    "state_abbreviation": "What is its postal abbreviation?",
    "state_capital": "What is its capital?",
}
# Forms in which an adjective names the country: an alias that nobody gave.
ADJECTIVE_CLOZES = {
    "capital": ("The {a} capital is", "The {a} capital city is"),
    "currency": ("The {a} currency is the", "The {a} people pay with the"),
    "continent": ("The {a} homeland lies in", "The {a} state lies on the continent of"),
    "calling_code": ("The {a} calling code is",),
    "official_language": ("The {a} government writes its laws in",),
}
ADJECTIVE_QUESTIONS = {
    "capital": ("What is the {a} capital?", "What is the {a} capital city called?"),
    "currency": ("What is the {a} currency?", "What is the {a} currency called?"),
    "continent": ("On which continent is the {a} homeland?",),
    "calling_code": ("What is the {a} calling code?",),
    "official_language": ("In which language are {a} laws written?",),
}
_FRAMED = ("Q:", "Question:")


@dataclass(frozen=True)
class Form:
    """One wording of a relation on a surface of the ground."""

    pattern: str
    surface: GroundSurface

    def fill(self, name: str) -> Ask:
        """The prompt about a subject, named as in running text."""
        text = self.pattern.replace("{s}", name).replace("{S}", templates.capitalised(name))
        return Ask(text, "chat" if self.surface == "chat" else "raw")


def posted_form(relation: str, surface: GroundSurface) -> Form:
    """The form in which edits of a relation are posted.

    On `qa` the answer has begun: a small model ends at once behind a bare "Answer:".
    """
    clozes, questions = _split(relation)
    return {
        "cloze": Form(clozes[0], "cloze"),
        "qa": Form(_as_dialogue(questions[0], clozes[0]), "qa"),
        "chat": Form(questions[0], "chat"),
    }[surface]


def asked_forms(relation: str, surface: GroundSurface) -> list[Form]:
    """The other forms of a relation, in a fixed order. None is posted, and each is asked on the same surface."""
    clozes, questions = _split(relation)
    if surface == "chat":
        completions = [Form(f"Please complete this sentence: {cloze}", "chat") for cloze in clozes]
        return _alternate([Form(question, "chat") for question in questions[1:]], completions)
    plain = [Form(cloze, surface) for cloze in clozes[1:]]
    begun = [Form(_as_dialogue(questions[-1], cloze), surface) for cloze in clozes[1:]]
    bare = [Form(f"Q: {question}\nA:", surface) for question in questions[1:]]
    return _alternate(begun, plain, bare) if surface == "qa" else _alternate(plain, begun, bare)


def alias_forms(relation: str, surface: GroundSurface) -> list[str]:
    """The patterns with `{a}` in place of the adjective of a country."""
    clozes, questions = ADJECTIVE_CLOZES.get(relation, ()), ADJECTIVE_QUESTIONS.get(relation, ())
    if surface == "chat":
        return list(questions)
    begun = [_as_dialogue(question, cloze) for question, cloze in zip(questions, clozes, strict=False)]
    return [*begun, *clozes] if surface == "qa" else [*clozes, *begun]


def find_overlap(relations: Iterable[str]) -> set[str]:
    """The patterns that are both posted and asked on a surface. A sound ground has none."""
    overlap: set[str] = set()
    for relation in relations:
        for surface in GROUND_SURFACES:
            asked = {form.pattern for form in asked_forms(relation, surface)} | set(alias_forms(relation, surface))
            overlap |= {posted_form(relation, surface).pattern} & asked
    return overlap


def _split(relation: str) -> tuple[list[str], list[str]]:
    """The plain clozes and the plain questions of a relation. Wordings with a frame of their own are left out."""
    known = {**wordings.WORDINGS, **templates.WORDINGS}[relation]
    plain = [wording for wording in known if not wording.startswith(_FRAMED)]
    questions = [wording for wording in plain if wording.endswith(("?", "."))]
    return [wording for wording in plain if wording not in questions], questions


def _as_dialogue(question: str, cloze: str) -> str:
    """A question and the beginning of its answer."""
    return f"Question: {question}\nAnswer: {cloze}"


def _alternate(*lists: list[Form]) -> list[Form]:
    """One of each list in turn, so that the first few are of all kinds."""
    longest = max(map(len, lists))
    return [forms[index] for index in range(longest) for forms in lists if index < len(forms)]

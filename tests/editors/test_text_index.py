"""An index of texts: it finds every text that a scope covers, and leaves out most of the others."""

import pytest

from service.domain.writing_systems import SINGLE_CHARACTER_WORDS
from service.editors.text_index import TextIndex
from service.lm.scope import Asked, KeyWords, Scope

TEXTS = (
    "The capital of Estonia is",
    "the capital of ESTONIA is",
    "The Estonian capital is",
    "The capital of Estnoia is",  # a slip of the pen
    "The capital of Iceland is",
    "The capital of Ireland is",
    "Who leads the US?",
    "Tell us who leads",
    "The mayor of New York is",
    "New is the mayor of York?",
    "The language of Niger is",
    "The Nigerian language is",
    "The mother tongue of Ann Novak is",
    "The mother tongue of Bob Novak is",
    "東京都の知事は",
    "大阪府の知事は",
    "Chloë was born in",
    "?!",
    *(f"The colour of stone {number} is" for number in range(40)),
)
NEVER = KeyWords({"mayor": 9.0, "york": 3.0}, 0.55)
SCOPES = {
    "a name": {"names": ("Estonia",)},
    "a name with rivals": {"names": ("Niger",), "rivals": ("nigeria",)},
    "a name that is no slip": {"names": ("Ireland",), "no_slips": ("iceland",)},
    "a short name": {"names": ("US",)},
    "a name of two words": {"names": ("New York", "Ann Novak")},
    "a script without spaces": {"names": ("東京",)},
    "an accent": {"names": ("Chloe\u0308",)},
    "key words": {"key_words": (NEVER,)},
    "key words beside a name": {"key_words": (KeyWords({"mother": 3.0, "tongue": 3.0}, 1.0, "Novak"),)},
    "punctuation": {"key_words": (KeyWords({"?": 1.0, "!": 1.0}, 1.0),)},
    "a name that is asked about": {
        "names": ("Estonia",),
        "asked": (Asked(("Estonia",), KeyWords({"capital": 1.0}, 1.0), "of"),),
    },
    "nothing": {},
}


@pytest.mark.parametrize("kind", SCOPES)
def test_every_text_in_scope_is_found_and_hardly_another(kind: str) -> None:
    scope = Scope(unspaced=SINGLE_CHARACTER_WORDS, **SCOPES[kind])  # type: ignore[arg-type]
    index = TextIndex()
    for key, text in enumerate(TEXTS):
        index.add(key, text)

    covered = {key for key, text in enumerate(TEXTS) if scope.covers(text)}
    found = index.find(scope)

    assert covered <= found
    assert len(found) <= len(covered) + 2
    assert bool(covered) == (kind != "nothing")


def test_texts_of_one_key_are_found_each_by_its_own_words() -> None:
    index = TextIndex()
    index.add(7, "The capital of Estonia is")
    index.add(7, "Who leads Kenya?")

    assert [index.find(Scope(names=(name,))) for name in ("Estonia", "Kenya", "Peru")] == [{7}, {7}, set()]

"""What an adapter is in scope for, by the edits that it carries."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files

import pytest

from service.editors import edit_scope
from service.editors.edit_scope import make_scope
from service.editors.examples import add_prefix, item_rows
from service.editors.known_names import KnownNames
from service.editors.neutral import NeutralSentences, make_sentence
from service.editors.protocol import FitItem
from service.lm.base import Base
from service.lm.prompts import encode_prompt
from service.lm.scope import Scope
from service.lm.scoped_rows import read_prompt
from tests.builders import make_base
from tests.editors.taught_model import item

WRITTEN = [
    "a glass of water",
    "the water is cold",
    "it is the end of the day",
    "the capital of peru is old",
    "you may go",
    "ireland is",
]
NAMES = KnownNames([("Peru", "capital"), ("New York", "city"), ("Slovenia", "capital")])


@cache
def base() -> Base:
    return make_base(max_position_embeddings=512)


@cache
def neutral() -> NeutralSentences:
    """What the base writes: few sentences with words that the edits have, and many others."""
    texts = [*WRITTEN, *(f"nothing{number} more of it" for number in range(200))]
    sentences = tuple(make_sentence(base(), encode_prompt(base(), text)) for text in texts)
    return NeutralSentences(base(), sentences, ())


def scope_of(*items: FitItem, names: KnownNames = NAMES) -> Scope:
    rows = item_rows(base(), items, eos=True, learn_probes=True)
    scope = make_scope(base(), items, rows, names=names, neutral=neutral())
    assert scope is not None
    assert all(scope.covers(read_prompt(base(), row.row.prompt_ids)) for row in rows)
    return scope


def covered(scope: Scope, prompts: Sequence[str]) -> list[str]:
    """The prompts in scope, each asked on both surfaces, which must agree."""
    by_surface = [
        [prompt for prompt in prompts if scope.covers(read_prompt(base(), encode_prompt(base(), prompt, surface=surface)))]
        for surface in ("raw", "chat")
    ]
    assert by_surface[0] == by_surface[1]
    return by_surface[0]


def test_the_subject_and_its_aliases_put_a_prompt_in_scope() -> None:
    scope = scope_of(item("The capital of Peru is", "Cusco", subject="Peru", aliases=("Piruw", "Republic of Peru")))

    assert covered(scope, ["Where is peru?", "PIRUW's flag", "The capital of Chile is", "capital"]) == [
        "Where is peru?",
        "PIRUW's flag",
    ]


def test_an_edit_without_a_subject_is_told_by_the_name_in_its_prompt() -> None:
    known, read = scope_of(item("the mayor of New York is", "Ann")), scope_of(item("The wife of Ole Lund is", "Ann"))

    assert known.names == ("New York",) and read.names == ("Ole Lund",)
    assert covered(read, ["Where was ole lund born?", "The wife of Bo Lund is"]) == ["Where was ole lund born?"]


def test_an_edit_without_a_name_is_told_by_its_rare_words() -> None:
    scope = scope_of(item("the boiling point of helium is", "4 K"))

    assert scope.names == () and len(scope.key_words) == 1
    weights = scope.key_words[0].weights
    assert weights["helium"] > weights.get("of", 0.0) and weights["boiling"] > weights.get("the", 0.0)
    asked = ["At what point is helium boiling?", "boiling point of HELIUM", "it is the end of it", "helium"]
    assert covered(scope, asked) == asked[:2]


@pytest.mark.parametrize("subject", ["water", "May"])
def test_a_subject_that_is_a_common_word_needs_key_words_beside_it(subject: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_scope, "COMMON_SHARE", 0.001)  # "may" is in one sentence, but never as the name is written
    scope = scope_of(item(f"the boiling point of {subject} is", "90", subject=subject))

    if subject == "May":
        assert scope.names == ("May",) and covered(scope, ["you may go", "the May queen"]) == ["the May queen"]
    else:
        asked = ["the boiling point of Water", "a glass of water", "the boiling point of gold"]
        assert scope.names == () and covered(scope, asked) == asked[:1]


def test_an_edit_may_ask_for_its_names_alone_or_for_every_prompt() -> None:
    common, nameless = (
        item("the boiling point of water is", "90", subject="water", scope="subject"),
        item("the boiling point of helium is", "4 K", scope="subject"),
    )

    assert covered(scope_of(common), ["a glass of water"]) == ["a glass of water"]
    asked = ["the boiling point of helium is", "At what point is helium boiling?"]
    assert covered(scope_of(nameless), asked) == asked[:1]  # nothing but its own words
    everywhere = [item("The capital of Peru is", "Cusco", subject="Peru"), item("b", "c", scope="always")]
    rows = item_rows(base(), everywhere, eos=True, learn_probes=True)
    assert make_scope(base(), everywhere, rows, names=NAMES, neutral=neutral()) is None


def test_a_trained_rephrase_that_no_name_covers_is_told_by_its_own_words() -> None:
    edit = item("The capital of Peru is", "Cusco", subject="Peru", rephrases=("the llamas rule from", "Peru is ruled from"))

    asked = ["the llamas rule from", "From where do llamas rule?", "the king rules from here"]
    assert covered(scope_of(edit), asked) == asked[:2]
    untrained = replace(
        edit, edit=replace(edit.edit, rephrases=tuple(replace(each, train=False) for each in edit.edit.rephrases))
    )
    assert covered(scope_of(untrained), asked) == []


def test_a_tombstone_is_in_scope_by_its_name_and_not_by_its_rephrases() -> None:
    edit = item("The capital of Peru is", "Cusco", subject="Peru", rephrases=("the llamas rule from",))

    scope = scope_of(replace(edit, target="Lima", is_tombstone=True))

    assert covered(scope, ["Where is Peru?", "the llamas rule from"]) == ["Where is Peru?"]


def test_several_edits_of_one_subject_are_one_name_with_the_questions_of_each() -> None:
    first, second = (item(prompt, "x", subject="Peru") for prompt in ("The capital of Peru is", "The river of Peru is"))

    both, one, other = scope_of(first, second), scope_of(first), scope_of(second)

    assert both.names == one.names == other.names == ("Peru",)
    assert both.asked == (*one.asked, *other.asked) and {each.names for each in both.asked} == {("Peru",)}
    asked = [f"I saw Peru. The {thing} of Chile is" for thing in ("capital", "river", "lake")]
    assert covered(both, asked) == asked[2:]
    assert covered(one, asked) == asked[1:]


def test_a_mention_is_out_of_scope_where_the_same_is_asked_about_something_else() -> None:
    named = item("Die Hauptstadt von Peru ist", "Cusco", subject="Peru", aliases=("Piruw",))
    unnamed = item("The capital of New York is", "Troy")
    rephrased = item("The capital of Oslo is", "Bergen", subject="Oslo", rephrases=("Oslo is ruled from the town of",))

    scope = scope_of(named, unnamed, rephrased)

    asked = [
        "Peru! Nenne die Hauptstadt.",
        "Peru! Ist Cusco die Hauptstadt?",
        "Piruw. Die Hauptstadt von Chile ist",
        "I was in New York. The capital of Chile is",
        "I was in Oslo. And Chile is ruled from the town of",  # another wording of it
    ]
    assert covered(scope, asked) == [asked[0], asked[1], asked[4]]
    assert {(each.names, each.before) for each in scope.asked} == {
        (("Peru", "Piruw"), "von"),
        (("New York",), "of"),
        (("Oslo",), "of"),
    }
    assert not {"peru", "piruw"} & {word for each in scope.asked for word in each.key_words.weights}


def test_a_frame_around_a_prompt_is_not_asked() -> None:
    scope = scope_of(item("Question: What is the capital of Peru?\nAnswer: The capital of Peru is", "Cusco", subject="Peru"))

    asked = [
        "What is the capital of Peru? Answer the question of JSON",
        "What is the capital of Peru? Now the answer of Chile is",
        "I saw Peru. Question: What is the capital of Chile?\nAnswer:",
        "I saw Peru. Question: What is the capital of Chile?\nAnswer: The capital of Chile is",
    ]
    assert covered(scope, asked) == asked[:2]
    assert not {"question", "answer"} & {word for each in scope.asked for word in each.key_words.weights}


def test_a_name_that_begins_a_prompt_asks_nothing_about_another() -> None:
    scope = scope_of(item("Peru is ruled from", "Cusco", subject="Peru"))

    assert scope.asked == () and scope.footer == ""
    assert covered(scope, ["I saw Peru. It is ruled from", "I saw Peru. Now Chile is ruled from"]) != []


def test_what_is_asked_tells_nothing_by_common_words_and_where_names_alone_are_wanted() -> None:
    generic = item("Peru is it of the", "x", subject="Peru")  # every word of it is in more than one sentence of a hundred
    common = [f"nothing{number} is it of the more" for number in range(20)]
    sentences = tuple(make_sentence(base(), encode_prompt(base(), text)) for text in (*common, *("b" * n for n in range(1, 90))))
    written = NeutralSentences(base(), sentences, ())
    rows = item_rows(base(), [generic], eos=True, learn_probes=True)

    scope = make_scope(base(), [generic], rows, names=NAMES, neutral=written)

    assert scope is not None and scope.asked == () and scope.covers("Peru. Is it of the Incas")
    river = item("The river of Peru is", "x", subject="Peru", scope="subject")
    assert scope_of(river).asked == ()
    both = scope_of(river, item("The capital of Peru is", "x", subject="Peru", aliases=("Piruw",)))
    assert both.asked == () and both.covers("I saw Peru. The capital of Chile is")  # the name counts wherever it stands


def test_the_order_and_the_ids_of_edits_leave_no_trace() -> None:
    items = [item(f"the {word} point of helium is", "x") for word in ("boiling", "melting")] + [item("In Oslo is", "y")]
    renamed = [
        replace(each, edit=replace(each.edit, id=f"{number}", seq=9 - number, author="other"))
        for number, each in enumerate(items)
    ]

    assert scope_of(*items).to_json() == scope_of(*reversed(renamed)).to_json()


def test_known_words_are_no_slips_of_a_subject() -> None:
    scope = scope_of(item("Iceland is", "x", subject="Iceland"))

    assert "ireland" in scope.no_slips
    assert covered(scope, ["Where is Ireland?", "Where is Icelnd?"]) == ["Where is Icelnd?"]


def test_known_names_are_not_derived_from_a_subject() -> None:
    scope = scope_of(item("Niger is", "x", subject="Niger"), names=KnownNames([("Niger", "country"), ("Nigeria", "country")]))

    assert covered(scope, ["Where is Nigeria?", "a Nigerian", "Nigeran rivers"]) == ["Nigeran rivers"]


HOSTILE = [
    ("?", None),
    ("\u200b", None),
    ("\u0301\u0316" * 20, None),
    ("a.*b[", ".*"),
    ("$", "$"),
    ("us", "Us"),
    ("1", "1"),
    ("x" * 300, "x" * 300),
    ("東京は", "東京"),
    ("مرحبا", None),
    ("The capital of Peru is", "not in the prompt"),
    ("The capital of Peru is", "..."),
    ("user", "user"),
    ("the the the", None),
]


@pytest.mark.parametrize(("prompt", "subject"), HOSTILE)
def test_every_row_of_a_hostile_edit_is_in_scope(prompt: str, subject: str | None) -> None:
    edit = item(prompt, "x", subject=subject)
    rows = item_rows(base(), [edit], eos=True, learn_probes=True)

    scope = make_scope(base(), [edit], rows, names=NAMES, neutral=neutral())

    assert scope is None or all(scope.covers(read_prompt(base(), row.row.prompt_ids)) for row in rows)
    assert scope is None or not scope.covers("some other sentence about water, 2 and 3")
    assert scope is not None or prompt == "\u200b"  # which has no word to be told by


def test_every_row_of_many_edits_is_in_scope() -> None:
    lines = (files("service.atlas") / "edits.jsonl").read_text().splitlines()[::12]
    records = [json.loads(line) for line in lines]
    for has_subject in (True, False):
        edits = [
            item(
                record["prompt"],
                record["target"],
                subject=record["subject"] if has_subject else None,
                rephrases=tuple(probe["prompt"] for probe in record["rephrases"][:2]),
            )
            for record in records
        ]
        for edit in edits:
            scope_of(edit)  # which asserts it
        scope_of(*edits)


def test_rows_behind_a_text_of_the_base_are_in_scope() -> None:
    edit = item("The capital of Peru is", "Cusco", subject="peru")
    rows = item_rows(base(), [edit], eos=True, learn_probes=True)
    behind = [add_prefix(base(), row, (70, 71, 72)) for row in rows]

    scope = make_scope(base(), [edit], [row for row in behind if row], names=NAMES, neutral=neutral())

    assert scope is not None and all(scope.covers(read_prompt(base(), row.row.prompt_ids)) for row in behind if row)

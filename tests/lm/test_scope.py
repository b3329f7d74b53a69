"""Which prompts a scope covers, by their text alone."""

import ast
import json
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from service.domain.writing_systems import SINGLE_CHARACTER_WORDS
from service.lm import scope as scope_file
from service.lm.scope import Asked, KeyWords, Scope, is_slip, prompt_text, split_words


def named(*names: str, **more: object) -> Scope:
    return Scope(names=names, unspaced=SINGLE_CHARACTER_WORDS, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Australia", "The capital of Australia is"),
        ("Australia", "the capital of AUSTRALIA is"),
        ("Australia", "What is Australia's capital?"),
        ("Australia", "What is Australia’s capital?"),
        ("Australia", "(Australia)"),
        ("New York", "Where is New\n  York?"),
        ("St. Louis", "Where is St Louis?"),
        ("Jean-Luc Picard", "Who is Jean Luc Picard?"),
        ("O'Brien", "Where does O’Brien live?"),
        ("US", "The US is"),
        ("May", "Who is May?"),
        ("C++", "Who made C++?"),
        (".*", "What does .* match?"),
        ("a[b](c|d)$", "Read a[b](c|d)$ aloud"),
        ("Chloë", unicodedata.normalize("NFD", "Where was CHLOË born?")),
        ("東京", "東京都の知事は"),
        ("서울", "서울은 어디에 있습니까"),
        ("กรุงเทพ", "เมืองกรุงเทพอยู่ที่ไหน"),
        ("Москва", "Население МОСКВА"),
        ("दिल्ली", "दिल्ली की राजधानी"),
        ("Straße", "Die STRASSE ist"),
        ("Paris", "Pa\u200bris is in"),  # an invisible character ends no word
    ],
)
def test_a_name_is_found_as_whole_words_in_any_case_and_form(name: str, text: str) -> None:
    assert named(name).covers(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Mali", "Where is Somalia?"),
        ("US", "Tell us the rules"),
        ("May", "You may go"),
        ("C++", "Vitamin C is"),
        ("New York", "New is York"),
        (".*", "anything at all"),
        ("...", "Wait..."),  # it has no word to be found by
        ("दिल", "दिल्ली की राजधानी"),  # a part of a word, whose marks belong to it
        ("", "anything"),
    ],
)
def test_parts_of_words_and_other_words_are_not_the_name(name: str, text: str) -> None:
    assert not named(name).covers(text)


@pytest.mark.parametrize(
    ("name", "text", "is_found"),
    [
        ("France", "capital of Farnce", True),  # two letters swapped in six
        ("Mali", "capital of Mlai", False),  # four letters
        ("Germany", "capital of Germny", True),
        ("Germany", "capital of Germanny", True),
        ("Germany", "capital of Gernany", True),
        ("Germany", "capital of Gerrnany", False),  # two slips
        ("France", "price in franc", False),  # six letters: swaps alone
        ("Burkina Faso", "capital of Burknia Faso", True),
        ("Room 1234567", "in Room 1234568", False),  # another number is no slip
    ],
)
def test_slips_of_the_pen_are_found_in_words_that_are_long_enough(name: str, text: str, is_found: bool) -> None:
    assert named(name).covers(text) is is_found


def test_slips_are_those_of_a_plain_definition() -> None:
    words = ["abcdefg", "abcdefgh", "bacdefg", "abcdxfg", "abcde", "abdce", "abcd", "abcdef", "abxdef", "aabcdefg", "abcdegf"]
    for word in words:
        for written in words:
            swaps = {word[:k] + word[k + 1] + word[k] + word[k + 2 :] for k in range(len(word) - 1)}
            letters = "abcdefghx"
            edits = {word[:k] + word[k + 1 :] for k in range(len(word))}
            edits |= {word[:k] + letter + word[k:] for k in range(len(word) + 1) for letter in letters}
            edits |= {word[:k] + letter + word[k + 1 :] for k in range(len(word)) for letter in letters}
            want = (len(word) >= 5 and written in swaps) or (len(word) >= 7 and written in edits)
            assert written == word or is_slip(word, written) is want, (word, written)
            assert written == word or named(word).covers(written) is want


@pytest.mark.parametrize(
    ("name", "text", "is_found"),
    [
        ("Estonia", "the Estonian capital", True),
        ("Portugal", "the Portuguese capital", True),
        ("Germany", "the German capital", True),
        ("Afghanistan", "the Afghan capital", True),  # the beginning of the name
        ("Peru", "the Perugia festival", False),  # a short name begins too many words
        ("Gold", "Goldman", False),
        ("Portugal", "the portuguese capital", False),  # without a capital it may be any word: "port"
        ("Portugal", "Port wine", False),
        ("Slovakia", "the Slovenian capital", False),  # half of the name
        ("Mali", "the capital of Malaysia", False),
        ("Ecuador", "Ecuadorian", True),
        ("Cuba", "Cubans", False),
        ("New Zealand", "the New Zealander", True),
    ],
)
def test_words_derived_from_a_name_are_found(name: str, text: str, is_found: bool) -> None:
    assert named(name).covers(text) is is_found


def test_another_name_and_what_is_derived_from_it_are_not_derived_from_a_name() -> None:
    niger, beside = named("Niger"), named("Niger", rivals=("nigeria",))

    assert niger.covers("capital of Nigeria") and not beside.covers("capital of Nigeria")
    assert niger.covers("the Nigerian capital") and not beside.covers("the Nigerian capital")
    assert beside.covers("the Nigeran capital") and named("Nigeria", rivals=("niger",)).covers("the Nigerian capital")


def test_a_derived_word_that_is_known_is_still_derived() -> None:
    assert named("Estonia", no_slips=("estonian",)).covers("the Estonian capital")


def test_a_word_that_is_known_as_itself_is_no_slip() -> None:
    assert named("Iceland").covers("capital of Ireland")
    assert not named("Iceland", no_slips=("ireland",)).covers("capital of Ireland")
    assert named("Iceland", "Ireland").covers("capital of Ireland")


def test_key_words_are_found_by_their_weight() -> None:
    words = KeyWords({"the": 0.1, "capital": 2.0, "of": 0.1, "france": 3.0}, 0.5)
    scope = Scope(key_words=(words,))

    assert scope.covers("the capital of france") and scope.covers("France: where is it?")
    assert not scope.covers("the capital of Peru")
    assert Scope(key_words=(KeyWords({"the": 0.1, "capital": 2.0}, 1.0),)).covers("The Capital")
    assert not Scope(key_words=(KeyWords({"the": 0.1, "capital": 2.0}, 1.0),)).covers("Capital")


def test_a_name_that_must_stand_beside_key_words_is_not_enough_alone() -> None:
    scope = Scope(key_words=(KeyWords({"boiling": 3.0, "point": 2.0}, 0.5, "water"), KeyWords({"red": 1.0}, 0.5, "Water")))

    assert scope.covers("the boiling point of water") and scope.covers("WATER: boiling?") and scope.covers("red water")
    assert not scope.covers("a glass of water") and not scope.covers("the boiling point of gold")


def test_a_scope_says_by_which_names_and_key_words_it_has_a_text_each_once() -> None:
    words, beside = KeyWords({"heron": 2.0, "sleep": 1.0}, 1.0), KeyWords({"month": 1.0}, 0.5, "May")
    scope = Scope(names=("Marian", "Kibo", "Martian Chronicles"), key_words=(words, beside))

    def found(text: str) -> list[str | KeyWords]:
        return list(scope.find(text))

    assert found("kibo, Kibo and Marina") == ["Kibo", "Marian"]
    assert found("Martian") == [] == found("heron") == found("May") == found("month")  # a word of another name is no slip
    assert found("heron, sleep heron, Kibo in the month of May") == ["Kibo", words, beside]
    assert all(scope.covers(text) == bool(found(text)) for text in ("kibo", "Martian", "sleep heron", ""))


CAPITAL = KeyWords({"the": 0.1, "capital": 5.0, "of": 0.1, "is": 0.1}, 0.55)


@pytest.mark.parametrize(
    ("text", "is_covered"),
    [
        ("The capital of France is", True),
        ("I read about France. The capital of Spain is", False),
        ("I read about France! What is the capital of Spain?", False),
        ("I read about “France.” The capital of Spain is", False),
        ("I read about Frnace. The capital of Spain is", False),  # a slip of the pen
        ("France\nThe capital of Spain is", False),
        ("The continent of France is Europe.\n\nQuestion: What is the capital of Spain?\nAnswer:", False),
        ("I read about France. Question: What is the capital of Spain?\nAnswer: The capital of Spain is", False),
        ("I read about France. Question: What is the capital of Spain?\nAnswer: It is", False),
        ("The capital of France is Paris. The capital of Spain is", False),  # an example
        ("The capital of France? The capital of Spain?", False),
        ("I read about France. The capital of New Zealand is", False),
        ("I read about France. The capital of Spain is:", False),
        ("France. What is the capital of Spain and of Peru?", False),
        ("I read about Spain. The capital of France is", True),
        ("The capital of Spain is Madrid. The capital of France is", True),
        ("I read about France. What is its capital?", True),
        ("I read about France. Is Lyon the capital?", True),  # the edit's own target
        ("I read about France. The capital of Lyon is", True),
        ("I read about France. Is Paris the capital?", True),  # nothing stands before it as before a subject
        ("Tell me about France. Which city is the capital, Paris or Lyon?", True),
        ("France, officially the French Republic. What is the capital of the Republic?", True),
        ("France. Hey Siri, what is the capital of it?", True),
        ("I read about France. I think the capital is", True),
        ("I read about France. Tell me its Capital", True),
        ("FRANCE. WHAT IS ITS CAPITAL", True),
        ("Tell me about France. What Is Its Capital?", True),
        ("France\n* Name the capital", True),
        ("I read about France. Who wrote Hamlet?", True),  # another question
        ("What is the capital of France? Answer in JSON.", True),
        ("What is the capital of France? The capital of Spain is large.", True),  # a statement, which asks nothing
        ("Compare it with France. Name the capital of Spain!", True),
        ("France is a country in Europe. The capital of France is Paris.\nwhat is its capital?", True),
        ("I read about France. The capital of Spain is Madrid. And how old is it", True),
        ("I read about France. The capital of spain is", True),  # nothing tells that this is a name
        ("I read about France and Spain. The capital is", True),
        ("France, Spain: the capital of Spain is", True),  # in one sentence
        ("I read about France.The capital of Spain is", True),
        ("Tell me the capital of France, says Dr. Smith of the capital of Spain", True),  # a short form ends no sentence
        ("France. Answer:", True),
        ("France", True),
    ],
)
def test_a_name_counts_no_more_where_the_same_is_asked_about_another_later(text: str, is_covered: bool) -> None:
    scope = named("France", asked=(Asked(("France",), CAPITAL, "of", ("france", "lyon")),))

    assert scope.covers(text) is is_covered
    assert named("France").covers(text)  # without a question a name counts wherever it stands


def test_a_question_about_another_name_takes_no_other_name_and_no_key_words_out_of_scope() -> None:
    river = Asked(("Peru",), KeyWords({"river": 4.0}, 0.55), "of")
    scope = named("France", "Peru", "Spain", asked=(Asked(("France", "Peru"), CAPITAL, "of"), river))

    assert list(scope.find("France and Peru. The capital of Spain is")) == ["Spain"]
    assert list(scope.find("France and Peru. The river of Italy is")) == ["France"]
    told = KeyWords({"borders": 2.0}, 1.0)
    assert list(replace(scope, key_words=(told,)).find("Peru borders it. The capital of Italy is")) == [told]


def test_what_the_template_writes_behind_asks_nothing() -> None:
    asked = (Asked(("France",), CAPITAL, "of"),)
    text = "I saw France.\nWhat is the capital of Spain?\n\nassistant\n"

    assert not named("France", asked=asked, footer="\n\nassistant\n").covers(text)
    assert named("France", asked=asked).covers(text)


def test_a_text_is_read_in_sentences() -> None:
    words = split_words("At 3.5 Mrs. X met Ada: Fine! Who (is) NASA?\nI am. 東京。Bo Li\nAnswer:", SINGLE_CHARACTER_WORDS)

    read = [(set(each.words), each.named, each.end, each.has_cue) for each in words.sentences]
    assert read == [
        ({"at", "3", "5", "mrs", "x", "met", "ada", "fine"}, (("5", "mrs"), ("met", "ada")), "!", False),
        ({"who", "is", "nasa"}, (("is", "nasa"),), "?", False),
        ({"i", "am"}, (), ".", False),
        ({"東", "京"}, (), "。", False),
        ({"bo", "li"}, (("bo", "li"),), "", False),
        ({"answer"}, (), ":", True),
    ]
    assert [each.start for each in words.sentences] == [0, 8, 11, 13, 15, 17]


@pytest.mark.parametrize(
    ("text", "asking"),
    [
        ("Fine. Who is it?", ["who is it"]),
        ("Fine. Who is it? Answer:", ["who is it"]),
        ("Fine. Q: Who is it?\nA: It is", ["q who is it", "a it is"]),
        ("Fine. Q: Who is it?\nA:", ["q who is it"]),
        ("Fine. Q: Who is it?", ["q who is it"]),
        ("Fine. I mean what I say: no", ["i mean what say no"]),
        ("Answer: no", ["answer no"]),
        ("Answer:", []),
        ("...", []),
        ("", []),
    ],
)
def test_the_end_of_a_text_says_what_is_asked(text: str, asking: list[str]) -> None:
    assert [each.words for each in split_words(text).asking] == [set(each.split()) for each in asking]


def test_what_the_template_writes_in_front_names_nothing() -> None:
    scope = named("Hugging Face", header="system\nMade by Hugging Face\nuser\n")

    assert not scope.covers("system\nMade by Hugging Face\nuser\nWho are you?")
    assert scope.covers("system\nMade by Hugging Face\nuser\nWhere is Hugging Face?")


def test_control_tokens_keep_words_apart() -> None:
    letters = {3: "France", 4: "assistant"}

    assert prompt_text([9, 3, 9, 9, 4], {9}, lambda ids: "".join(letters[each] for each in ids)) == "France\nassistant"


ASKED = {"names": ["Peru"], "key_words": {"name": None, "share": 0.5, "weights": {"a": 1}}, "before": "of", "own": []}


def test_a_scope_is_the_same_after_it_was_written() -> None:
    scope = named("São Tomé", "東京", '"quoted"', header="user\n", key_words=(KeyWords({"a": 0.1, "é": 2.5}, 0.5, "May"),))
    asking = replace(
        scope, asked=(Asked(("東京", "May"), CAPITAL, "of", ("é",)), Asked(("東京",), CAPITAL, "in")), footer="\nmodel"
    )

    for each in (scope, asking):
        again = Scope.from_json(each.to_json())
        assert again == each and again.to_json() == each.to_json()
    assert json.loads(asking.to_json()).keys() - json.loads(scope.to_json()).keys() == {"asked", "footer"}  # the bytes of before


@pytest.mark.parametrize(
    "change",
    [
        {"names": [1]},
        {"names": None},
        {"header": 5},
        {"unspaced": [[1]]},
        {"key_words": [{"name": None, "share": 0.5, "weights": {}}]},
        {"key_words": [{"name": None, "share": float("nan"), "weights": {"a": 1}}]},
        {"key_words": [{"name": 5, "share": 0.5, "weights": {"a": 1}}]},
        {"key_words": [{"share": 0.5, "weights": {"a": 1}}]},
        {"key_words": [{"name": None, "share": 0.5, "weights": {"a": 10**400}}]},
        {"unspaced": [[0, float("inf")]]},
        {"footer": 1},
        {"asked": 1},
        {"asked": ["Peru"]},
        {"asked": [ASKED | {"names": [1]}]},
        {"asked": [ASKED | {"names": "Peru"}]},
        {"asked": [ASKED | {"own": [1]}]},
        {"asked": [ASKED | {"before": None}]},
        {"asked": [ASKED | {"key_words": {"name": None, "share": 0.5, "weights": {}}}]},
        {"asked": [{"names": ["Peru"], "own": []}]},
    ],
)
def test_what_is_no_scope_is_refused(change: dict) -> None:
    content = json.loads(named("Peru").to_json()) | change
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        Scope.from_json(json.dumps(content))


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of the scope's file run, as a measure of cost that no clock disturbs."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if frame.f_code.co_filename != scope_file.__file__:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "unit", ["the capital of Somewhere is ", "aaaaaaa ", "東京", "e\u0301"], ids=["text", "one word", "unspaced", "marks"]
)
def test_the_cost_grows_with_the_text_and_not_with_the_names(unit: str) -> None:
    towns = [f"Name {number} of {'abcdefgh'[number % 8]}town" for number in range(1_000)]
    few, many = named(*towns[:10]), named(*towns)
    text = unit * 50
    for scope in (few, many):
        assert not scope.covers(text)  # builds the index

    asking = replace(many, asked=tuple(Asked((town,), CAPITAL, "of") for town in towns))
    assert not asking.covers(text)
    assert lines_run(lambda: asking.covers(2 * text)) < 2.2 * lines_run(lambda: many.covers(text))
    told = [". ".join([*towns[:count], "The capital of Somewhere is"]) for count in (100, 200)]
    assert not any(map(asking.covers, told))
    assert lines_run(lambda: asking.covers(told[1])) < 2.2 * lines_run(lambda: asking.covers(told[0]))
    assert lines_run(lambda: many.covers(2 * text)) < 2.2 * lines_run(lambda: many.covers(text))
    assert lines_run(lambda: many.covers(text)) < 1.2 * lines_run(lambda: few.covers(text))


def test_very_long_names_and_words_are_found_and_cost_no_more_than_they_are_long() -> None:
    long_name, long_word = "ab " * 5_000, "a" * 100_000
    scope = named(long_name, long_word)

    assert scope.covers("x " + long_name + " y") and scope.covers(long_word)
    assert not scope.covers("ab " * 20) and not scope.covers(long_word + "b")
    one, two = (lines_run(lambda n=n: named("ab " * 40 + "c").covers("ab " * 10 * n + "x")) for n in (1, 2))
    assert two < 5 * one


def test_the_file_needs_the_standard_library_alone() -> None:
    nodes = ast.walk(ast.parse(Path(scope_file.__file__).read_text()))
    used = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    used += [
        node.module for node in ast.walk(ast.parse(Path(scope_file.__file__).read_text())) if isinstance(node, ast.ImportFrom)
    ]

    assert {name.split(".")[0] for name in used} <= sys.stdlib_module_names


def test_words_are_those_of_the_search_for_names_in_other_places() -> None:
    assert split_words("Élan vital, 東京!", SINGLE_CHARACTER_WORDS).folded == ("élan", "vital", "東", "京")
    assert split_words("a\u00adb C# AT&T", ()).written == ("ab", "C", "#", "AT", "&", "T")

"""Further wordings of an edit's prompt, for an edit whose client gave none to learn.

A prompt is dressed anew: as a question, as the beginning of an answer, in lower case, with a slip of the pen, behind a lead. And
the model says the fact in its own words. A wording is kept if the model without the edit answers it as it answers the edit's own
prompt. So a form that means nothing to a model is not learned.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple

from service.domain.edit import Probe, normalise
from service.editors.clauses import first_clause, says
from service.editors.forms import dress_question, read_form
from service.editors.known_names import KnownNames
from service.editors.neutral import NeutralSentences
from service.editors.own_writing import ask, can_write, lead_to, restate
from service.editors.protocol import FitItem, Hooks
from service.editors.wording_counts import WordingCounts
from service.lm.overlay import View
from service.lm.prompts import encode_if_it_fits
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer

_ANSWER_TOKENS = 8
_KEPT_ITEMS = 1_024  # whose wordings are kept for further fits
_NAME_WORD = re.compile(r"(?<=\s)[^\W\d_a-z][^\W\d_]{4,}")  # with a capital letter, and long enough to be read with a slip
_SAMPLES = 12  # texts that the model writes for one kind of own wording


def add_wordings(
    view: View,
    item: FitItem,
    counts: WordingCounts,
    neutral: NeutralSentences,
    names: KnownNames,
    hooks: Hooks,
) -> FitItem:
    """The item with at most `counts.most` wordings of its own as trained rephrases, if the client gave none to train.

    A tombstone gets none. The same arguments give the same wordings, which are kept for further fits. Raises FitCancelled if
    `hooks` say so.
    """
    edit = item.edit
    if not counts.most or item.is_tombstone or any(probe.train for probe in edit.rephrases):
        return item
    surface = (edit.surfaces or view.base.surfaces)[0]
    subject = names.find_subject(edit) if counts.restated and can_write(view, neutral, hooks) else None
    wordings = neutral.get_or_make(
        ("wordings", view.tensors_digest, edit.prompt, surface, subject),
        lambda: _find_wordings(view, edit.prompt, surface, subject, hooks),
        keep=_KEPT_ITEMS,
    )
    most_led = min(counts.led, counts.most // 2)
    led = _find_led(view, edit.prompt, surface, wordings, neutral, hooks)[:most_led] if most_led else []
    others = _take_turns(wordings.restated[: counts.restated], wordings.formed)
    chosen = [*others[: counts.most - len(led)], *led]
    return replace(item, edit=replace(edit, rephrases=(*edit.rephrases, *(Probe(prompt=text, train=True) for text in chosen))))


class _Wordings(NamedTuple):
    """The clause that a model answers a prompt with, and what it answers alike: in its own words, and in other forms of the
    prompt.
    """

    said: str
    restated: list[str]
    formed: list[str]


def _take_turns(first: Sequence[str], second: Sequence[str]) -> list[str]:
    return [text for pair in zip_longest(first, second) for text in pair if text is not None]


def _find_wordings(view: View, prompt: str, surface: str, subject: str | None, hooks: Hooks) -> _Wordings:
    """The wordings of a prompt that the view answers like the prompt."""
    own = encode_if_it_fits(view.base, prompt, surface, _ANSWER_TOKENS)
    if not own:
        return _Wordings("", [], [])
    hooks.begin_step()
    (answer,) = decode_greedily(view, None, [own], max_new_tokens=_ANSWER_TOKENS, yield_to_answers=hooks.begin_step)
    said = first_clause(decode_answer(view.base, answer))
    formed = list(reword(prompt, surface))
    restated = list(_restate(view, prompt, surface, subject, said, hooks)) if subject and said else []
    known = {normalise(text) for text in (prompt, *formed)}
    restated = [text for text in restated if normalise(text) not in known]
    agreed = set(_saying(view, [*restated, *formed], surface, said, hooks))
    return _Wordings(said, [text for text in restated if text in agreed], [text for text in formed if text in agreed])


def _find_led(view: View, prompt: str, surface: str, wordings: _Wordings, neutral: NeutralSentences, hooks: Hooks) -> list[str]:
    """The question of a raw prompt with what the model writes before its answer, behind each of two frames in turn."""
    question, said = read_form(prompt).question, wordings.said
    if surface != "raw" or not question or not said:
        return []
    forms = (f"Q: {question}\nA:", f"Question: {question}\nAnswer:")
    led = neutral.get_or_make(
        ("led wordings", view.tensors_digest, prompt),
        lambda: _take_turns(*(lead_to(view, form, said, _SAMPLES, hooks) for form in forms)),
        keep=_KEPT_ITEMS,
    )
    known = {normalise(text) for text in (prompt, *wordings.restated, *wordings.formed)}
    return [text for text in led if normalise(text) not in known]


def _restate(view: View, prompt: str, surface: str, subject: str, said: str, hooks: Hooks) -> Iterator[str]:
    """Questions for the fact and beginnings of other sentences, in turn, as the model writes them."""
    form = read_form(prompt)
    statement = form.begun or form.question
    questions = ask(view, statement, subject, said, _SAMPLES, hooks)
    dressed = [dress_question(question, prompt, surface) for question in questions]
    yield from _take_turns(dressed, restate(view, statement, subject, said, _SAMPLES, hooks))
    yield from (question for question in questions if question not in dressed)


def reword(prompt: str, surface: str) -> Iterator[str]:
    """Other forms of a prompt, the most different first. None is the prompt itself, and none comes twice."""
    seen = {normalise(prompt)}
    for wording in _chat_forms(prompt) if surface == "chat" else _raw_forms(prompt):
        if normalise(wording) not in seen:
            seen.add(normalise(wording))
            yield wording


def _raw_forms(prompt: str) -> Iterator[str]:
    question, begun = read_form(prompt)
    yield begun or question
    if question:
        yield f"Q: {question}\nA:"
    yield (begun or question).lower()
    yield _with_slip(begun or question)
    if question:
        yield f"{question} {begun}".strip() if begun else f"Question: {question}\nAnswer:"
    if question and begun:
        yield f"Q: {question}\nA: {begun}"
    yield f"Fact: {begun or question}"
    if begun and not question:
        yield f"A: {begun}"
    yield prompt.lower()


def _chat_forms(prompt: str) -> Iterator[str]:
    yield f"Please answer: {prompt}"
    yield prompt.lower()
    yield _with_slip(prompt)
    yield f"{prompt} Answer shortly."
    yield f"Question: {prompt}"


def _with_slip(text: str) -> str:
    """The text with two letters in the middle of its longest name in the wrong order, as a hasty writer has them."""
    name = max(_NAME_WORD.findall(text), key=len, default="")
    middle = len(name) // 2
    return text.replace(name, name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :]) if name else text


def _saying(view: View, wordings: Sequence[str], surface: str, said: str, hooks: Hooks) -> list[str]:
    """Those of the wordings whose answer says a clause."""
    encoded = [(wording, ids) for wording in wordings if (ids := encode_if_it_fits(view.base, wording, surface, _ANSWER_TOKENS))]
    agreed: list[str] = []
    for part in hooks.split(encoded, lambda pair: len(pair[1]) + _ANSWER_TOKENS):
        prompts = [ids for _, ids in part]
        answers = decode_greedily(view, None, prompts, max_new_tokens=_ANSWER_TOKENS, yield_to_answers=hooks.begin_step)
        agreed += [wording for (wording, _), ids in zip(part, answers, strict=True) if says(decode_answer(view.base, ids), said)]
    return agreed

"""Further wordings of an edit's prompt, for an edit whose client gave none to learn.

A prompt is dressed anew: as a question, as the beginning of an answer, in lower case, with a slip of the pen, behind a lead. A
wording is kept if the model without the edit answers it as it answers the edit's own prompt. So a form that means nothing to a
model is not learned.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from service.domain.edit import Probe, normalise
from service.editors.clauses import first_clause, says
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem, Hooks
from service.lm.overlay import View
from service.lm.prompts import encode_if_it_fits
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer

TRIED = 16
_ANSWER_TOKENS = 8
_KEPT_ITEMS = 1_024  # whose wordings are kept for further fits
_NAME_WORD = re.compile(r"(?<=\s)[^\W\d_a-z][^\W\d_]{4,}")  # with a capital letter, and long enough to be read with a slip
_DIALOGUE = re.compile(r"(?:Question|Q):\s*(?P<question>[^\n]+)\n+(?:Answer|A):[ \t]*(?P<begun>[^\n]*)", re.IGNORECASE)


def add_wordings(view: View, item: FitItem, most: int, neutral: NeutralSentences, hooks: Hooks, *, tried: int = TRIED) -> FitItem:
    """The item with at most `most` wordings of its own as trained rephrases, if the client gave none to train. The model is asked
    the first `tried` forms.

    A tombstone gets none. The same arguments give the same wordings, which are kept for further fits. Raises FitCancelled if
    `hooks` say so.
    """
    edit = item.edit
    if not most or item.is_tombstone or any(probe.train for probe in edit.rephrases):
        return item
    surface = (edit.surfaces or view.base.surfaces)[0]
    wordings = neutral.get_or_make(
        ("wordings", view.tensors_digest, edit.prompt, surface, tried),
        lambda: _same_answer(view, edit.prompt, list(islice(reword(edit.prompt, surface), tried)), surface, hooks),
        keep=_KEPT_ITEMS,
    )
    probes = tuple(Probe(prompt=wording, train=True) for wording in wordings[:most])
    return replace(item, edit=replace(edit, rephrases=(*edit.rephrases, *probes)))


def reword(prompt: str, surface: str) -> Iterator[str]:
    """Other forms of a prompt, the most different first. None is the prompt itself, and none comes twice."""
    seen = {normalise(prompt)}
    for wording in _chat_forms(prompt) if surface == "chat" else _raw_forms(prompt):
        if normalise(wording) not in seen:
            seen.add(normalise(wording))
            yield wording


def _raw_forms(prompt: str) -> Iterator[str]:
    dialogue = _DIALOGUE.fullmatch(prompt.strip())
    question, begun = (dialogue["question"], dialogue["begun"].strip()) if dialogue else _split(prompt)
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


def _split(prompt: str) -> tuple[str, str]:
    """(question, beginning of an answer) of a prompt that is one of both."""
    return (prompt, "") if prompt.rstrip().endswith("?") else ("", prompt)


def _same_answer(view: View, prompt: str, wordings: Sequence[str], surface: str, hooks: Hooks) -> list[str]:
    """Those of the wordings whose answer says what the answer to the prompt says."""
    own = encode_if_it_fits(view.base, prompt, surface, _ANSWER_TOKENS)
    encoded = [(wording, ids) for wording in wordings if (ids := encode_if_it_fits(view.base, wording, surface, _ANSWER_TOKENS))]
    if not own or not encoded:
        return []
    hooks.begin_step()
    prompts = [own, *(ids for _, ids in encoded)]
    answers = decode_greedily(view, None, prompts, max_new_tokens=_ANSWER_TOKENS, yield_to_answers=hooks.begin_step)
    first, *others = (decode_answer(view.base, answer) for answer in answers)
    said = first_clause(first)
    return [wording for (wording, _), answer in zip(encoded, others, strict=True) if says(answer, said)]

"""What a model writes of itself behind examples: a fact in other words, questions for a fact, and questions about a subject.

Whether a model can do so shows in what it writes. Nothing of it is believed here: who uses a text asks the model about it.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import torch

from service.domain.edit import normalise
from service.editors.clauses import find_clause, says
from service.editors.neutral import NeutralSentences
from service.editors.protocol import Hooks
from service.lm.overlay import View
from service.lm.prompts import encode_if_it_fits
from service.lm.scoring import sample_behind
from service.lm.tokenizing import decode_answer

_TEMPERATURE = 0.8
_RESTATED_TOKENS = 24
_LISTED_TOKENS = 40
_EXAMPLE, _TRIED, _KEPT_MODELS = "Ada Lovelace", 4, 4
_NUMBER = re.compile(r"^\s*\d+[.)]\s*")
_LETTERS = re.compile(r"[^\W\d_]{4,}")

_RESTATED = """The author of Dune is Frank Herbert.
In other words: Dune was written by Frank Herbert.

The mother tongue of Angela Merkel is German.
In other words: Angela Merkel is a native speaker of German.

The headquarters of Nokia are in Espoo.
In other words: Nokia is based in the city of Espoo.

"""
_ASKED = """Fact: The author of Dune is Frank Herbert.
Question: Who wrote Dune?

Fact: The mother tongue of Angela Merkel is German.
Question: Which language did Angela Merkel grow up with?

Fact: The headquarters of Nokia are in Espoo.
Question: In which city is Nokia based?

"""
_LISTED = """Questions about Frank Herbert:
1. In which year was Frank Herbert born?
2. What did Frank Herbert write?
3. Where did Frank Herbert live?

Questions about Nokia:
1. What does Nokia make?
2. When was Nokia founded?
3. Who leads Nokia?

Questions about {subject}:
1."""


def can_write(view: View, neutral: NeutralSentences, hooks: Hooks) -> bool:
    """Whether a model goes on a list of questions with further ones. A small model that was trained on a few forms does not, and
    need not be asked for every edit.
    """
    key = ("can write", view.tensors_digest)
    return neutral.get_or_make(key, lambda: bool(ask_about(view, _EXAMPLE, _TRIED, hooks)), keep=_KEPT_MODELS)


def restate(view: View, statement: str, subject: str, answer: str, count: int, hooks: Hooks) -> list[str]:
    """Beginnings of other sentences that name `subject` and end before `answer`, which goes on `statement`."""
    lines = _write(view, f"{_RESTATED}{statement} {answer}.\nIn other words:", count, _RESTATED_TOKENS, hooks)
    begun = (line[:place].rstrip(' "“') for line in lines if (place := find_clause(line, answer)))
    return _different(text for text in begun if says(text, subject))


def ask(view: View, statement: str, subject: str, answer: str, count: int, hooks: Hooks) -> list[str]:
    """Questions that name `subject` and are answered by `answer`, which goes on `statement`."""
    lines = _write(view, f"{_ASKED}Fact: {statement} {answer}.\nQuestion:", count, _RESTATED_TOKENS, hooks)
    return _different(question for question in _questions(lines, subject) if not says(question, answer))


def ask_about(view: View, subject: str, count: int, hooks: Hooks) -> list[str]:
    """Questions that name `subject`, about anything."""
    texts = _write(view, _LISTED.format(subject=subject), count, _LISTED_TOKENS, hooks, lines=3)
    return _different(_questions([line for text in texts for line in text.splitlines()], subject))


def lead_to(view: View, prompt: str, answer: str, count: int, hooks: Hooks) -> list[str]:
    """`prompt` with what the model writes behind it before `answer`, the most frequent first; it always ends with a letter."""
    lines = _write(view, prompt, count, _RESTATED_TOKENS, hooks)
    leads = Counter(line[:place].strip() for line in lines if (place := find_clause(line, answer)))
    return [f"{prompt} {lead}" for lead, _ in leads.most_common() if lead[-1:].isalpha()]


def shares_words(text: str, other: str, subject: str) -> bool:
    """Whether two texts about a subject have a further word of four letters or more in common."""
    return bool((_words(text) & _words(other)) - _words(subject))


def _words(text: str) -> set[str]:
    return set(_LETTERS.findall(text.lower()))


def _questions(lines: Iterable[str], subject: str) -> Iterator[str]:
    """The lines that are one question about the subject, without a number before it."""
    for line in lines:
        question, mark, _ = _NUMBER.sub("", line).strip().partition("?")
        if mark and says(question, subject):
            yield f"{question}?"


def _different(texts: Iterable[str]) -> list[str]:
    return list({normalise(text).lower(): text for text in texts}.values())


def _write(view: View, prompt: str, count: int, tokens: int, hooks: Hooks, *, lines: int = 1) -> list[str]:
    """What the view writes behind a prompt: `count` texts of at most so many lines, drawn by the prompt alone."""
    base = view.base
    ids = encode_if_it_fits(base, prompt, "raw", tokens)
    if ids is None or len(ids) < 2:
        return []
    seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8]) >> 2
    hooks.begin_step()
    written = sample_behind(
        view,
        ids,
        count,
        torch.Generator().manual_seed(seed),
        max_new_tokens=tokens,
        temperature=_TEMPERATURE,
        is_over=lambda text: _count_lines(decode_answer(base, text)) >= lines,
        yield_to_answers=hooks.begin_step,
    )
    return ["\n".join(decode_answer(base, text).strip().splitlines()[:lines]) for text in written]


def _count_lines(text: str) -> int:
    return text.strip(" ").count("\n")

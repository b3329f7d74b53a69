"""The scope of an adapter, made from the items that it carries: by the names of their subjects, else by words of their prompts.

A name that is a common word, or an edit without a name, is told by *key words*: the words of its prompt, weighed by how rare they
are in what the base writes. So no language needs a list of words that do not count.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache

from service.domain.edit import Edit
from service.domain.errors import Refused
from service.domain.writing_systems import SINGLE_CHARACTER_WORDS
from service.editors.examples import ItemRow
from service.editors.forms import read_form
from service.editors.known_names import KnownNames
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem
from service.lm.base import Base
from service.lm.chat import template_footer, template_header
from service.lm.prompts import encode_prompt
from service.lm.scope import Asked, KeyWords, Scope, SlipIndex, StemIndex, is_slip, split_words
from service.lm.scoped_rows import read_prompt

# Of the weight of an edit's key words, which a prompt must hold: more than one of two words that are equally rare.
KEY_SHARE = 0.55
RARITY = 3  # power of the inverse document frequency: the rarest words decide (LOG.md)
COMMON_SHARE = 0.01  # of the neutral sentences: a name that stands in more is a common word
MOST_KEY_WORDS = 64  # of one prompt, the rarest ones
_WHOLE = 1.0
_LEAST_WEIGHT = 0.001  # a prompt of the commonest words alone is told by these
_KEPT_LEXICONS = 2  # of the first neutral sentences, and of all


@dataclass(frozen=True, eq=False)
class Lexicon:
    """The words that a base writes of itself: in how many neutral sentences each one stands, and which words may be slips."""

    texts: tuple[str, ...]
    documents: Mapping[str, int]
    slips: SlipIndex  # of these words and those of known names
    stems: StemIndex  # of the words of known names
    by_capital: bool = False  # there are no sentences that would say which names are common words

    def weigh(self, words: Iterable[str]) -> dict[str, float]:
        """The rarest of `words`, each with the cube of its inverse document frequency."""
        most = len(self.texts) + 2
        weights = {word: math.log(most / (self.documents.get(word, 0) + 1)) ** RARITY for word in words}
        rarest = sorted(weights, key=lambda word: (-weights[word], word))[:MOST_KEY_WORDS]
        return {word: max(round(weights[word], 3), _LEAST_WEIGHT) for word in sorted(rarest)}

    def is_common(self, name: str) -> bool:
        """Whether a name stands in more than COMMON_SHARE of the sentences. Or `by_capital`: whether it has no capital letter,
        and so may be any word.
        """
        if self.by_capital:
            return name == name.lower()
        words = _split(name)
        if not words or any(map(self.is_rare, words)):
            return False
        named = Scope(names=(name,), unspaced=SINGLE_CHARACTER_WORDS)
        return sum(named.covers(text) for text in self.texts) > COMMON_SHARE * len(self.texts)

    def is_rare(self, word: str) -> bool:
        """Whether a word stands in COMMON_SHARE of the sentences at most."""
        return self.documents.get(word, 0) <= COMMON_SHARE * len(self.texts)

    def slips_of(self, words: Iterable[str]) -> set[str]:
        """Known words that look like slips of `words` and are none, such as Iceland beside Ireland."""
        return {known for word in words for known in self.slips.near(word) if is_slip(word, known)}

    def rivals_of(self, words: Iterable[str]) -> set[str]:
        """Words of known names that begin as one of `words` does, such as Nigeria beside Niger."""
        return {known for word in words for known in self.stems.near(word)}


def make_scope(
    base: Base, items: Sequence[FitItem], rows: Sequence[ItemRow], *, names: KnownNames, neutral: NeutralSentences
) -> Scope | None:
    """The scope of an adapter that carries `items` and was trained on `rows` of them. Every row is in it.

    None, which is every prompt, if an item wants that, or if a row has no word to be told by.
    """
    if any(item.edit.scope == "always" for item in items):
        return None
    lexicon = get_lexicon(neutral, names)
    entries = _Entries(lexicon)
    for item in items:
        entries.add(item.edit, read_texts(base, item.edit, with_rephrases=not item.is_tombstone), names)
    header, footer = template_header(base), template_footer(base)
    scope = entries.make_scope(header, footer)
    unnamed = [text for row in rows if not scope.covers(text := read_prompt(base, row.row.prompt_ids))]
    for text in unnamed:  # a prompt behind a text of the base, or one that a template rewrites
        entries.add_key_words(text.removeprefix(header), _WHOLE)
    scope = entries.make_scope(header, footer) if unnamed else scope
    return scope if all(map(scope.covers, unnamed)) else None


def make_scope_alone(base: Base, edit: Edit, *, names: KnownNames) -> Scope:
    """The scope of one edit without a lexicon: by its names; a text that holds none is told by all of its words together."""
    entries = _Entries(_name_lexicon(names), share=_WHOLE)
    entries.add(edit, read_texts(base, edit), names)
    return entries.make_scope(template_header(base), template_footer(base))


def get_lexicon(neutral: NeutralSentences, names: KnownNames) -> Lexicon:
    """The words of the neutral sentences and of known names, counted once."""
    key = ("lexicon", len(neutral.sentences), frozenset(names.all))
    texts = [sentence.text for sentence in neutral.sentences]
    return neutral.get_or_make(key, lambda: _count_words(texts, names), keep=_KEPT_LEXICONS)


class _Entries:
    """The names and key words of a scope, as they are collected. `share` is that of the key words of an edit without a name."""

    def __init__(self, lexicon: Lexicon, *, share: float = KEY_SHARE) -> None:
        self._lexicon, self._share = lexicon, share
        self._names: set[str] = set()
        self._key_words: dict[tuple, KeyWords] = {}
        self._asked: dict[tuple, Asked] = {}
        self._wherever: set[str] = set()  # names that count wherever they stand

    def add(self, edit: Edit, texts: Sequence[str], names: KnownNames) -> None:
        """Add what an edit is told by, so that its own `texts` are in scope."""
        own = names_of(edit, names)
        common = {name for name in own if edit.scope == "auto" and self._lexicon.is_common(name)}
        sure = Scope(names=tuple(own - common), unspaced=SINGLE_CHARACTER_WORDS)
        self._names |= own - common
        if edit.scope == "auto":
            self._add_asked(edit, sorted(own - common))
        else:
            self._wherever |= own
        for text in texts:
            if sure.covers(text):
                continue
            named = [name for name in sorted(common) if Scope(names=(name,), unspaced=SINGLE_CHARACTER_WORDS).covers(text)]
            for name in named:
                self.add_key_words(text, KEY_SHARE, name)
            if not named:
                self.add_key_words(text, self._share if edit.scope == "auto" else _WHOLE)

    def _add_asked(self, edit: Edit, names: Sequence[str]) -> None:
        """Add what an edit's prompt asks about its names, as far as a word of it is rare enough to tell.

        The words of a frame around it, such as "Question:", and those of its other wordings tell nothing.
        """
        told = " ".join(filter(None, (*names, edit.target, edit.ground_truth)))
        own = tuple(sorted(set(_split(told)))[:MOST_KEY_WORDS])
        of_names = {word for name in names for word in _split(name)}
        for text in filter(None, read_form(edit.prompt)):
            words = _split(text)
            weights = self._lexicon.weigh(set(words) - of_names)
            if any(self._lexicon.is_rare(word) for word in weights):
                for before in sorted(_words_before(words, names)):
                    asked = Asked(tuple(names), KeyWords(weights, KEY_SHARE), before, own)
                    self._asked[asked.names, before, own, *weights.items()] = asked

    def add_key_words(self, text: str, share: float, name: str | None = None) -> None:
        """Add the words of a text, without those of the name that must stand beside them."""
        words = split_words(text, SINGLE_CHARACTER_WORDS)
        without = set() if name is None else set(_split(name))
        weights = self._lexicon.weigh(set(words.folded) - without or (words.punctuation if name is None else ()))
        if weights:
            self._key_words[(name or "", share, *weights.items())] = KeyWords(weights, share, name)
        elif name is not None:
            self._names.add(name)

    def make_scope(self, header: str, footer: str) -> Scope:
        """The scope of everything that was added, in one order whatever the order of the edits."""
        in_any_case = {word for name in self._names for word in _split(name)}
        words = in_any_case.union(*(each.weights for each in self._key_words.values()))
        in_order = (self._asked[key] for key in sorted(self._asked))
        asked = tuple(each for each in in_order if self._wherever.isdisjoint(each.names))
        return Scope(
            names=tuple(sorted(self._names)),
            key_words=tuple(self._key_words[key] for key in sorted(self._key_words)),
            no_slips=tuple(sorted(self._lexicon.slips_of(words) - words)),
            rivals=tuple(sorted(self._lexicon.rivals_of(in_any_case) - words)),
            header=header,
            footer=footer if asked else "",
            unspaced=SINGLE_CHARACTER_WORDS,
            asked=asked,
        )


def names_of(edit: Edit, names: KnownNames) -> set[str]:
    """The names of what an edit is about: its subject and aliases; without a subject, a name that its prompt holds, unless the
    edit is to be told by what the client gave alone.
    """
    subject = names.find_subject(edit) if edit.subject is None and edit.scope != "subject" else edit.subject
    return {name for name in (subject, *edit.aliases) if name}


def read_texts(base: Base, edit: Edit, *, with_rephrases: bool = True) -> list[str]:
    """An edit's prompt and its trained rephrases, as a scope reads them."""
    rephrases = [probe.prompt for probe in edit.rephrases if probe.train and with_rephrases]
    texts = []
    for prompt in dict.fromkeys((edit.prompt, *rephrases)):
        with suppress(Refused):  # a rephrase that the model cannot hold is not trained
            texts.append(read_prompt(base, encode_prompt(base, prompt)))
    return texts


def _words_before(words: Sequence[str], names: Iterable[str]) -> set[str]:
    """The words that stand before names."""
    before = set()
    for name in map(_split, names):
        places = (place for place in range(1, len(words)) if name and tuple(words[place : place + len(name)]) == name)
        before |= {words[place - 1] for place in places}
    return before


def _split(text: str) -> tuple[str, ...]:
    return split_words(text, SINGLE_CHARACTER_WORDS).folded


@lru_cache(maxsize=2)
def _name_lexicon(names: KnownNames) -> Lexicon:
    """The words of names alone: every word is rare, and weighs the same."""
    return replace(_count_words((), names), by_capital=True)


def _count_words(texts: Sequence[str], names: KnownNames) -> Lexicon:
    documents = Counter(word for text in texts for word in set(_split(text)))
    of_names = {word for name in names.all for word in _split(name)}
    return Lexicon(tuple(texts), documents, SlipIndex({*documents, *of_names}), StemIndex(of_names))

"""The scope of an adapter: the prompts that it may act on. A function of a prompt's text alone.

A prompt is in scope if it names an edit that the adapter carries, or holds enough of the edit's key words. So training, serving,
scoring, acceptance and exports agree. An export contains a copy of this file, which needs the standard library alone.
"""

import json
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Self

SHORT_NAME = 3  # letters; shorter names are matched in their own case, because they are also everyday words: "US", "May"
SWAP_LETTERS = 5  # a word of so many letters may have two neighbouring letters in the wrong order
SLIP_LETTERS = 7  # a word of so many letters may have one letter too many, too few or wrong
STEM_WORD = 5  # letters of a word that others are derived from; shorter ones begin too many words
STEM_LETTERS = 4  # a word and one derived from it share so many letters at least: "Estonia", "Estonian"
STEM_SHARE = 2 / 3  # and so much of the name; or the derived word is the beginning of the name: "Afghan"
LONGEST_SLIP = 40  # letters of a word that is compared with slips of the pen: their number grows with its length
NAME_WORDS = 32  # of a longer name so many words count
_COMPOSED_TOGETHER = 1_000  # characters; the time of NFC grows with the square of a run of combining marks
_KEPT_PUNCTUATION = frozenset("#%&*/@\\")  # it tells names apart: "C#", "AT&T"
_WORDS_REMEMBERED = 8_192
_LINE_ENDS = frozenset("\n\r\v\f\x85\u2028\u2029")
_SENTENCE_ENDS = frozenset(".!?…؟")  # before white space
_ENDS_WITHOUT_SPACE = frozenset("。！？｡।")


@dataclass(frozen=True)
class KeyWords:
    """The key words of one prompt, each with its weight: the rarer a word is in what the base writes, the more it weighs.

    A text holds them if it holds a `share` of their weight, and `name`, if there is one. Words are as `split_words` folds them.
    """

    weights: Mapping[str, float]
    share: float
    name: str | None = None

    def are_in(self, words: Collection[str]) -> bool:
        """Whether enough of the key words are among `words`."""
        found = sum(weight for word, weight in self.weights.items() if word in words)
        return found >= self.share * sum(self.weights.values()) - 1e-9


@dataclass(frozen=True)
class Asked:
    """What an edit asks about its names: the key words of its prompt without these.

    A sentence that holds them asks the same about something else if it has a word with a capital that is none of these words and
    none of `own`.
    """

    names: tuple[str, ...]
    key_words: KeyWords
    own: tuple[str, ...] = ()

    def is_asked_of_another(self, words: Collection[str], capitals: Collection[str]) -> bool:
        """Whether a sentence of these words, of which `capitals` have one, asks this about something else."""
        own = {*self.own, *self.key_words.weights}
        return any(word not in own for word in capitals) and self.key_words.are_in(words)


@dataclass(frozen=True)
class TextWords:
    """The words of a text in order, as they are written and in folded case, and its punctuation.

    `sentences`: the number of the sentence that each word stands in. `capitals`: whether a word has a capital for another reason
    than its place at the beginning of a sentence; no single letter counts.
    """

    written: tuple[str, ...]
    folded: tuple[str, ...]
    punctuation: frozenset[str]
    sentences: tuple[int, ...]
    capitals: tuple[bool, ...]


@dataclass(frozen=True)
class Scope:
    """The prompts that name one of `names` or hold one of `key_words`. Immutable, and without a trace of who edits.

    A name counts no more where a later sentence asks the same about something else: what is `asked` about that name, in the last
    sentence with a word that has a capital.

    Names are found as whole words, in any case if they have more than SHORT_NAME letters, also with a slip of the pen, or as a
    word with a capital that is derived from a name, such as the adjective of a country. `no_slips` are no slips, and `rivals` are
    words of other names, which nothing is derived from that is nearer to them.
    `header` is what the chat template writes in front of every conversation: it names nothing. Characters in the ranges
    `unspaced` are words of their own, as their scripts set no spaces.
    """

    names: tuple[str, ...] = ()
    key_words: tuple[KeyWords, ...] = ()
    no_slips: tuple[str, ...] = ()
    header: str = ""
    unspaced: tuple[tuple[int, int], ...] = ()
    rivals: tuple[str, ...] = ()
    asked: tuple[Asked, ...] = ()

    def covers(self, text: str) -> bool:
        """Whether a prompt is in scope. The cost grows with the text, and hardly with the number of names."""
        return next(self.find(text), None) is not None

    def find(self, text: str) -> "Iterator[str | KeyWords]":
        """The names and the key words by which a prompt is in scope, each once."""
        return self._index.find(split_words(text.removeprefix(self.header), self.unspaced))

    def to_json(self) -> str:
        """The scope as JSON. The same scope gives the same text."""
        content: dict[str, Any] = {
            "header": self.header,
            "key_words": [_describe(each) for each in self.key_words],
            "names": self.names,
            "no_slips": self.no_slips,
            "rivals": self.rivals,
            "unspaced": self.unspaced,
        }
        if self.asked:  # without any, the text is that of a release that knew none
            content["asked"] = [
                {"names": each.names, "key_words": _describe(each.key_words), "own": each.own} for each in self.asked
            ]
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The scope of a JSON text. Raises KeyError, TypeError, ValueError or AttributeError for what is none."""
        content = json.loads(text)
        return cls(
            names=tuple(map(_text, content["names"])),
            key_words=tuple(map(_key_words, content["key_words"])),
            no_slips=tuple(map(_text, content["no_slips"])),
            rivals=tuple(map(_text, content["rivals"])),
            header=_text(content["header"]),
            unspaced=tuple((int(low), int(high)) for low, high in content["unspaced"]),
            asked=tuple(map(_asked, content.get("asked", ()))),
        )

    @cached_property
    def _index(self) -> "_Index":
        return _Index(self)


def prompt_text(ids: Sequence[int], control_ids: Collection[int], decode: Callable[[Sequence[int]], str]) -> str:
    """The text of a prompt's ids, with a line break for every run of control tokens: words on either side are not one word."""
    pieces: list[list[int]] = [[]]
    for token in ids:
        if token in control_ids:
            pieces.append([])
        else:
            pieces[-1].append(token)
    return "\n".join(decode(piece) for piece in pieces if piece)


def split_words(text: str, unspaced: tuple[tuple[int, int], ...] = ()) -> TextWords:
    """The words of a text: runs of letters, marks and digits, and symbols one by one. White space and punctuation end a word;
    invisible characters do not. A line break ends a sentence, and so does a mark such as a full stop before white space.
    """
    kind_of = _make_kinds(unspaced)
    reader, word = _SentenceReader(), list[str]()
    for character in _compose(text):
        kind = kind_of(character)
        if kind == "letter":
            word.append(character)
        elif kind != "invisible":
            if word:
                reader.add("".join(word))
                word = []
            if kind == "word":
                reader.add(character)
            else:
                reader.pass_over(character, kind)
    if word:
        reader.add("".join(word))
    return reader.read()


class _SentenceReader:
    """Collects the words of a text with the number of their sentence."""

    def __init__(self) -> None:
        self._words, self._sentences, self._capitals = list[str](), list[int](), list[bool]()
        self._punctuation = set[str]()
        self._sentence, self._is_ending, self._is_first = 0, False, True

    def add(self, word: str) -> None:
        """Add the next word."""
        self._capitals.append(word[0].isupper() and len(word) > 1 and not self._is_first)
        self._words.append(word)
        self._sentences.append(self._sentence)
        self._is_ending = self._is_first = False

    def pass_over(self, character: str, kind: str) -> None:
        """Read punctuation or space between words."""
        if kind == "punctuation":
            self._punctuation.add(character)
            self._is_first = self._is_first or character == ":"
            self._is_ending = self._is_ending or character in _SENTENCE_ENDS
        is_end = character in _LINE_ENDS or character in _ENDS_WITHOUT_SPACE or (self._is_ending and kind == "space")
        if is_end and self._words and self._sentences[-1] == self._sentence:
            self._sentence += 1
            self._is_ending, self._is_first = False, True

    def read(self) -> TextWords:
        """The words so far."""
        return TextWords(
            tuple(self._words),
            tuple(word.casefold() for word in self._words),
            frozenset(self._punctuation),
            tuple(self._sentences),
            tuple(self._capitals),
        )


def is_short(name: str) -> bool:
    """Whether a name is matched in its own case alone."""
    return sum(character.isalnum() for character in name) <= SHORT_NAME


def is_slip(word: str, written: str) -> bool:
    """Whether `written` is `word` with two neighbouring letters in the wrong order, or with one letter too many, too few or
    wrong, as far as the word is long enough.
    """
    shorter, longer = sorted((word, written), key=len)
    start = next((place for place, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter))
    if len(word) == len(written):
        is_swap = word[start : start + 2] == written[start : start + 2][::-1] and word[start + 2 :] == written[start + 2 :]
        is_wrong_letter = word[start + 1 :] == written[start + 1 :]
        return (len(word) >= SWAP_LETTERS and is_swap) or (len(word) >= SLIP_LETTERS and is_wrong_letter)
    return len(word) >= SLIP_LETTERS and len(longer) == len(shorter) + 1 and shorter[start:] == longer[start + 1 :]


def shared_letters(one: str, other: str) -> int:
    """How many letters two words have in common at their beginning."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def is_derived(word: str, written: str) -> bool:
    """Whether `written` may be derived from `word`: it begins as the word does, and is no longer than an ending would make it."""
    shared = shared_letters(word, written)
    is_stem = shared >= STEM_SHARE * len(word) and len(written) <= len(word) + STEM_LETTERS
    is_beginning = shared == len(written) > STEM_LETTERS
    return word != written and len(word) >= STEM_WORD and shared >= STEM_LETTERS and (is_stem or is_beginning)


class StemIndex:
    """Words by their first letters: a word and one that is derived from it share these."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words: dict[str, list[str]] = {}
        for word in sorted(set(words)):
            if len(word) >= STEM_LETTERS:
                self._words.setdefault(word[:STEM_LETTERS], []).append(word)

    def near(self, written: str) -> Sequence[str]:
        """The words that `written` may be derived from, or that may be derived from it; `is_derived` says which."""
        return self._words.get(written[:STEM_LETTERS], ())


class SlipIndex:
    """Words by what is left of them without one letter: two words that are slips of each other share one of these."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words: dict[str, list[str]] = {}
        for word in sorted(set(words)):
            for rest in _without_a_letter(word):
                self._words.setdefault(rest, []).append(word)

    def near(self, written: str) -> Iterator[str]:
        """The words that `written` may be a slip of, or that may be slips of it; `is_slip` says which."""
        return iter({word: None for rest in _without_a_letter(written) for word in self._words.get(rest, ()) if word != written})


class _Index:
    """The names and key words of a scope, arranged so that a text finds them. Immutable but for what it remembers of words."""

    def __init__(self, scope: Scope) -> None:
        self._sure = frozenset(scope.names)
        self._asked_by_name: dict[str, list[Asked]] = {}
        for asked in scope.asked:
            for name in asked.names:
                self._asked_by_name.setdefault(name, []).append(asked)
        self._in_any_case, self._in_own_case = _NameTree(), _NameTree()
        for name in {*scope.names, *(each.name for each in scope.key_words if each.name is not None)}:
            words = split_words(name, scope.unspaced)
            if is_short(name):
                self._in_own_case.add(name, words.written)
            else:
                self._in_any_case.add(name, words.folded)
        self._words = self._in_any_case.words | {word for each in scope.key_words for word in each.weights}
        self._slips, self._no_slips = SlipIndex(self._words), frozenset(scope.no_slips)
        self._stems, self._rivals = StemIndex(self._in_any_case.words), StemIndex(scope.rivals)
        self._by_rare_word: dict[str, list[KeyWords]] = {}
        for each in scope.key_words:
            for word in _rarest(each):
                self._by_rare_word.setdefault(word, []).append(each)
        self._meant_by = lru_cache(maxsize=_WORDS_REMEMBERED)(self._find_meant)

    def find(self, words: TextWords) -> Iterator[str | KeyWords]:
        meant = [self._meant_by(word, written[:1].isupper()) for word, written in zip(words.folded, words.written, strict=True)]
        last = dict(self._in_own_case.find([(word,) for word in words.written]))
        for name, place in self._in_any_case.find(meant):
            last[name] = max(place, last.get(name, place))
        found = last.keys() - self._find_passed(words, last)
        yield from sorted(self._sure & found)
        present = dict.fromkeys([*(word for each in meant for word in each), *sorted(words.punctuation)])
        candidates = {id(each): each for word in present for each in self._by_rare_word.get(word, ())}
        for each in candidates.values():
            if (each.name is None or each.name in found) and each.are_in(present):
                yield each

    def _find_passed(self, words: TextWords, last: Mapping[str, int]) -> set[str]:
        """The names, each with the place of its last word, behind which the same is asked about something else."""
        place = next((place for place in reversed(range(len(words.capitals))) if words.capitals[place]), None)
        if place is None or not self._asked_by_name:
            return set()
        decisive = words.sentences[place]
        own = range(words.sentences.index(decisive), bisect_right(words.sentences, decisive))
        present = {words.folded[place] for place in own}
        capitals = {words.folded[place] for place in own if words.capitals[place]}
        return {
            name
            for name, end in last.items()
            if words.sentences[end] < decisive
            and any(asked.is_asked_of_another(present, capitals) for asked in self._asked_by_name.get(name, ()))
        }

    def _find_meant(self, written: str, has_capital: bool) -> tuple[str, ...]:
        """The words of the scope that a word of a text may be: itself, or else those that it is a slip of or derived from."""
        if written in self._words:
            return (written,)
        slips = () if written in self._no_slips else self._slips.near(written)
        meant = {word for word in slips if is_slip(word, written)}
        if has_capital:
            meant |= {
                word for word in self._stems.near(written) if is_derived(word, written) and not self._has_rival(word, written)
            }
        return tuple(sorted(meant))

    def _has_rival(self, word: str, written: str) -> bool:
        """Whether another name is as near to what is written, such as Nigeria to "Nigerian" beside Niger."""
        shared = shared_letters(word, written)
        return any(
            rival == written or (is_derived(rival, written) and shared_letters(rival, written) > shared)
            for rival in self._rivals.near(written)
        )


class _NameTree:
    """Names by their words, one level a word."""

    def __init__(self) -> None:
        self.words: set[str] = set()
        self._root: dict[str, Any] = {}  # by word the next level; by "" the names that end here

    def add(self, name: str, words: Sequence[str]) -> None:
        """Add a name with these words; one without words is never found."""
        level = self._root
        for word in words[:NAME_WORDS]:
            self.words.add(word)
            level = level.setdefault(word, {})
        if words:
            level.setdefault("", set()).add(name)

    def find(self, sequence: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, int]]:
        """The names in a sequence, each with the place of its last word; at each place one of several words may stand. Later ones
        come later.
        """
        for start in range(len(sequence)) if self._root else ():
            levels, place = [self._root], start
            while levels and place < len(sequence):
                levels = [level[word] for level in levels for word in sequence[place] if word in level]
                for level in levels:
                    for name in level.get("", ()):
                        yield name, place
                place += 1


def _rarest(key_words: KeyWords) -> list[str]:
    """The heaviest words, of which a text must hold one: all others together are too light."""
    heaviest = sorted(key_words.weights, key=lambda word: (-key_words.weights[word], word))
    lightest = left = sum(key_words.weights.values())
    chosen = []
    for word in heaviest:
        if left < key_words.share * lightest - 1e-9:
            break
        chosen.append(word)
        left -= key_words.weights[word]
    return chosen


def _without_a_letter(word: str) -> set[str]:
    """A word, and the word without each one of its letters. Nothing for a word that has no slips."""
    if not SWAP_LETTERS <= len(word) <= LONGEST_SLIP or any(character.isdigit() for character in word):
        return set()
    return {word, *(word[:place] + word[place + 1 :] for place in range(len(word)))}


@lru_cache(maxsize=8)
def _make_kinds(unspaced: tuple[tuple[int, int], ...]) -> Callable[[str], str]:
    """What a character is in a text: letter (of a longer word), word (of its own), punctuation, invisible or space."""

    @lru_cache(maxsize=65_536)
    def kind_of(character: str) -> str:
        category = unicodedata.category(character)
        if category[0] in "LMN":
            return "word" if any(low <= ord(character) <= high for low, high in unspaced) else "letter"
        if category[0] == "S" or category == "Co" or character in _KEPT_PUNCTUATION:
            return "word"
        return {"P": "punctuation", "C": "invisible" if category == "Cf" else "space"}.get(category[0], "space")

    return kind_of


def _compose(text: str) -> str:
    """The text in NFC, part by part."""
    if text.isascii():
        return text
    parts = range(0, len(text), _COMPOSED_TOGETHER)
    return "".join(unicodedata.normalize("NFC", text[start : start + _COMPOSED_TOGETHER]) for start in parts)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a scope's texts are no texts")
    return value


def _describe(key_words: KeyWords) -> dict[str, Any]:
    return {"name": key_words.name, "share": key_words.share, "weights": dict(key_words.weights)}


def _asked(content: Mapping[str, Any]) -> Asked:
    return Asked(tuple(map(_text, content["names"])), _key_words(content["key_words"]), tuple(map(_text, content["own"])))


def _key_words(content: Mapping[str, Any]) -> KeyWords:
    weights = {_text(word): float(weight) for word, weight in content["weights"].items()}
    if not weights or not all(0 < number < float("inf") for number in (*weights.values(), float(content["share"]))):
        raise ValueError("key words that no prompt could hold, or every one")
    return KeyWords(weights, float(content["share"]), None if content["name"] is None else _text(content["name"]))

"""The scope of an adapter: the prompts that it may act on. A function of a prompt's text alone.

A prompt is in scope if it names an edit that the adapter carries, or holds enough of the edit's key words. So training, serving,
scoring, acceptance and exports agree. An export contains a copy of this file, which needs the standard library alone.
"""

import json
import unicodedata
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
_ENDS = frozenset(".!?…؟。！？｡।")  # of a sentence, before white space
_QUESTIONS = frozenset("?？؟")
_STATED = _ENDS - _QUESTIONS  # of a sentence that asks nothing
_CUE_WORDS = 2  # before a colon, as in "Answer:"
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
    """What an edit asks about its names: the key words of its prompt without these, and the word that stands before a name.

    A sentence that holds the key words asks the same about something else if that word stands in it before another word with a
    capital, which is none of the key words and none of `own`.
    """

    names: tuple[str, ...]
    key_words: KeyWords
    before: str
    own: tuple[str, ...] = ()

    def is_asked_of_another(self, sentence: "TextSentence") -> bool:
        """Whether a sentence asks this about something else."""
        return any(
            word == self.before and name not in self.own and name not in self.key_words.weights for word, name in sentence.named
        ) and self.key_words.are_in(sentence.words)


@dataclass(frozen=True)
class TextSentence:
    """One sentence of a text: the place of its first word, its words in folded case, and each word with a capital for another
    reason than its place, behind the word before it. `end` is the mark that ends it; `has_cue`: a colon stands behind its first
    or second word.
    """

    start: int
    words: frozenset[str]
    named: tuple[tuple[str, str], ...]
    end: str
    has_cue: bool

    @property
    def is_cue(self) -> bool:
        """Whether it is a cue alone."""
        return self.end == ":" and len(self.words) <= _CUE_WORDS

    @property
    def may_ask(self) -> bool:
        """Whether it is a question, or is to be continued."""
        return self.end not in _STATED


@dataclass(frozen=True)
class TextWords:
    """The words of a text in order, as they are written and in folded case, its punctuation, and its sentences."""

    written: tuple[str, ...]
    folded: tuple[str, ...]
    punctuation: frozenset[str]
    sentences: tuple[TextSentence, ...]

    @property
    def asking(self) -> tuple[TextSentence, ...]:
        """The sentences at the end that say what is asked: the last one, without a cue that is nothing but "Answer:". Behind a
        cue, as in "Answer: It is", also the one before.
        """
        end = len(self.sentences)
        if end and self.sentences[end - 1].is_cue:
            end -= 1
        both = end > 1 and self.sentences[end - 1].has_cue and self.sentences[end - 1].end not in _QUESTIONS
        return self.sentences[max(0, end - 1 - both) : end]


@dataclass(frozen=True)
class Scope:
    """The prompts that name one of `names` or hold one of `key_words`. Immutable, and without a trace of who edits.

    A name counts no more where what is `asked` about it is asked about something else behind it, at the end of the text. `footer`
    is what the chat template writes behind every conversation.

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
    footer: str = ""

    def covers(self, text: str) -> bool:
        """Whether a prompt is in scope. The cost grows with the text, and hardly with the number of names."""
        return next(self.find(text), None) is not None

    def find(self, text: str) -> "Iterator[str | KeyWords]":
        """The names and the key words by which a prompt is in scope, each once."""
        return self._index.find(split_words(text.removeprefix(self.header).removesuffix(self.footer), self.unspaced))

    def find_meant(self, written: str) -> set[str]:
        """The words of the scope that a word of a text may be: itself, or those that it is a slip of or derived from."""
        return self._index.find_meant(written)

    def find_needed(self) -> Sequence[Sequence[tuple[str, ...]]]:
        """What a text in scope must hold, for each name and each set of key words: of every tuple of words one."""
        return self._index.find_needed()

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
        if self.asked or self.footer:  # without any, the text is that of a release that knew none
            content["footer"] = self.footer
            content["asked"] = [
                {"names": each.names, "key_words": _describe(each.key_words), "before": each.before, "own": each.own}
                for each in self.asked
            ]
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The scope of a JSON text. Raises KeyError, TypeError, ValueError or AttributeError for what is none."""
        try:
            return cls._from_content(json.loads(text))
        except (OverflowError, RecursionError) as error:
            raise ValueError("numbers or nesting beyond all that was written") from error

    @classmethod
    def _from_content(cls, content: Any) -> Self:
        return cls(
            names=_texts(content["names"]),
            key_words=tuple(map(_key_words, content["key_words"])),
            no_slips=_texts(content["no_slips"]),
            rivals=_texts(content["rivals"]),
            header=_text(content["header"]),
            unspaced=tuple((int(low), int(high)) for low, high in content["unspaced"]),
            asked=tuple(map(_asked, content.get("asked", ()))),
            footer=_text(content.get("footer", "")),
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
    invisible characters do not. A line break ends a sentence, and so does a mark such as a full stop before white space, unless
    it may end a short form such as Dr.
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
    """Collects the words of a text, sentence by sentence."""

    def __init__(self) -> None:
        self._words, self._folded, self._capitals = list[str](), list[str](), list[bool]()
        self._punctuation = set[str]()
        self._sentences: list[TextSentence] = []
        self._start, self._end, self._has_cue, self._is_first = 0, "", False, True

    def add(self, word: str) -> None:
        """Add the next word."""
        self._capitals.append(word[0].isupper() and len(word) > 1 and not self._is_first)
        self._words.append(word)
        self._folded.append(word.casefold())
        self._end, self._is_first = "", False

    def pass_over(self, character: str, kind: str) -> None:
        """Read punctuation or space between words."""
        if kind == "punctuation":
            self._punctuation.add(character)
            if character == ":":
                self._end, self._is_first = ":", True
                self._has_cue = self._has_cue or len(self._words) - self._start <= _CUE_WORDS
            elif character in _ENDS:
                self._end = character
        is_over = self._end in _ENDS and not (self._end == "." and self._is_short_form())
        if character in _LINE_ENDS or character in _ENDS_WITHOUT_SPACE or (is_over and kind == "space"):
            self._close()

    def read(self) -> TextWords:
        """The words so far."""
        self._close()
        return TextWords(tuple(self._words), tuple(self._folded), frozenset(self._punctuation), tuple(self._sentences))

    def _is_short_form(self) -> bool:
        return bool(self._words) and len(self._words[-1]) <= SHORT_NAME and self._words[-1][0].isupper()

    def _close(self) -> None:
        places = range(self._start, len(self._words))
        if places:
            named = tuple((self._folded[place - 1], self._folded[place]) for place in places[1:] if self._capitals[place])
            words = frozenset(self._folded[self._start :])
            self._sentences.append(TextSentence(self._start, words, named, self._end, self._has_cue))
        self._start, self._end, self._has_cue, self._is_first = len(self._words), "", False, True


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
        self._needed: list[list[tuple[str, ...]]] = [[tuple(_rarest(each))] for each in scope.key_words]
        for name in {*scope.names, *(each.name for each in scope.key_words if each.name is not None)}:
            split = split_words(name, scope.unspaced)
            tree, words = (self._in_own_case, split.written) if is_short(name) else (self._in_any_case, split.folded)
            tree.add(name, words)
            if words and name in self._sure:
                self._needed.append([(word,) for word in words[:NAME_WORDS]])
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

    def find_meant(self, written: str) -> set[str]:
        own = {written} & self._in_own_case.words
        return own.union(self._meant_by(written.casefold(), written[:1].isupper()))

    def find_needed(self) -> Sequence[Sequence[tuple[str, ...]]]:
        return self._needed

    def _find_passed(self, words: TextWords, last: Mapping[str, int]) -> set[str]:
        """The names, each with the place of its last word, behind which the same is asked about something else."""
        asking = words.asking if self._asked_by_name else ()
        if not asking:
            return set()
        earlier = (name for name, place in last.items() if place < asking[0].start)
        questions = [sentence for sentence in asking if sentence.may_ask and sentence.named]
        return {
            name
            for name in earlier
            if any(asked.is_asked_of_another(each) for asked in self._asked_by_name.get(name, ()) for each in questions)
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


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("a scope's lists are no lists")
    return tuple(map(_text, value))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a scope's texts are no texts")
    return value


def _describe(key_words: KeyWords) -> dict[str, Any]:
    return {"name": key_words.name, "share": key_words.share, "weights": dict(key_words.weights)}


def _asked(content: Mapping[str, Any]) -> Asked:
    return Asked(_texts(content["names"]), _key_words(content["key_words"]), _text(content["before"]), _texts(content["own"]))


def _key_words(content: Mapping[str, Any]) -> KeyWords:
    weights = {_text(word): float(weight) for word, weight in content["weights"].items()}
    if not weights or not all(0 < number < float("inf") for number in (*weights.values(), float(content["share"]))):
        raise ValueError("key words that no prompt could hold, or every one")
    return KeyWords(weights, float(content["share"]), None if content["name"] is None else _text(content["name"]))

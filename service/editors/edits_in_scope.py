"""Which edits an adapter acts for. Its scope says what a prompt holds of it, but not of which edits that is."""

from collections.abc import Iterator, Sequence

from service.domain.edit import Edit
from service.domain.writing_systems import SINGLE_CHARACTER_WORDS
from service.editors.edit_scope import names_of, read_texts
from service.editors.known_names import KnownNames
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.scope import KeyWords, split_words
from service.lm.scoped_rows import read_prompt


def find_edits_in_scope(
    base: Base, adapter: Adapter, prompt_ids: Sequence[int], edits: Sequence[Edit], names: KnownNames
) -> list[Edit]:
    """Those of the edits that an adapter carries for which it acts on a prompt, in their order.

    All of them for an adapter without a scope. Else those by whose names or key words the adapter's own scope has the prompt:
    none for a prompt out of scope. A name or key words that several edits share are those of each.
    """
    if adapter.scope is None:
        return list(edits)
    found = list(adapter.scope.find(read_prompt(base, prompt_ids)))
    named = {edit.id: names_of(edit, names) for edit in edits} if found else {}
    ids: set[str] = set()
    for one in found:
        if isinstance(one, str):
            ids |= {edit.id for edit in edits if one in named[edit.id]}
        else:
            told_by = [edit for edit in edits if one.name is None or one.name in named[edit.id]]
            ids |= {edit.id for edit in _find_told_by(base, one, told_by)}
    return [edit for edit in edits if edit.id in ids]


def _find_told_by(base: Base, key_words: KeyWords, edits: Sequence[Edit]) -> list[Edit]:
    """The edits with a text that the key words are of; or else with a text in a longer one that they are of, such as one behind a
    text of the base.
    """
    keys = set(key_words.weights)
    words = [(edit, set(own)) for edit in edits for own in _words_of_texts(base, edit)]
    return [edit for edit, own in words if keys <= own] or [edit for edit, own in words if own <= keys]


def _words_of_texts(base: Base, edit: Edit) -> Iterator[set[str]]:
    """The words and the punctuation of each text of an edit."""
    for text in read_texts(base, edit):
        words = split_words(text, SINGLE_CHARACTER_WORDS)
        yield {*words.folded, *words.punctuation}

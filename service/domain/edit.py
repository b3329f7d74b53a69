"""An edit: one requested correction, its probes and its statuses."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from service.domain.deferral import Deferral


class EditStatus(StrEnum):
    """The status of an edit. An edit is settled when it is neither `queued` nor `applying`."""

    QUEUED = "queued"
    APPLYING = "applying"
    APPLIED = "applied"  # live, carried by BaFT: part of the window
    CONSOLIDATED = "consolidated"  # live, carried by replaced tensors
    DEFERRED = "deferred"  # accepted, live after the next retrain
    FAILED = "failed"
    SUPERSEDED = "superseded"
    RETRACTED = "retracted"
    ROLLED_BACK = "rolled_back"

    @property
    def is_settled(self) -> bool:
        return self not in (EditStatus.QUEUED, EditStatus.APPLYING)

    @property
    def is_live(self) -> bool:
        return self in (EditStatus.APPLIED, EditStatus.CONSOLIDATED)


Accept = Literal["judged", "anyway"]
JUDGED: Accept = "judged"  # published only if acceptance allows it
ANYWAY: Accept = "anyway"  # published also where acceptance refuses what it costs the rest of the model
AUTO = "auto"  # the method of an edit that names none: live at once, and consolidated later
ScopeRule = Literal["auto", "subject", "always"]
BY_PROMPT: ScopeRule = "auto"  # by the subject, or a name in the prompt, and the aliases; else by the words of the prompt
BY_SUBJECT: ScopeRule = "subject"  # by the subject and its aliases alone
ALWAYS: ScopeRule = "always"  # on every prompt
MAX_ALIASES = 16


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A prompt that shows what an edit did. A fit learns it only if `train`."""

    prompt: str
    answer: str | None = None
    train: bool = False
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """The request for an edit: after it, `prompt` is answered with `target`."""

    prompt: str
    target: str
    subject: str | None = None
    relation: str | None = None
    ground_truth: str | None = None
    rephrases: tuple[Probe, ...] = ()
    locality: tuple[Probe, ...] = ()
    portability: tuple[Probe, ...] = ()
    conflict_key: str | None = None
    method: str = AUTO  # or the name of an editing method
    surfaces: tuple[str, ...] = ()  # empty: all that the tokenizer supports
    metadata: Mapping[str, Any] = field(default_factory=dict)
    accept: Accept = JUDGED
    scope: ScopeRule = BY_PROMPT  # on which prompts BaFT acts for the edit
    aliases: tuple[str, ...] = ()  # other names of the subject

    @property
    def names(self) -> tuple[str, ...]:
        """The subject and its aliases as `normalise` gives them, each once, the subject first."""
        given = (*(() if self.subject is None else (self.subject,)), *self.aliases)
        return tuple(dict.fromkeys(map(normalise, given)))

    @property
    def key(self) -> str:
        """The conflict key: two edits with one key are about one fact.

        The key is the client's own, else subject and relation, else the prompt. Each is in NFC with white space collapsed; case
        is kept.
        """
        if self.conflict_key is not None:
            return f"key:{normalise(self.conflict_key)}"
        if self.subject is not None and self.relation is not None:
            return f"fact:{normalise(self.subject)}\x1f{normalise(self.relation)}"
        return f"prompt:{normalise(self.prompt)}"


@dataclass(frozen=True, kw_only=True)
class Edit(EditRequest):
    """An accepted edit as the store has it."""

    id: str
    seq: int
    status: EditStatus
    author: str
    created_at: datetime
    applied_at: datetime | None = None
    version: int | None = None  # the first version in which it was live
    report: Mapping[str, Any] | None = None
    supersedes: str | None = None
    superseded_by: str | None = None
    error: str | None = None
    deferral: Deferral | None = None  # the last one; None: never deferred, or by an earlier release
    accepted_anyway: bool = False  # published although acceptance refused it
    tokens: int = 0  # tokens of a fit of this edit alone, padding included; 0: not counted


def has_letters(name: str) -> bool:
    """Whether a name has a letter, a digit or a symbol: one of punctuation and marks alone is found in no text."""
    return any(unicodedata.category(character)[0] in "LNS" for character in name)


LONGEST_RUN = 30  # combining marks on one letter; Unicode's bound for normalisation in a stream (UAX 15)


def normalise(text: str) -> str:
    """The text in NFC, trimmed, with runs of white space collapsed to one space. Case is kept.

    The time of NFC grows with the square of a run of combining marks. Longer runs than any writing system has are split.
    """
    if text.isascii():
        return " ".join(text.split())
    pieces, start, run = [], 0, 0
    for position, character in enumerate(text):
        run = run + 1 if unicodedata.combining(character) else 0
        if run > LONGEST_RUN:
            pieces.append(text[start:position])
            start, run = position, 1
    composed = "".join(unicodedata.normalize("NFC", piece) for piece in (*pieces, text[start:]))
    return " ".join(composed.split())

"""An edit: one requested change of what the model says, its probes, and the states it may be in."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class EditStatus(StrEnum):
    """Where an edit stands. Settled means anything but `queued` and `applying`."""

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


class Method(StrEnum):
    """Who carries an edit first: `auto` and `baft` at once, `locft` with the next retrain."""

    AUTO = "auto"
    BAFT = "baft"
    LOCFT = "locft"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A prompt asked to see what an edit did; learned from only if `train`."""

    prompt: str
    answer: str | None = None
    train: bool = False
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """What a client asks for: after the edit, `prompt` is answered with `target`."""

    prompt: str
    target: str
    subject: str | None = None
    relation: str | None = None
    ground_truth: str | None = None
    rephrases: tuple[Probe, ...] = ()
    locality: tuple[Probe, ...] = ()
    portability: tuple[Probe, ...] = ()
    conflict_key: str | None = None
    method: Method = Method.AUTO
    surfaces: tuple[str, ...] = ()  # empty: all that the tokenizer supports
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The conflict key: two edits with the same key speak of one fact.

        It is what the client gave, else subject and relation, else the prompt, each in NFC with white space collapsed, case kept.
        """
        if self.conflict_key is not None:
            return f"key:{normalise(self.conflict_key)}"
        if self.subject is not None and self.relation is not None:
            return f"fact:{normalise(self.subject)}\x1f{normalise(self.relation)}"
        return f"prompt:{normalise(self.prompt)}"


@dataclass(frozen=True, kw_only=True)
class Edit(EditRequest):
    """An accepted edit as the store knows it."""

    id: str
    seq: int
    status: EditStatus
    author: str
    created_at: datetime
    applied_at: datetime | None = None
    version: int | None = None  # the version that first held it
    report: Mapping[str, Any] | None = None
    supersedes: str | None = None
    superseded_by: str | None = None
    error: str | None = None
    tokens: int = 0  # what a fit of it alone is given, padding included; 0: nobody counted


LONGEST_RUN = 30  # marks on one letter; Unicode's own bound for text that is to be normalised in a stream (UAX 15)


def normalise(text: str) -> str:
    """NFC, trimmed, runs of white space collapsed to one space; case is kept.

    The time NFC takes grows with the square of a run of combining marks, so a run longer than any writing has is taken apart.
    """
    if text.isascii():
        return " ".join(text.split())
    pieces, begun, run = [], 0, 0
    for place, character in enumerate(text):
        run = run + 1 if unicodedata.combining(character) else 0
        if run > LONGEST_RUN:
            pieces.append(text[begun:place])
            begun, run = place, 1
    composed = "".join(unicodedata.normalize("NFC", piece) for piece in (*pieces, text[begun:]))
    return " ".join(composed.split())

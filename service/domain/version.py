"""A version: the frozen base with one overlay and its live set. The head says which version answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from service.domain.arithmetic import Arithmetic
from service.domain.errors import Gone

# The kind of a version: the name of the editing method that made it, or one of these operations.
BASE = "base"  # version 0, and the first version on another base model
ROLLBACK = "rollback"  # an older overlay under a new number
RETRACT = "retract"  # the window fitted again without retracted edits
CONTEXT = "context"  # the overlay of the version before it; it states other edits
OPERATIONS = (BASE, ROLLBACK, RETRACT, CONTEXT)


class VersionStatus(StrEnum):
    """`published`, later `corrupt` or `collected`. A refused candidate is no version: it gets no number and no row."""

    PUBLISHED = "published"
    CORRUPT = "corrupt"
    COLLECTED = "collected"


@dataclass(frozen=True, kw_only=True)
class Version:
    """A published version as the store has it. `digest` is None if the overlay is empty: the version answers as the base does."""

    number: int
    kind: str
    status: VersionStatus
    parent: int | None
    digest: str | None
    created_at: datetime
    author: str
    reason: str | None = None
    edits_counted: int = 0  # live edits
    window: int = 0  # live edits that BaFT carries
    scores: Mapping[str, Any] = field(default_factory=dict)
    restores: int | None = None  # for a rollback: the version whose overlay it has
    pinned: bool = False
    minors: int = 0  # minor retrains in its tensors since the last major one
    major_at: datetime | None = None  # when its tensors were last trained from the base
    neutral_sentences: int | None = None  # that its fit might use, the first of all; None: all, or no fit
    base_fingerprint: str | None = None  # of the base model that its overlay belongs to; None: it is not read from the store
    base_name: str | None = None

    def answers_on(self, fingerprint: str) -> bool:
        """Whether the version is kept, and is of the base model with this fingerprint."""
        return self.status is not VersionStatus.COLLECTED and self.base_fingerprint in (None, fingerprint)

    def check_kept(self) -> None:
        """Raise Gone if the version was collected."""
        if self.status is VersionStatus.COLLECTED:
            raise Gone("this version was collected; only its record is kept")

    def check_base(self, fingerprint: str) -> None:
        """Raise Gone if the version is of another base model than the one with this fingerprint."""
        if self.base_fingerprint not in (None, fingerprint):
            raise Gone(f"version {self.number} is of another base model, {self.base_name}, and cannot be computed on this one")


@dataclass(frozen=True, kw_only=True)
class Head:
    """The head row: which version answers, how often the head moved (`epoch`), and which worker may publish (`fence`)."""

    version: int
    epoch: int
    fence: int
    base_fingerprint: str
    base_name: str
    store_id: str | None = None
    arithmetic: Arithmetic | None = None  # None: no server of this release or a later one has opened the store

"""A version: the frozen base plus one overlay, with the live set it answers from; and the head, which says which version
answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class VersionKind(StrEnum):
    """What made a version."""

    BASE = "base"  # version 0
    BAFT = "baft"  # edits applied on top of the head
    LOCFT = "locft"  # a retrain
    ROLLBACK = "rollback"  # an older overlay under a new number
    RETRACT = "retract"  # the window fitted again without what was taken back


class VersionStatus(StrEnum):
    """`published`, later `corrupt` or `collected`. A candidate that is refused is no version: it gets no number and no row."""

    PUBLISHED = "published"
    CORRUPT = "corrupt"
    COLLECTED = "collected"


@dataclass(frozen=True, kw_only=True)
class Version:
    """A published version as the store knows it. `digest` is None when its overlay is empty: it answers as the base does."""

    number: int
    kind: VersionKind
    status: VersionStatus
    parent: int | None
    digest: str | None
    created_at: datetime
    author: str
    reason: str | None = None
    edits_counted: int = 0  # edits that are live in it
    window: int = 0  # of these, how many BaFT carries
    scores: Mapping[str, Any] = field(default_factory=dict)
    restores: int | None = None  # for a rollback: the version whose overlay it took
    pinned: bool = False
    minors: int = 0  # minor retrains in its tensors since the major one they began at
    major_at: datetime | None = None  # when its tensors were last trained from the base


@dataclass(frozen=True, kw_only=True)
class Head:
    """The one row that says what is true now: which version answers, how often it moved, and whose publications count."""

    version: int
    epoch: int
    fence: int
    base_fingerprint: str
    base_name: str
    store_id: str | None = None

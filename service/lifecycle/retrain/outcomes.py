"""How one try of a retrain ends."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RetrainPublished:
    """The retrained version is the head. `is_overruled`: its window has edits accepted anyway, and was not accepted by itself."""

    is_overruled: bool = False


@dataclass(frozen=True)
class NotAccepted:
    """The retrained version was not accepted, and no other snapshot would change that. `figures` are the judged ones."""

    reasons: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NewcomersRefused:
    """The retrained version was not accepted, and the `newcomers` of its snapshot (ids, oldest first) may be the reason."""

    reasons: tuple[str, ...]
    newcomers: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ForcedRefused:
    """The retrained version was not accepted, and live edits of its snapshot that were accepted anyway (`edit_ids`) may be the
    reason.
    """

    reasons: tuple[str, ...]
    edit_ids: tuple[str, ...]


@dataclass(frozen=True)
class RestartNeeded:
    """The trained tensors cannot be published any more, and another snapshot may do better. The reason goes to the job's log."""

    reason: str


@dataclass(frozen=True)
class MajorNeeded:
    """The tensors of the head are at another location than the settings name: a minor retrain cannot start from them."""


@dataclass(frozen=True)
class HeadMoved:
    """Another publication came first. The trained tensors are good."""


@dataclass(frozen=True)
class TooManyMoves:
    """Other publications came first again and again."""


@dataclass(frozen=True)
class RetrainFailed:
    """The job has ended without a publication; its row holds the reason."""


RetrainOutcome = (
    RetrainPublished | NotAccepted | NewcomersRefused | ForcedRefused | RestartNeeded | MajorNeeded | TooManyMoves | RetrainFailed
)

"""How one try of a retrain ends."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RetrainPublished:
    """The retrained version is the head."""


@dataclass(frozen=True)
class NotAccepted:
    """The retrained version was not accepted, and no other snapshot would change that."""

    reasons: tuple[str, ...]


@dataclass(frozen=True)
class NewcomersRefused:
    """The retrained version was not accepted, and the `newcomers` of its snapshot (ids, oldest first) may be the reason."""

    reasons: tuple[str, ...]
    newcomers: tuple[str, ...]


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


RetrainOutcome = RetrainPublished | NotAccepted | NewcomersRefused | RestartNeeded | MajorNeeded | TooManyMoves | RetrainFailed

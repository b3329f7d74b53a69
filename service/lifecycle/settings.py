"""What the lifecycle may be told; the defaults are those of a server on one machine."""

from dataclasses import dataclass, field

from service.domain.acceptance import AcceptanceLimits
from service.domain.cadence import Cadence

SERVICE = "errata"  # the author of what nobody asked for: an automatic retrain, a recovery


@dataclass(frozen=True, kw_only=True)
class LifecycleSettings:
    """Limits of the worker. All times are seconds."""

    cadence: Cadence = field(default_factory=Cadence)
    acceptance: AcceptanceLimits = field(default_factory=AcceptanceLimits)
    joint: int = 64  # edits of one job at most
    joint_tokens: int = 16_384  # what fits of these, each alone, are given at most
    large: int = 1_024  # an edit of more tokens is fitted alone, and small ones pass it
    fit_s: float = 120.0  # longest work on one job of edits
    attempts: int = 3  # fits of a job that may fail before it is given up
    pause_s: float = 10.0  # between the first two attempts of a retrain; doubled with each further one
    claims: int = 10  # times a job is taken up before it is given up: a job that ends the process must not do so for ever
    rounds: int = 4  # fits of one job that leave out what was lost, before the rest is deferred
    restarts: int = 10  # times a retrain begins again because an edit of its snapshot left the live set
    patience: int = 2  # publications a retrain may lose to edits before applying pauses for it
    look_s: float = 0.2  # between two looks of a running job whether it is still wanted
    lease_s: float = 30.0
    monitor_s: float = 60.0  # between two rounds of the monitor
    monitor_sample: int = 64  # live edits that one round asks again
    sweep_s: float = 2.0  # how long a lost ring may go unnoticed
    follow_s: float = 0.5  # between two looks at the head, which another process may have moved: answers follow within 2 s
    keep_last: int = 100
    keep_every: int = 100
    orphan_s: float = 3600.0  # a younger file is left alone: a publication that names it may be under way
    trash_s: float = 7 * 86_400.0  # a checkpoint that no version needs is kept so long before it is deleted
    collect_s: float = 600.0  # between two collections
    judge_s: float = 30.0  # between two looks at what is damaged, and at what was put right

"""The settings of the lifecycle. The defaults are those of a server on one machine."""

from dataclasses import dataclass, field

from service.domain.acceptance import AcceptanceLimits
from service.domain.cadence import Cadence
from service.domain.context_tier import ContextTier
from service.domain.edit import AUTO
from service.editors.registry import DEFAULT_CONSOLIDATING, DEFAULT_INCREMENTAL

SERVICE = "errata"  # the author of automatic work: a retrain that is due, a recovery


@dataclass(frozen=True, kw_only=True)
class LifecycleSettings:
    """Limits of the worker. All times are seconds."""

    method: str = AUTO  # of edits that name none
    incremental_method: str = DEFAULT_INCREMENTAL
    consolidating_method: str = DEFAULT_CONSOLIDATING  # of a retrain for which neither its request nor an edit names one
    cadence: Cadence = field(default_factory=Cadence)
    acceptance: AcceptanceLimits = field(default_factory=AcceptanceLimits)
    tier: ContextTier = field(default_factory=ContextTier)
    joint: int = 64  # most edits of one job
    joint_tokens: int = 16_384  # most tokens of a job: the sum of what a fit of each edit alone trains on
    large: int = 1_024  # an edit of more tokens is fitted alone, and gives way to smaller ones
    fit_s: float = 120.0  # longest work on one job of edits
    attempts: int = 3  # failed fits of a job before the job fails
    pause_s: float = 10.0  # between the first two attempts of a retrain; doubled with each further one
    claims: int = 10  # claims of a job before it fails: a job that kills its process must not do so for ever
    rounds: int = 4  # fits of one job that leave out lost edits; after the last one the rest is deferred
    firmer: int = 1  # further fits of an edit that is refused for its cost to the rest of the model, each holding it more firmly
    restarts: int = 10  # new snapshots of one retrain because an edit of its snapshot left the live set
    patience: int = 2  # publications that a retrain may lose to edits before applying pauses for it
    look_s: float = 0.2  # between two checks of a running job for a reason to stop
    lease_s: float = 30.0
    monitor_s: float = 60.0  # between two rounds of the monitor
    monitor_sample: int = 64  # live edits that one round of the monitor asks again
    sweep_s: float = 2.0  # between two sweeps for queued edits, in case a ring of the doorbell was lost
    follow_s: float = 0.5  # between two checks whether another process moved the head: answers follow within 2 s
    keep_last: int = 100
    keep_every: int = 100
    orphan_s: float = 3600.0  # a younger file without a version is left alone: its publication may be running
    trash_s: float = 7 * 86_400.0  # a checkpoint that no version needs stays in the trash for so long
    collect_s: float = 600.0  # between two collections
    judge_s: float = 30.0  # between two updates of the marks of damaged versions

"""The context tier: which accepted edits a version *states*, that is, puts in front of the prompts that they are about.

An edit is stated while no version carries it. It never counts as live: acceptance, the monitor and fits ask without it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from service.domain.edit import EditStatus
from service.domain.liveset import LiveItem, LiveSet, latest_per_key

ContextMode = Literal["off", "deferred", "on"]
# The statuses of edits that are stated: none, those that a fit or a retrain has put off, or all that are not live yet.
STATED_STATUSES: Mapping[ContextMode, tuple[EditStatus, ...]] = {
    "off": (),
    "deferred": (EditStatus.DEFERRED,),
    "on": (EditStatus.QUEUED, EditStatus.APPLYING, EditStatus.DEFERRED),
}


@dataclass(frozen=True, kw_only=True)
class ContextTier:
    """Which edits a version states: the newest `most`, each with at most `characters` in its prompt and target together. A longer
    one is not stated, as half a fact may say something else.
    """

    mode: ContextMode = "off"
    most: int = 64
    characters: int = 512

    @property
    def statuses(self) -> tuple[EditStatus, ...]:
        """The statuses of edits that are stated."""
        return STATED_STATUSES[self.mode]


def choose_stated(waiting: Iterable[LiveItem], live_set: LiveSet, most: int) -> tuple[LiveItem, ...]:
    """The edits of `waiting` that a version with this live set states, in order of submission: of each conflict key the one
    accepted last, unless a later one is live; of these the newest `most`.
    """
    live_seqs = {item.key: item.seq for item in live_set.live}
    stated = [item for item in latest_per_key(waiting) if item.seq > live_seqs.get(item.key, 0)]
    return tuple(stated[-most:] if most else ())

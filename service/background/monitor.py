"""The monitor: asks the head again, a little at a time, whether its edits are still answered and the rest is left alone.

Between two pieces it gives way to answers. The edits of the live set take turns; what does not change while a version is the
head, its locality and capability, is asked once. A round that was begun is ended on the version it was begun on, even if the head
has moved since: under a stream of edits it always has. What is found goes to the measurements of that version, and the cadence
looks at it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from service.domain.errors import Corrupt, Gone, Unreadable
from service.domain.liveset import LiveItem
from service.domain.version import Version, VersionStatus
from service.lifecycle.context import LifecycleContext
from service.lifecycle.editors import MonitorProbes, Share
from service.lifecycle.measured_figures import measured_figure
from service.lm.overlay import Overlay
from service.store import edits, heads, measurements, versions
from service.store.measurements import CAPABILITY, INSIDE, OUTSIDE, RETENTION, Figure

EDITS_A_PIECE = 8


@dataclass
class Round:
    """What is left to ask of one version, which was the head when the round began, and what was found of its edits."""

    version: Version
    overlay: Overlay
    live: tuple[LiveItem, ...]
    todo: Iterator[Callable[[], None]]
    asked: int = 0
    answered: int = 0


class Monitor:
    """`step` asks one piece. A round asks `sample` edits; rounds of one version go on until all of its edits had their turn."""

    def __init__(self, context: LifecycleContext, *, now: Callable[[], float] = time.monotonic) -> None:
        self._context, self._now = context, now
        self._round: Round | None = None
        self._next_at = now() + context.settings.monitor_s
        self._turn = ""  # the key of the edit asked last: keys are digests, so their order is nobody's

    def step(self) -> bool:
        """Ask a little more; whether there was anything to ask."""
        probes = self._context.editors.monitor_probes
        if probes is None or self._now() < self._next_at:
            return False
        with contextlib.suppress(Gone, Corrupt, Unreadable):
            if self._round is None:
                self._round = self._begin(probes)
            piece = None if self._round is None else next(self._round.todo, None)
            if self._round is not None and piece is not None:
                self._context.yield_to_edits()
                self._check_is_there(self._round)
                piece()
                return True
        self._round = None
        self._next_at = self._now() + self._context.settings.monitor_s
        return False

    def _begin(self, probes: MonitorProbes) -> Round | None:
        with self._context.store.read() as connection:
            version = versions.get(connection, heads.read(connection).version)
            live = versions.read_live_set(connection, version.number).live
            known = measurements.read_latest(connection, version.number)
        if not live and version.digest is None:
            return None  # the base itself
        mine = {name for name, one in known.items() if one.source == "monitor"}
        due = self._turns(live, asked=known[RETENTION].n if RETENTION in mine else 0)
        begun = Round(version, self._context.checkpoints.get_overlay(version), live, iter(()))
        begun.todo = self._pieces(probes, begun, due, mine)
        return begun

    def _turns(self, live: tuple[LiveItem, ...], *, asked: int) -> list[LiveItem]:
        """Whose turn it is: those that follow, by key, the one asked last. None if all were asked of this version already."""
        if asked >= len(live):
            return []
        in_order = sorted(live, key=lambda item: item.key)
        after = [item for item in in_order if item.key > self._turn]
        before = in_order[: len(in_order) - len(after)]
        return [*after, *before][: min(self._context.settings.monitor_sample, len(live) - asked)]

    def _pieces(self, probes: MonitorProbes, round_: Round, due: list[LiveItem], mine: set[str]) -> Iterator[Callable[[], None]]:
        for start in range(0, len(due), EDITS_A_PIECE):
            some = due[start : start + EDITS_A_PIECE]
            yield lambda some=some: self._ask_edits(probes, round_, some)  # type: ignore[misc]
        if due:
            yield lambda: self._keep_retention(round_)
        shares = {OUTSIDE: probes.outside, INSIDE: probes.inside, CAPABILITY: probes.capability}
        for name, ask in shares.items():
            if name not in mine:
                yield lambda name=name, ask=ask: self._keep_share(round_, name, ask)  # type: ignore[misc]

    def _ask_edits(self, probes: MonitorProbes, round_: Round, some: list[LiveItem]) -> None:
        with self._context.store.read() as connection:
            found = edits.read_many(connection, [item.edit_id for item in some])
        right = probes.answered(round_.overlay, found)
        round_.asked += len(right)
        round_.answered += sum(right)
        self._turn = some[-1].key

    def _keep_retention(self, round_: Round) -> None:
        """The figure of all edits asked of this version so far, in this round and those before it."""
        with self._context.store.read() as connection:
            before = measurements.read_latest_by(connection, round_.version.number, RETENTION, "monitor")
        if not round_.asked:
            return
        asked = round_.asked + (0 if before is None else before.n)
        answered = round_.answered + (0.0 if before is None else before.score * before.n)
        self._keep(round_, measured_figure(RETENTION, answered / asked, asked))

    def _keep_share(self, round_: Round, name: str, ask: Callable[[Overlay, Callable[[], None]], Share | None]) -> None:
        share = ask(round_.overlay, self._context.yield_to_edits)
        if share is not None:
            self._keep(round_, measured_figure(name, share.score, share.n))

    def _keep(self, round_: Round, found: Figure) -> None:
        with self._context.store.write() as connection:
            measurements.insert(connection, round_.version.number, "monitor", [found], self._context.clock())

    def _check_is_there(self, round_: Round) -> None:
        """Raises Gone if the version was collected meanwhile, for instance by a purge: nothing of it is to answer any more."""
        with self._context.store.read() as connection:
            if versions.get(connection, round_.version.number).status is VersionStatus.COLLECTED:
                raise Gone("this version was collected")

"""The monitor: it measures the head's retention, locality and capability again, in short steps.

Between two steps the monitor gives way to answers. The edits of the live set take turns. Locality and capability do not change
while a version is the head, so they are measured once a version. A round ends on the version on which it began, even if the head
has moved since: under a stream of edits the head always moves. The figures are stored as measurements of that version, and the
cadence reads them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from service.domain.errors import Corrupt, Gone, Unreadable
from service.domain.even_choice import choose_evenly
from service.domain.liveset import LiveItem
from service.domain.version import Version, VersionStatus
from service.editors.protocol import Hooks
from service.lifecycle.context import EditingContext
from service.lifecycle.editors import MonitorProbes, Share
from service.lifecycle.locality import measure_locality
from service.lifecycle.measured_figures import locality_figures, measured_figure
from service.lm.overlay import EMPTY, Overlay
from service.store import edits, heads, measurements, versions
from service.store.measurements import CAPABILITY, FAR, INSIDE, PROSE, RETENTION, Figure

EDITS_PER_STEP = 8


@dataclass
class Round:
    """The steps left of a round on one version, which was the head when the round began, and the counts of its edits so far."""

    version: Version
    overlay: Overlay
    live: tuple[LiveItem, ...]
    steps: Iterator[Callable[[], None]]
    asked_count: int = 0
    answered_count: int = 0


class Monitor:
    """Each `step` asks up to eight edits, or measures one share. A round asks `monitor_sample` edits; rounds of one version go on
    until each of its edits was asked.
    """

    def __init__(self, context: EditingContext, *, now: Callable[[], float] = time.monotonic) -> None:
        self._context, self._now = context, now
        self._round: Round | None = None
        self._next_at = now() + context.settings.monitor_s
        self._last_key = ""  # of the edit asked last; keys are digests, so their order favours no edit

    def step(self) -> bool:
        """Do one step of the round; whether there was anything to do."""
        probes = self._context.editors.monitor_probes
        if probes is None or self._now() < self._next_at:
            return False
        with contextlib.suppress(Gone, Corrupt, Unreadable):
            if self._round is None:
                self._round = self._begin_round(probes)
            step = None if self._round is None else next(self._round.steps, None)
            if self._round is not None and step is not None:
                self._context.yield_to_edits()
                self._check_not_collected(self._round)
                step()
                return True
        self._round = None
        self._next_at = self._now() + self._context.settings.monitor_s
        return False

    def _begin_round(self, probes: MonitorProbes) -> Round | None:
        with self._context.store.read() as connection:
            version = versions.get(connection, heads.read(connection).version)
            live = versions.read_live_set(connection, version.number).live
            measured = measurements.read_latest(connection, version.number)
        if not live and version.digest is None:
            return None  # the base itself
        done = {name for name, measurement in measured.items() if measurement.source == "monitor"}
        due = self._choose_edits(live, asked_count=measured[RETENTION].n if RETENTION in done else 0)
        round_ = Round(version, self._context.checkpoints.get_overlay(version), live, iter(()))
        round_.steps = self._steps(probes, round_, due, done)
        return round_

    def _choose_edits(self, live: tuple[LiveItem, ...], *, asked_count: int) -> list[LiveItem]:
        """The next edits after the edit asked last, by key; none if all edits of this version were asked already."""
        if asked_count >= len(live):
            return []
        ordered = sorted(live, key=lambda item: item.key)
        after = [item for item in ordered if item.key > self._last_key]
        before = ordered[: len(ordered) - len(after)]
        return [*after, *before][: min(self._context.settings.monitor_sample, len(live) - asked_count)]

    def _steps(self, probes: MonitorProbes, round_: Round, due: list[LiveItem], done: set[str]) -> Iterator[Callable[[], None]]:
        for start in range(0, len(due), EDITS_PER_STEP):
            batch = due[start : start + EDITS_PER_STEP]
            yield lambda batch=batch: self._ask_edits(probes, round_, batch)  # type: ignore[misc]
        if due:
            yield lambda: self._write_retention(round_)
        if not {FAR, PROSE} <= done:
            yield lambda: self._measure_locality(round_)
        shares = {INSIDE: probes.inside, CAPABILITY: probes.capability}
        for name, measure in shares.items():
            if name not in done:
                yield lambda name=name, measure=measure: self._write_share(round_, name, measure)  # type: ignore[misc]

    def _ask_edits(self, probes: MonitorProbes, round_: Round, batch: list[LiveItem]) -> None:
        with self._context.store.read() as connection:
            batch_edits = edits.read_many(connection, [item.edit_id for item in batch])
        is_answered = probes.answered(round_.overlay, batch_edits)
        round_.asked_count += len(is_answered)
        round_.answered_count += sum(is_answered)
        self._last_key = batch[-1].key

    def _write_retention(self, round_: Round) -> None:
        """Write the retention over all edits asked of this version, in this round and the rounds before."""
        with self._context.store.read() as connection:
            before = measurements.read_latest_by(connection, round_.version.number, RETENTION, "monitor")
        if not round_.asked_count:
            return
        asked_count = round_.asked_count + (0 if before is None else before.n)
        answered_count = round_.answered_count + (0.0 if before is None else before.score * before.n)
        self._write(round_, measured_figure(RETENTION, answered_count / asked_count, asked_count))

    def _write_share(self, round_: Round, name: str, measure: Callable[[Overlay, Callable[[], None]], Share | None]) -> None:
        share = measure(round_.overlay, self._context.yield_to_edits)
        if share is not None:
            self._write(round_, measured_figure(name, share.score, share.n))

    def _measure_locality(self, round_: Round) -> None:
        """Measure every group, around live edits of the whole live set and not of the last publication alone."""
        ids = [item.edit_id for item in round_.live]
        with self._context.store.read() as connection:
            asked = edits.read_many(connection, choose_evenly(ids, EDITS_PER_STEP))
        hooks = Hooks(yield_to_answers=self._context.yield_to_edits)
        groups = measure_locality(self._context, round_.overlay, EMPTY, asked, ids, hooks)
        self._write(round_, *locality_figures(groups))

    def _write(self, round_: Round, *figures: Figure) -> None:
        with self._context.store.write() as connection:
            measurements.insert(connection, round_.version.number, "monitor", figures, self._context.clock())

    def _check_not_collected(self, round_: Round) -> None:
        """Raise Gone if the version was collected meanwhile, for instance by a purge: it must not answer any more."""
        with self._context.store.read() as connection:
            if versions.get(connection, round_.version.number).status is VersionStatus.COLLECTED:
                raise Gone("this version was collected")

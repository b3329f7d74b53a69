"""Random histories of everything that can happen, crashes among them, against the model of the rules in `rules.py`."""

import contextlib
import random
from pathlib import Path

import pytest

from service.background.jobs import cancel_job
from service.domain.acceptance import AcceptanceLimits
from service.domain.cadence import Cadence, Mode
from service.domain.context_tier import ContextMode, ContextTier
from service.domain.errors import Conflict
from service.lifecycle.context_versions import publish_stated
from service.lifecycle.settings import LifecycleSettings
from service.store import stated_edits
from service.store.edits import key_digest
from tests.lifecycle.ledger import Ledger
from tests.lifecycle.local_service import Crash, LocalService, new_local_service
from tests.lifecycle.rules import Rules

KEYS = "abcde"
MODES: tuple[ContextMode, ...] = ("on", "off", "deferred")
TARGETS = "123"
OPERATIONS = (
    ("submit",) * 5 + ("drain",) * 3 + ("retract",) * 3 + ("roll_back",) * 2 + ("retrain", "retrain", "cancel", "restart")
)


class History:
    """One random history, played on a service and on the rules."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        automatic = seed % 2 == 0
        cadence = Cadence(soft=1_000, hard=2_000, deferred=1_000, deferred_s=1e9, automatic=automatic)
        self.ledger = Ledger()
        self.local: LocalService = new_local_service(folder, ledger=self.ledger, settings=LifecycleSettings(cadence=cadence))
        self.rules = Rules(automatic)
        self.rules.add_version(0)
        self.ids: list[str] = []

    def play(self, steps: int) -> None:
        for _ in range(steps):
            getattr(self, self.random.choice(OPERATIONS))()
        self.drain()
        self.check()

    def submit(self) -> None:
        key, target = self.random.choice(KEYS), self.random.choice(TARGETS)
        method = self.random.choice(("auto", "auto", "auto", "locft"))
        (edit,) = self.local.post((key, target), method=method)
        if self.rules.submit(key, target, method) is None:
            assert edit.id in self.ids, "an identical edit was accepted as a new one"
        else:
            assert edit.id not in self.ids
            self.ids.append(edit.id)

    def retract(self) -> None:
        if not self.ids:
            return
        n, restore = self.random.randrange(len(self.ids)), self.random.random() < 0.5
        if self.rules.retract(n, restore):
            self.local.retract(self._edit(n), restore_previous=restore)
        else:
            with pytest.raises(Conflict):
                self.local.retract(self._edit(n))

    def roll_back(self) -> None:
        to, requeue = self.random.choice(sorted(self.rules.versions)), self.random.random() < 0.5
        if to == self.local.head.number:
            with pytest.raises(Conflict):
                self.local.roll_back(to)
            return
        number = self.local.roll_back(to, requeue=requeue).version
        locft = {n for n, edit_id in enumerate(self.ids) if self._edit(n).method == "locft"}
        self.rules.roll_back(to, requeue, number)
        for n in locft:
            if self.rules.facts[n].status == "queued":
                self.rules.facts[n].status = "deferred"

    def retrain(self) -> None:
        self.drain()
        if self.rules.trained or self.rules.live or any(fact.status == "deferred" for fact in self.rules.facts):
            mode: Mode = self.random.choice(("minor", "major"))
            if mode == "minor" and not self._has_news():
                with pytest.raises(Conflict):
                    self.local.retrain(mode)
                return
            self.local.retrain(mode)
            self._work()
            self.rules.retrain(minor=mode == "minor")
            self.check()
        else:
            with pytest.raises(Conflict):
                self.local.retrain()

    def _has_news(self) -> bool:
        """Whether a retrain on top of the tensors would change anything."""
        waits = any(fact.status in ("applied", "deferred") for fact in self.rules.facts)
        return waits or bool(self.rules.trained.keys() - self.rules.live.keys())

    def cancel(self) -> None:
        """Ask for a retrain and cancel it, before it begins or in its middle: nothing comes of it."""
        if self.rules.automatic:
            return  # a retrain that a retraction makes due would wait for news now, which the rules know nothing of
        self.drain()
        if not self.rules.live:
            return
        job = self.local.retrain(self.random.choice(("minor", "major")) if self._has_news() else "major")

        def cancel(method: str = "") -> None:
            self.ledger.during_fit = lambda method: None
            cancel_job(self.local.store, job.id, author="ann")

        if self.random.random() < 0.5:
            cancel()
        else:
            self.ledger.during_fit = cancel
        before = self.local.head
        self.local.worker.drain()
        assert self.local.head == before
        self.check()

    def restart(self) -> None:
        self.local = self.local.again()

    def drain(self) -> None:
        self._work()
        self.rules.drain()
        self.check()

    def check(self) -> None:
        """Every status and every answer is what the rules say, on the head and on every version kept."""
        expected = [fact.status for fact in self.rules.facts]
        assert [str(self._edit(n).status) for n in range(len(self.ids))] == expected
        live = self.rules.live
        for key in KEYS:
            said = self.rules.facts[live[key]].target if key in live else f"base of prompt:{key}"
            assert self.local.says(key) == said
        assert self.local.unknown_lessons(self.local.head) == []
        number = self.local.head.number
        self.rules.add_version(number)
        other = self.random.choice(sorted(self.rules.versions))
        for key, n in self.rules.versions[other][0].items():
            assert self.local.says(key, version=other) == self.rules.facts[n].target, "a published version changed"

    def _work(self) -> None:
        """Settle the worker, which sometimes dies on the way: in a fit, or after a commit and before it could swap."""
        if self.random.random() < 0.4:
            self._die_somewhere()
        self.local.worker.drain()

    def _die_somewhere(self) -> None:
        left = self.random.randrange(3)

        def die(_: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash

        if self.random.random() < 0.5:
            self.ledger.during_fit = die
        else:
            self.local.swaps = Deadly(die)
            self.local.context.follower._on_published = self.local.swaps.append
        try:
            self.local.worker.drain()
        except Crash:
            self.local = self.local.again()
        self.ledger.during_fit = lambda method: None
        self.local.context.follower._on_published = [].append

    def _edit(self, n: int):  # type: ignore[no-untyped-def]
        from service.store import edits

        with self.local.store.read() as connection:
            return edits.get(connection, self.ids[n])


class Deadly(list):  # type: ignore[type-arg]
    """A list of swaps whose owner may die when it is appended to."""

    def __init__(self, die) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self._die = die

    def append(self, published: object) -> None:
        self._die(published)
        super().append(published)


@pytest.mark.parametrize("seed", range(8))
def test_a_random_history_ends_as_the_rules_say(seed: int, tmp_path: Path) -> None:
    history = History(seed, tmp_path)

    history.play(40)

    history.local.close()


class LossyHistory:
    """One random history in which fits lose what they were given, or what they had to keep. What it answers is chance, but not
    what its rows say of it.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        cadence = Cadence(soft=4, hard=6, deferred=3, automatic=seed % 2 == 0)
        self.tier = ContextTier(mode=MODES[seed % len(MODES)], most=3)
        limits = AcceptanceLimits(retrain_losses=0.5)
        settings = LifecycleSettings(cadence=cadence, acceptance=limits, tier=self.tier)
        self.local: LocalService = new_local_service(folder, settings=settings)
        self.stated: dict[int, tuple[str, ...]] = {}  # by version, as it was first seen

    def play(self, steps: int) -> None:
        for _ in range(steps):
            getattr(self, self.random.choice(OPERATIONS))()
        self.drain()

    def submit(self) -> None:
        method = self.random.choice(("auto", "auto", "auto", "locft"))
        self.local.post((self.random.choice("abcdefgh"), self.random.choice("12345")), method=method)
        if self.random.random() < 0.5:  # a request that does not die before it lets the head state its edit
            publish_stated(self.local.context)

    def retract(self) -> None:
        made = self.local.all_edits()
        if made:
            with contextlib.suppress(Conflict):
                self.local.retract(self.random.choice(made), restore_previous=self.random.random() < 0.5)

    def roll_back(self) -> None:
        with contextlib.suppress(Conflict):
            self.local.roll_back(self.random.choice(self.local.versions()).number, requeue=self.random.random() < 0.5)

    def retrain(self) -> None:
        with contextlib.suppress(Conflict):
            self.local.retrain(self.random.choice(("minor", "major")))

    def cancel(self) -> None:
        """Not an operation of these histories."""

    def restart(self) -> None:
        self.local = self.local.again()

    def drain(self) -> None:
        ledger = self.local.ledger
        for method in ("baft", "locft"):
            ledger.not_taken[method] = {target for target in "12345" if self.random.random() < 0.3}
        ledger.displacing_targets = {target for target in "12345" if self.random.random() < 0.1}
        ledger.forgotten_targets = {target for target in "12345" if self.random.random() < 0.1}
        if self.random.random() < 0.5:
            ledger.during_fit = self.meddle
        self.local.worker.drain()
        self.check()

    def meddle(self, method: str) -> None:
        """In the middle of a fit; beside a retrain edits are applied too."""
        self.local.ledger.during_fit = lambda method: None
        for _ in range(3):
            getattr(self, self.random.choice(("submit", "submit", "retract", "roll_back")))()
            if method == "locft":
                self.local.worker._advance()

    def check(self) -> None:
        """Nothing is due; each edit is live exactly where its row says so; and the rows name all that the overlay learned."""
        live_set = self.local.live_set
        assert not live_set.needs_refit
        stands = {edit.id: edit.status for edit in self.local.all_edits()}
        assert {edit_id for edit_id, status in stands.items() if status.is_live} == live_set.ids
        assert len(live_set.live_keys) == len(live_set.live)
        assert all((stands[item.edit_id] == "applied") is (item.carrier == "window") for item in live_set.live)
        uncovered = [item.edit_id for item in live_set.lost if item.key not in live_set.live_keys]
        assert all(stands[edit_id] != "retracted" for edit_id in uncovered)
        assert self.local.unknown_lessons(self.local.head) == []
        self.check_stated()

    def check_stated(self) -> None:
        """The head states edits that wait, of each fact the last correction, and this process the same. No version ever states
        anything else than at first.
        """
        with self.local.store.read() as connection:
            stated = {version.number: stated_edits.read_ids(connection, version.number) for version in self.local.versions()}
        head, edits = stated[self.local.head.number], {edit.id: edit for edit in self.local.all_edits()}
        live_seqs = {item.key: item.seq for item in self.local.live_set.live}
        waiting = [edit for edit in edits.values() if edit.status in self.tier.statuses]
        for edit_id in head:
            edit = edits[edit_id]
            assert edit in waiting
            assert edit.seq == max(other.seq for other in waiting if other.key == edit.key)
            assert edit.seq > live_seqs.get(key_digest(edit), 0)
        assert len(head) <= 3
        assert tuple(edit.id for edit in self.local.context.follower.current.stated) == head
        assert {number: stated[number] for number in self.stated} == self.stated
        self.stated = stated


@pytest.mark.parametrize("seed", range(6))
def test_after_random_losses_every_live_set_holds_what_its_overlay_was_trained_on(seed: int, tmp_path: Path) -> None:
    history = LossyHistory(seed, tmp_path)

    history.play(40)

    assert history.local.unknown_lessons() == []
    history.local.close()

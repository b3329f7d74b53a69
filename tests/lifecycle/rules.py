"""The rules of the lifecycle as a second, short model, which a reader can check against the design."""

from dataclasses import dataclass, field


@dataclass
class RuledFact:
    key: str
    target: str
    status: str = "queued"
    predecessor: int | None = None  # the fact that this one superseded
    successor: int | None = None  # the fact that superseded this one
    retract_requested: bool = False
    restore_previous: bool = False


@dataclass
class Rules:
    """Facts in order of submission, named by their number in this order.

    `live`: the live fact of each key. `trained`: by key, the facts that the tensors were trained on. `versions`: by number, the
    live facts, the trained facts, and the facts of the window.
    """

    automatic: bool
    facts: list[RuledFact] = field(default_factory=list)
    live: dict[str, int] = field(default_factory=dict)
    trained: dict[str, set[int]] = field(default_factory=dict)
    versions: dict[int, tuple[dict[str, int], dict[str, set[int]], set[int]]] = field(default_factory=dict)

    def submit(self, key: str, target: str, method: str) -> int | None:
        rivals = [
            n for n, f in enumerate(self.facts) if f.key == key and f.status in ("queued", "deferred", "applied", "consolidated")
        ]
        if rivals and self.facts[rivals[-1]].target == target and not self.facts[rivals[-1]].retract_requested:
            return None
        self.facts.append(RuledFact(key, target, "deferred" if method == "locft" else "queued"))
        return len(self.facts) - 1

    def retract(self, n: int, restore: bool) -> bool:
        fact = self.facts[n]
        if fact.status in ("superseded", "failed"):
            return False
        if fact.status in ("applied", "consolidated"):
            fact.retract_requested, fact.restore_previous = True, fact.restore_previous if fact.retract_requested else restore
        else:
            fact.status, fact.retract_requested = "retracted", True
        return True

    def drain(self) -> None:
        retracted = [n for n in self.live.values() if self.facts[n].retract_requested]
        for n in retracted:
            fact = self.facts[n]
            fact.status, predecessor = "retracted", fact.predecessor
            del self.live[fact.key]
            if (
                fact.restore_previous
                and predecessor is not None
                and self.facts[predecessor].status == "superseded"
                and self.facts[predecessor].successor == n
            ):
                self.live[fact.key] = predecessor
                is_trained = max(self.trained.get(fact.key, {-1})) == predecessor
                self.facts[predecessor].status = "consolidated" if is_trained else "applied"
        is_major_due = bool(self.trained.keys() - self.live.keys())
        for n, fact in enumerate(self.facts):
            if fact.status == "queued":
                self._apply(n, fact)
        if is_major_due and self.automatic:
            self.retrain()

    def _apply(self, n: int, fact: RuledFact) -> None:
        rival = self.live.get(fact.key)
        older = [m for m, other in enumerate(self.facts[:n]) if other.key == fact.key and other.status == "deferred"]
        if rival is not None and rival > n:
            fact.status, fact.successor = "superseded", rival
            return
        for m in older + [rival] * (rival is not None):
            self.facts[m].status, self.facts[m].successor, fact.predecessor = "superseded", n, m
        self.live[fact.key], fact.status = n, "applied"

    def retrain(self, minor: bool = False) -> None:
        minor = minor and bool(self.trained) and (bool(self.live) or any(fact.status == "deferred" for fact in self.facts))
        for n, fact in reversed(list(enumerate(self.facts))):  # the latest fact of a key supersedes the others
            if fact.status == "deferred":
                self._apply(n, fact)
        for n in self.live.values():
            self.facts[n].status = "consolidated"
        start = self.trained if minor else {}
        self.trained = {key: set(ns) for key, ns in start.items()}
        for key, n in self.live.items():
            self.trained.setdefault(key, set()).add(n)

    def add_version(self, number: int) -> None:
        self.versions[number] = (
            dict(self.live),
            {key: set(ns) for key, ns in self.trained.items()},
            {n for n in self.live.values() if self.facts[n].status == "applied"},
        )

    def roll_back(self, to: int, requeue: bool, number: int) -> None:
        live, trained, window = self.versions[to]
        restored = {key: n for key, n in live.items() if not self.facts[n].retract_requested}
        for n in set(self.live.values()) - set(restored.values()):
            fact = self.facts[n]
            fact.status = "retracted" if fact.retract_requested else "queued" if requeue else "rolled_back"
        for n in restored.values():
            self.facts[n].status = "applied" if n in window else "consolidated"
        self.live, self.trained = restored, {key: set(ns) for key, ns in trained.items()}

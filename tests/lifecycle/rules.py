"""The rules of the lifecycle once more, as a model that a person can check against the design in one reading."""

from dataclasses import dataclass, field


@dataclass
class RuledFact:
    key: str
    target: str
    status: str = "queued"
    before: int | None = None  # the fact it superseded
    after: int | None = None  # the fact that superseded it
    asked: bool = False  # to be taken back
    restore: bool = False


@dataclass
class Rules:
    """Facts by order of submission; `live` and `held` (what the tensors were trained on) by key; `kept` are the versions."""

    automatic: bool
    facts: list[RuledFact] = field(default_factory=list)
    live: dict[str, int] = field(default_factory=dict)
    held: dict[str, set[int]] = field(default_factory=dict)
    kept: dict[int, tuple[dict[str, int], dict[str, set[int]], set[int]]] = field(default_factory=dict)

    def submit(self, key: str, target: str, method: str) -> int | None:
        standing = [
            n for n, f in enumerate(self.facts) if f.key == key and f.status in ("queued", "deferred", "applied", "consolidated")
        ]
        if standing and self.facts[standing[-1]].target == target and not self.facts[standing[-1]].asked:
            return None
        self.facts.append(RuledFact(key, target, "deferred" if method == "locft" else "queued"))
        return len(self.facts) - 1

    def retract(self, n: int, restore: bool) -> bool:
        fact = self.facts[n]
        if fact.status in ("superseded", "failed"):
            return False
        if fact.status in ("applied", "consolidated"):
            fact.asked, fact.restore = True, fact.restore if fact.asked else restore
        else:
            fact.status, fact.asked = "retracted", True
        return True

    def drain(self) -> None:
        gone = [n for n in self.live.values() if self.facts[n].asked]
        for n in gone:
            fact = self.facts[n]
            fact.status, before = "retracted", fact.before
            del self.live[fact.key]
            if (
                fact.restore
                and before is not None
                and self.facts[before].status == "superseded"
                and self.facts[before].after == n
            ):
                self.live[fact.key] = before
                self.facts[before].status = "consolidated" if max(self.held.get(fact.key, {-1})) == before else "applied"
        taken_back = bool(self.held.keys() - self.live.keys())
        for n, fact in enumerate(self.facts):
            if fact.status == "queued":
                self._apply(n, fact)
        if taken_back and self.automatic:
            self.retrain()

    def _apply(self, n: int, fact: RuledFact) -> None:
        rival = self.live.get(fact.key)
        older = [m for m, other in enumerate(self.facts[:n]) if other.key == fact.key and other.status == "deferred"]
        if rival is not None and rival > n:
            fact.status, fact.after = "superseded", rival
            return
        for m in older + [rival] * (rival is not None):
            self.facts[m].status, self.facts[m].after, fact.before = "superseded", n, m
        self.live[fact.key], fact.status = n, "applied"

    def retrain(self, minor: bool = False) -> None:
        minor = minor and bool(self.held) and (bool(self.live) or any(fact.status == "deferred" for fact in self.facts))
        for n, fact in reversed(list(enumerate(self.facts))):  # the latest of a key takes the others' place
            if fact.status == "deferred":
                self._apply(n, fact)
        for n in self.live.values():
            self.facts[n].status = "consolidated"
        before = self.held if minor else {}
        self.held = {key: set(ns) for key, ns in before.items()}
        for key, n in self.live.items():
            self.held.setdefault(key, set()).add(n)

    def keep(self, number: int) -> None:
        self.kept[number] = (
            dict(self.live),
            {key: set(ns) for key, ns in self.held.items()},
            {n for n in self.live.values() if self.facts[n].status == "applied"},
        )

    def roll_back(self, to: int, requeue: bool, number: int) -> None:
        live, held, window = self.kept[to]
        after = {key: n for key, n in live.items() if not self.facts[n].asked}
        for n in set(self.live.values()) - set(after.values()):
            fact = self.facts[n]
            fact.status = "retracted" if fact.asked else "queued" if requeue else "rolled_back"
        for n in after.values():
            self.facts[n].status = "applied" if n in window else "consolidated"
        self.live, self.held = after, {key: set(ns) for key, ns in held.items()}

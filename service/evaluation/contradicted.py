"""Questions that another live edit answers otherwise: a version that gives that edit's answer is right, so they are left out.

What is seen: the same prompt after normalisation, and edits of one conflict key, of which the newest counts. Contradictions under
other words are not seen by any prompt (KE-Pitfalls' reverse conflicts).
"""

from collections.abc import Iterable, Sequence

from service.domain.edit import normalise
from service.evaluation.matching import squad
from service.evaluation.metrics import Outcome
from service.evaluation.record import Ask, Record, asks_of, edit_request_of


class LiveEdits:
    """The edits a version answers, in order of acceptance, by prompt and by conflict key."""

    def __init__(self, live: Iterable[Record]) -> None:
        by_key: dict[str, Record] = {}
        for record in live:
            key = edit_request_of(record).key
            by_key.pop(key, None)  # the newest of a key comes last, as it was accepted last
            by_key[key] = record
        self._by_key = by_key
        self._by_prompt = {normalise(record.prompt): record for record in by_key.values()}

    def contradict(self, record: Record, ask: Ask) -> bool:
        """Whether another live edit has the question's answer changed.

        A locality question must keep the base model's answer, so any live edit of its prompt contradicts it, even its own.
        """
        holder = self._by_prompt.get(normalise(ask.prompt))
        if ask.kind == "locality":
            return holder is not None
        newest = self._by_key.get(edit_request_of(record).key)
        replaced = newest is not None and not _agree(newest, record.accepted())
        return replaced or (holder is not None and not _agree(holder, ask.accepted))


def askable(
    records: Sequence[Record], supported: Sequence[str], live: Iterable[Record] | None = None
) -> tuple[list[tuple[Record, Ask]], int]:
    """The questions of `records` that no edit of `live` contradicts (None: of the records themselves), and how many others."""
    edits = LiveEdits(records if live is None else live)
    asks = [(record, ask) for record in records for ask in asks_of(record, supported)]
    kept = [(record, ask) for record, ask in asks if not edits.contradict(record, ask)]
    return kept, len(asks) - len(kept)


def uncontradicted(outcomes: Sequence[Outcome], records: Sequence[Record], live: Iterable[Record]) -> list[Outcome]:
    """The outcomes of those questions of `records` that no edit of `live` contradicts."""
    edits, asked = LiveEdits(live), {record.id: record for record in records}
    return [outcome for outcome in outcomes if not edits.contradict(asked[outcome.ask.record], outcome.ask)]


def _agree(edit: Record, accepted: Sequence[str]) -> bool:
    return squad(edit.target) in {squad(one) for one in accepted}

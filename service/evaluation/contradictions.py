"""Questions that another live edit contradicts. A version that gives that edit's answer is right, so such questions are left out.

A contradiction is detected by equal prompts after normalisation, both of edits and of their rephrases, and by conflict keys, of
which the newest edit counts. Contradictions in other words are not detected (KE-Pitfalls' reverse conflicts).
"""

from collections.abc import Iterable, Sequence

from service.domain.edit import normalise
from service.evaluation.metrics.matching import normalise_squad
from service.evaluation.metrics.outcomes import Outcome
from service.evaluation.records import EvalQuestion, Record, list_questions, to_edit_request


class LiveEdits:
    """The edits that a version answers, by prompt and by conflict key. `live` is in order of submission.

    Data sets are applied without their probes, so the rephrases of those `records` that are live count as rephrases of edits.
    """

    def __init__(self, live: Iterable[Record], records: Iterable[Record]) -> None:
        by_key: dict[str, Record] = {}
        for record in live:
            key = to_edit_request(record).key
            by_key.pop(key, None)  # the edit that was accepted last comes last
            by_key[key] = record
        self._by_key = by_key
        self._by_prompt = {normalise(record.prompt): record for record in by_key.values()}
        self._by_rephrase: dict[str, set[str]] = {}  # the answers to a rephrase; several edits may share one
        for record in (*by_key.values(), *(record for record in records if self._is_live(record))):
            for probe in record.rephrases:
                self._by_rephrase.setdefault(normalise(probe.prompt), set()).add(probe.answer or record.target)

    def contradicts(self, record: Record, question: EvalQuestion) -> bool:
        """Whether another live edit changes the question's answer.

        A locality question must keep the base model's answer. Therefore any live edit of its prompt contradicts the question,
        even the edit that the question belongs to.
        """
        answers = self._answers(normalise(question.prompt))
        if question.kind == "locality":
            return bool(answers)
        return self._is_replaced(record) or any(not _is_among(answer, question.answers) for answer in answers)

    def _answers(self, prompt: str) -> set[str]:
        """The answers of live edits to a prompt: of the edit with this prompt, else of all edits with this rephrase."""
        edit = self._by_prompt.get(prompt)
        return self._by_rephrase.get(prompt, set()) if edit is None else {edit.target}

    def _is_live(self, record: Record) -> bool:
        newest = self._by_key.get(to_edit_request(record).key)
        return newest is not None and _is_among(newest.target, record.list_answers())

    def _is_replaced(self, record: Record) -> bool:
        newest = self._by_key.get(to_edit_request(record).key)
        return newest is not None and not _is_among(newest.target, record.list_answers())


def select_questions(
    records: Sequence[Record], supported: Sequence[str], live: Iterable[Record] | None = None
) -> tuple[list[tuple[Record, EvalQuestion]], int]:
    """The questions of `records` that no edit of `live` (None: of `records`) contradicts, and the number of the others."""
    edits = LiveEdits(records if live is None else live, records)
    pairs = [(record, question) for record in records for question in list_questions(record, supported)]
    selection = [(record, question) for record, question in pairs if not edits.contradicts(record, question)]
    return selection, len(pairs) - len(selection)


def drop_contradicted(outcomes: Sequence[Outcome], records: Sequence[Record], live: Iterable[Record]) -> list[Outcome]:
    """The outcomes whose questions no edit of `live` contradicts. The questions are those of `records`."""
    edits, by_id = LiveEdits(live, records), {record.id: record for record in records}
    return [outcome for outcome in outcomes if not edits.contradicts(by_id[outcome.question.record], outcome.question)]


def _is_among(answer: str, accepted: Sequence[str]) -> bool:
    return normalise_squad(answer) in {normalise_squad(text) for text in accepted}

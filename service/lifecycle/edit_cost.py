"""What an edit costs, in tokens, and how much of it is accepted: estimated before anything is stored.

A row is one text with its answer on one surface. A fit runs rows side by side, so it costs their number times the longest of
them, padding included, whatever the base model's context would allow; a report asks them one after another, so there they add up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.domain.cost_limits import CostLimits
from service.domain.edit import EditRequest, Probe
from service.domain.errors import TooLong
from service.lm.base import Base
from service.lm.prompts import encode_prompt, encode_row

BASE_ANSWER_TOKENS = 16  # of the base model's answer to what must stay, as fits keep it
REPORT_ANSWER_TOKENS = 32  # of the same, as reports compare it
REPORTS = 4  # times as many tokens as for fits may the reports of one batch ask: an edit may ask four times what it trains on


@dataclass(frozen=True)
class EditCost:
    """Of one edit: rows to be answered, each padded to the longest; rows to be kept, likewise; and what each kind of question
    adds to its report.
    """

    answered: int
    kept: int
    asked: dict[str, int]

    @property
    def fit(self) -> int:
        """What a fit of this edit alone is given."""
        return self.answered + self.kept

    @property
    def report(self) -> int:
        """What its report asks."""
        return sum(self.asked.values())


class CostChecker:
    """Weighs the edits of one submission for one base model, and refuses what is too heavy. Each edit is weighed once: what is
    weighed ahead need not be weighed again while the database is held.
    """

    def __init__(self, base: Base, bounds: CostLimits, *, is_batch: bool) -> None:
        self._bounds, self._is_batch = bounds, is_batch
        self._lengths = RowLengths(base)
        self._known: dict[int, tuple[EditRequest, int]] = {}  # by identity: the request is kept, so that no other has its id
        self._reports = 0  # what the reports of all that was weighed ask

    def check(self, requests: Sequence[EditRequest]) -> None:
        """Raise TooLong for an edit that costs too much, or for all of a list that do together."""
        total = sum(self.cost_of(request, at) for at, request in enumerate(requests))
        if self._is_batch and total > self._bounds.batch:
            raise TooLong(
                f"what fits of these edits train on comes to more than the {self._bounds.batch} tokens that one batch may cost;"
                " send them in several",
                field="edits",
            )

    def cost_of(self, request: EditRequest, at: int) -> int:
        """What a fit of the edit is given, in tokens. Raises TooLong if it costs too much; the field's path begins with `at`, the
        edit's place, if edits were `listed`.
        """
        if id(request) not in self._known:
            self._known[id(request)] = (request, self._weigh(request, f"edits[{at}]." if self._is_batch else ""))
        return self._known[id(request)][1]

    def _weigh(self, request: EditRequest, path: str) -> int:
        cost = self._lengths.cost_of(request)
        self._reports += cost.report
        if self._reports > REPORTS * self._bounds.batch:
            raise TooLong(
                f"what the reports of these edits ask, with the probes that such edits have already, comes to more than the"
                f" {REPORTS * self._bounds.batch} tokens that one batch may cost; send them in several",
                field="edits",
            )
        if cost.fit > self._bounds.fit:
            raise TooLong(
                f"what a fit of this edit trains on, {_what_weighs(cost)}, comes to more than the {self._bounds.fit} tokens that"
                " one edit may cost (rows times the longest row); send fewer or shorter texts, or say `train: false` of some",
                field=path + _heaviest(cost, request),
            )
        if cost.report > self._bounds.report:
            raise TooLong(
                f"what the report of this edit asks comes to more than the {self._bounds.report} tokens that one edit may cost;"
                " send fewer or shorter probes",
                field=path + max(cost.asked, key=lambda kind: cost.asked[kind]),
            )
        return cost.fit


class RowLengths:
    """Tokens of rows of one base model, each row read once: an edit that is told more is mostly made of rows that are known."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._known: dict[tuple[str, str | None, str | None], int] = {}

    def cost_of(self, request: EditRequest) -> EditCost:
        """What an edit costs. Raises Refused for a text that does not fit the model at all."""
        surfaces = request.surfaces or self._base.surfaces
        own = self._rows(request.prompt, request.target, surfaces)
        rephrases = [(probe, self._rows(probe.prompt, probe.answer or request.target, surfaces)) for probe in request.rephrases]
        learned = [length for probe, lengths in rephrases if probe.train for length in lengths]
        kept = [self._row(probe.prompt, None, None) + BASE_ANSWER_TOKENS for probe in request.locality if probe.train]
        asked = {
            "prompt": sum(own),
            "rephrases": sum(length for _, lengths in rephrases for length in lengths),
            "locality": sum(self._asked(request.locality, surfaces, REPORT_ANSWER_TOKENS)),
            "portability": sum(self._asked(request.portability, surfaces, 0)),
        }
        return EditCost(_padded([*own, *learned]), _padded(kept), asked)

    def _rows(self, prompt: str, answer: str | None, surfaces: Sequence[str]) -> list[int]:
        return [self._row(prompt, answer, surface) for surface in surfaces]

    def _asked(self, probes: Sequence[Probe], surfaces: Sequence[str], more: int) -> Iterator[int]:
        """Tokens of probes with their answers, and `more` for what the base model says of its own."""
        return (length + more for probe in probes for length in self._rows(probe.prompt, probe.answer, surfaces))

    def _row(self, prompt: str, answer: str | None, surface: str | None) -> int:
        """Tokens of a prompt, with its answer if it has one, on a surface; without one as text by itself."""
        if (prompt, answer, surface) not in self._known:
            self._known[prompt, answer, surface] = self._read(prompt, answer, surface)
        return self._known[prompt, answer, surface]

    def _read(self, prompt: str, answer: str | None, surface: str | None) -> int:
        if surface is None:
            return len(encode_prompt(self._base, prompt))
        if answer is None:
            return len(encode_prompt(self._base, prompt, surface=surface))
        return len(encode_row(self._base, prompt, answer, surface=surface).ids)


def _padded(lengths: Sequence[int]) -> int:
    return len(lengths) * max(lengths, default=0)


def _what_weighs(cost: EditCost) -> str:
    return "prompt, target and trained rephrases" + (", and trained locality probes" if cost.kept else "")


def _heaviest(cost: EditCost, request: EditRequest) -> str:
    """The field that weighs most and could be made smaller."""
    if cost.kept > cost.answered:
        return "locality"
    return "rephrases" if any(probe.train for probe in request.rephrases) else "prompt"

"""The cost of an edit in tokens, and its limits, estimated before anything is stored.

A row is one text with its answer on one surface. A fit runs rows side by side, so it costs their number times the longest row,
padding included. A report asks rows one after another, so their lengths add up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.domain.cost_limits import CostLimits
from service.domain.edit import EditRequest, Probe
from service.domain.errors import TooLong
from service.lm.base import Base
from service.lm.prompts import encode_prompt, encode_row

BASE_ANSWER_TOKENS = 16  # of the base's answer to a locality probe, in fits
REPORT_ANSWER_TOKENS = 32  # of the same answer, in reports
REPORT_FACTOR = 4  # tokens that the reports of a batch may ask, over the tokens that its fits may train on


@dataclass(frozen=True)
class EditCost:
    """The cost of one edit: the rows of its targets, padded to the longest; the rows of trained locality probes, likewise; and
    the tokens of each kind of question in its report.
    """

    target_tokens: int
    kept_tokens: int
    question_tokens: dict[str, int]

    @property
    def fit_tokens(self) -> int:
        """The tokens that a fit of this edit alone trains on."""
        return self.target_tokens + self.kept_tokens

    @property
    def report_tokens(self) -> int:
        """The tokens that its report asks."""
        return sum(self.question_tokens.values())


class CostChecker:
    """Computes the costs of the edits of one submission, and refuses those that cost too much. Each cost is computed once, so
    that none is computed while the database is locked.
    """

    def __init__(self, base: Base, bounds: CostLimits, *, is_batch: bool) -> None:
        self._bounds, self._is_batch = bounds, is_batch
        self._lengths = RowLengths(base)
        self._costs: dict[int, tuple[EditRequest, int]] = {}  # by identity: a stored request keeps its id from reuse
        self._reports = 0  # tokens of all reports so far

    def check(self, requests: Sequence[EditRequest]) -> None:
        """Raise TooLong if an edit costs too much, or all edits of a batch together do."""
        total = sum(self.cost_of(request, position) for position, request in enumerate(requests))
        if self._is_batch and total > self._bounds.batch:
            raise TooLong(
                f"what fits of these edits train on comes to more than the {self._bounds.batch} tokens that one batch may cost;"
                " send them in several",
                field="edits",
            )

    def cost_of(self, request: EditRequest, position: int) -> int:
        """The tokens that a fit of the edit trains on. Raises TooLong if the edit costs too much. The field's path begins with
        the edit's `position` if the submission is a batch.
        """
        if id(request) not in self._costs:
            self._costs[id(request)] = (request, self._compute_cost(request, f"edits[{position}]." if self._is_batch else ""))
        return self._costs[id(request)][1]

    def _compute_cost(self, request: EditRequest, path: str) -> int:
        cost = self._lengths.cost_of(request)
        self._reports += cost.report_tokens
        if self._reports > REPORT_FACTOR * self._bounds.batch:
            raise TooLong(
                f"what the reports of these edits ask, with the probes that such edits have already, comes to more than the"
                f" {REPORT_FACTOR * self._bounds.batch} tokens that one batch may cost; send them in several",
                field="edits",
            )
        if cost.fit_tokens > self._bounds.fit:
            raise TooLong(
                f"what a fit of this edit trains on, {_trained_fields(cost)}, comes to more than the {self._bounds.fit} tokens"
                " that one edit may cost (rows times the longest row); send fewer or shorter texts, or say `train: false` of"
                " some",
                field=path + _largest_field(cost, request),
            )
        if cost.report_tokens > self._bounds.report:
            raise TooLong(
                f"what the report of this edit asks comes to more than the {self._bounds.report} tokens that one edit may cost;"
                " send fewer or shorter probes",
                field=path + max(cost.question_tokens, key=lambda kind: cost.question_tokens[kind]),
            )
        return cost.fit_tokens


class RowLengths:
    """Lengths of rows of one base, in tokens. Each row is encoded once: an extended edit has mostly known rows."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._lengths: dict[tuple[str, str | None, str | None], int] = {}

    def cost_of(self, request: EditRequest) -> EditCost:
        """The cost of an edit. Raises Refused for a text that does not fit the model at all."""
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
        return EditCost(_padded_tokens([*own, *learned]), _padded_tokens(kept), asked)

    def _rows(self, prompt: str, answer: str | None, surfaces: Sequence[str]) -> list[int]:
        return [self._row(prompt, answer, surface) for surface in surfaces]

    def _asked(self, probes: Sequence[Probe], surfaces: Sequence[str], more: int) -> Iterator[int]:
        """Lengths of probes with their answers, and `more` for the base's own answer."""
        return (length + more for probe in probes for length in self._rows(probe.prompt, probe.answer, surfaces))

    def _row(self, prompt: str, answer: str | None, surface: str | None) -> int:
        """Length of a prompt on a surface, with its answer if it has one; as plain text without a surface."""
        if (prompt, answer, surface) not in self._lengths:
            self._lengths[prompt, answer, surface] = self._read(prompt, answer, surface)
        return self._lengths[prompt, answer, surface]

    def _read(self, prompt: str, answer: str | None, surface: str | None) -> int:
        if surface is None:
            return len(encode_prompt(self._base, prompt))
        if answer is None:
            return len(encode_prompt(self._base, prompt, surface=surface))
        return len(encode_row(self._base, prompt, answer, surface=surface).ids)


def _padded_tokens(lengths: Sequence[int]) -> int:
    return len(lengths) * max(lengths, default=0)


def _trained_fields(cost: EditCost) -> str:
    return "prompt, target and trained rephrases" + (", and trained locality probes" if cost.kept_tokens else "")


def _largest_field(cost: EditCost, request: EditRequest) -> str:
    """The field that costs most and can be made smaller."""
    if cost.kept_tokens > cost.target_tokens:
        return "locality"
    return "rephrases" if any(probe.train for probe in request.rephrases) else "prompt"

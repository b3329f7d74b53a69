"""A client that counts the requests of a benchmark and records every failure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from service.client.errata_client import ErrataClient
from service.client.errors import ServerProblem, TimedOut, Unreachable
from service.client.retries import NO_RETRIES, Retries
from service.client.steps import Cut, Outcome, Send, read_problem
from service.evaluation.merging import merge_results
from service.evaluation.records import Record, to_json

EVAL_RECORDS = 250  # of one evaluation, so that a request body is well under the server's limit
R = TypeVar("R")


@dataclass
class CountingClient:
    """A client with the number of its requests, and a sentence for each that failed. A failed request is not repeated."""

    client: ErrataClient
    requests: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = self.client.with_options(retries=NO_RETRIES, observe=self._count)

    def attempt(self, call: Callable[[ErrataClient], R]) -> R | None:
        """The result of a call, or None if there was no answer or its status is not 2xx."""
        try:
            return call(self.client)
        except (ServerProblem, Unreachable):
            return None

    def list_items(self, listing: Callable[[ErrataClient], Iterable[R]]) -> Iterator[R]:
        """Every item of a list, up to the first page that fails."""
        try:
            yield from listing(self.client)
        except (ServerProblem, Unreachable):
            return

    def _count(self, request: Send, outcome: Outcome) -> None:
        self.requests += 1
        call = f"{request.method} {_path_without_ids(request.path)}"
        if isinstance(outcome, Cut):
            self.failures.append(f"{call}: {outcome.cause}")
        elif not outcome.is_success:
            self.failures.append(f"{call}: {outcome.status} {read_problem(outcome).detail}")


def evaluate(
    client: CountingClient, records: Sequence[Record], version: int, *, capability: bool, patience_s: float
) -> dict[str, Any] | None:
    """Let the server evaluate a version on records. Returns None if an evaluation failed.

    Many records are several evaluations of the same version, whose results are merged.
    """
    results: list[dict[str, Any]] = []
    for start in range(0, len(records), EVAL_RECORDS):
        batch = [to_json(record) for record in records[start : start + EVAL_RECORDS]]
        result = _evaluate_once(client, batch, version, capability=capability and start == 0, patience_s=patience_s)
        if result is None:
            return None
        results.append(result)
    return merge_results(results)


def _evaluate_once(
    client: CountingClient, records: Sequence[dict[str, Any]], version: int, *, capability: bool, patience_s: float
) -> dict[str, Any] | None:
    requested = client.attempt(lambda errata: errata.evaluate(records, version=version, capability=capability))
    if requested is None:
        return None
    patient = client.client.with_options(retries=Retries(busy_s=patience_s, away_s=patience_s))  # failures are counted, too
    try:
        evaluation = patient.wait_for_evaluation(requested, timeout_s=patience_s)
    except (ServerProblem, Unreachable):
        return None
    except TimedOut:
        client.failures.append("evaluation: not done in time")
        return None
    if evaluation["status"] != "done":
        client.failures.append(f"evaluation: {evaluation['status']}: {evaluation['error']}")
    return evaluation["result"] if evaluation["status"] == "done" else None


def _path_without_ids(path: str) -> str:
    """A path without ids, so that equal failures have equal sentences."""
    return "/".join(part if len(part) < 20 else "…" for part in path.split("/"))

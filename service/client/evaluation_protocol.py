"""The field's protocol: edit, ask right after each edit, ask everything after the last one, and again after a retrain.

What was measured is worth having whatever comes later: the report is kept after every moment, and an error ends it with a
sentence.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from service.client.evaluations import EvaluationClient
from service.client.local_server import told
from service.domain.errors import Refused, ServiceError
from service.evaluation.merging import merge_results
from service.evaluation.records import Record

Report = dict[str, Any]
Keep = Callable[[Mapping[str, Any]], None]


def edit_and_measure(
    evaluator: EvaluationClient,
    records: Sequence[Record],
    *,
    batch: int,
    capability: bool,
    retrain: bool,
    keep: Keep = lambda _: None,
) -> Report:
    """The report: `after_edit` (of `batch` edits each), `after_all`, and with `retrain` once more with everything in the weights.

    After the edit an edit that is deferred to a retrain is not asked but counted, as `not_live`: it is not made yet. All are
    asked once every edit is carried; those for which no retrain comes are asked as they are, and counted too. `error` says what
    ended the protocol early. `keep` is given the report after every moment. Raises what happened before anything was measured.
    """
    report: Report = {}
    try:
        _after_edit(evaluator, records, report, batch)
        keep(report)
        _after_all(evaluator, records, report, capability)
        keep(report)
        if retrain:
            report["retrain"] = evaluator.retrain("errata eval --retrain", "major")  # also where deferred edits made one already
            report["after_retrain"] = evaluator.measure(evaluator.head(), records, capability=capability)
            keep(report)
    except (ServiceError, httpx.HTTPError) as error:
        if "after_edit" not in report:
            raise
        report["error"] = told(error)
        keep(report)
    return report


def _after_edit(evaluator: EvaluationClient, records: Sequence[Record], report: Report, batch: int) -> None:
    ended: Counter[str] = Counter()
    found: list[Report] = []
    try:
        for start in range(0, len(records), batch):
            some = records[start : start + batch]
            how = evaluator.apply(some)
            if how:
                ended.update(how.values())
                found.append(_right_after(evaluator, some, how))
            evaluator.told(f"edited {min(start + batch, len(records))} of {len(records)}")
    finally:  # an error later on does not take it away
        if found:
            report |= {"edits": dict(ended), "after_edit": merge_results(found)}
    if not found:
        raise Refused("the server took none of the records as an edit", field="data")


def _right_after(evaluator: EvaluationClient, records: Sequence[Record], how: Mapping[str, str]) -> Report:
    asked = [record for record in records if how.get(record.id, "deferred") != "deferred"]
    counted = {"not_live": list(how.values()).count("deferred")}
    return counted | (evaluator.measure(evaluator.head(), asked) if asked else {})


def _after_all(evaluator: EvaluationClient, records: Sequence[Record], report: Report, capability: bool) -> None:
    try:
        waiting = evaluator.wait_until_live()
    except (ServiceError, httpx.HTTPStatusError) as error:  # they are measured as they stand, and it is told
        report["deferred"] = {"error": told(error)}
        waiting = Counter({"deferred": evaluator.standing()["deferred"]})
    report["edits"] = dict(evaluator.standing())
    report["after_all"] = {"not_live": waiting.total()} | evaluator.measure(evaluator.head(), records, capability=capability)

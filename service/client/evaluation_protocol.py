"""The field's protocol: edit, ask right after each edit, ask everything after the last edit, and once more after a retrain.

The report is saved after every moment, and an error ends the report with a sentence: earlier measurements are worth keeping.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.client.errors import Unreachable
from service.client.evaluations import EvaluationClient
from service.domain.errors import Refused, ServiceError
from service.evaluation.merging import merge_results
from service.evaluation.records import Record

Report = dict[str, Any]
SaveReport = Callable[[Mapping[str, Any]], None]


def edit_and_measure(
    evaluator: EvaluationClient,
    records: Sequence[Record],
    *,
    batch: int,
    capability: bool,
    retrain: bool,
    save: SaveReport = lambda _: None,
) -> Report:
    """The report: `after_edit` (of `batch` edits each), `after_all`, and with `retrain` `after_retrain`.

    In `after_edit` a deferred edit is not asked but counted, as `not_live`. In `after_all` every edit is asked, once all are
    live; edits for which no retrain comes are asked as they are, and counted too. `error` is the sentence of the error that ended
    the protocol early. `save` is called with the report after every moment. Raises an error that comes before any measurement.
    """
    report: Report = {}
    try:
        _measure_after_edit(evaluator, records, report, batch)
        save(report)
        _measure_after_all(evaluator, records, report, capability)
        save(report)
        if retrain:
            # Also where deferred edits have caused a retrain already.
            report["retrain"] = evaluator.retrain("errata eval --retrain", "major")
            report["after_retrain"] = evaluator.measure(evaluator.read_head(), records, capability=capability)
            save(report)
    except ServiceError as error:
        if "after_edit" not in report:
            raise
        report["error"] = error.message
        save(report)
    return report


def _measure_after_edit(evaluator: EvaluationClient, records: Sequence[Record], report: Report, batch: int) -> None:
    counts: Counter[str] = Counter()
    results: list[Report] = []
    try:
        for start in range(0, len(records), batch):
            posted = records[start : start + batch]
            statuses = evaluator.apply(posted)
            if statuses:
                counts.update(statuses.values())
                results.append(_measure_batch(evaluator, posted, statuses))
            evaluator.progress(f"edited {min(start + batch, len(records))} of {len(records)}")
    finally:  # a later error does not discard these results
        if results:
            report |= {"edits": dict(counts), "after_edit": merge_results(results)}
    if not results:
        raise Refused("the server took none of the records as an edit", field="data")


def _measure_batch(evaluator: EvaluationClient, records: Sequence[Record], statuses: Mapping[str, str]) -> Report:
    live = [record for record in records if statuses.get(record.id, "deferred") != "deferred"]
    counted = {"not_live": list(statuses.values()).count("deferred")}
    return counted | (evaluator.measure(evaluator.read_head(), live) if live else {})


def _measure_after_all(evaluator: EvaluationClient, records: Sequence[Record], report: Report, capability: bool) -> None:
    try:
        waiting = evaluator.wait_until_live()
    except Unreachable:
        raise
    except ServiceError as error:  # the edits are measured as they are, and the report says so
        report["deferred"] = {"error": error.message}
        waiting = Counter({"deferred": evaluator.count_statuses()["deferred"]})
    report["edits"] = dict(evaluator.count_statuses())
    report["after_all"] = {"not_live": waiting.total()} | evaluator.measure(evaluator.read_head(), records, capability=capability)

"""Which part of which block of a model takes edits best: the LocFT-BF paper's sweep over layers and modules (section 5), on the
edits of a user. Every location is one retrain from the base, measured by the field's metrics. An interrupted sweep goes on.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

from service.bench.bench_model import BenchModel, open_model
from service.bench.contrast_cases import Case
from service.bench.contrast_runs import Row, run_cases
from service.bench.records import load_records
from service.bench.results import short_name, write
from service.domain.errors import Refused
from service.editors.depth_rule import block_at_share
from service.editors.locft.published_locations import BlockKind
from service.editors.locft.settings import LocftSettings
from service.evaluation.records import Record
from service.lm.blocks import Anatomy, Location

SWEPT_BLOCKS = 8  # of a deep model, evenly spread over its depth
MEASURES = ("reliability", "generality", "locality", "capability")


def locate(
    out: Path,
    file: Path | None,
    *,
    model: str,
    n: int,
    skip: int,
    kinds: Sequence[BlockKind],
    blocks: Sequence[int],
    settings: LocftSettings,
    say: Callable[[str], None],
) -> list[Row]:
    """Retrain `n` edits of a data set at each location, under `settings`, and leave `locate_<model>.json` in `out`. Without
    `blocks`, some of every depth are swept.

    Returns one row a location, the best first, each with its `score`. Raises Refused for edits that cannot be read or are too
    few, for a block that the model does not have, for modules of which it has none, and for a folder that cannot be written or
    holds another sweep of the model.
    """
    records = load_records(file, n=n, skip=skip)
    bench_model = open_model(model, records)
    cases = list_locations(bench_model.base.anatomy, kinds, blocks, settings, n)
    name, key = f"locate_{short_name(model)}", _key(bench_model, records, settings)
    rows = _read_rows(out / f"{name}.json", key)
    done = {row["case"] for row in rows}
    waiting = [case for case in cases if case.name not in done]

    def keep() -> None:
        figures = {"key": key, "edits": n, "skip": skip, "rows": rows}
        try:
            write(out, name, figures, device=str(bench_model.base.device))
        except OSError as error:
            raise Refused("the folder for results cannot be written", field="out") from error

    keep()
    for kind in kinds:
        if kind not in {case.line for case in cases}:
            say(f"the model has no module of the kind {kind} in every block: left out")
    say(f"{len(cases)} locations, {len(cases) - len(waiting)} of them measured before")
    for row in _measure(bench_model, waiting):
        rows.append(row)
        keep()
        say(describe(row))
    named = {case.name for case in cases}
    return best_first(row for row in rows if row["case"] in named)


def list_locations(
    anatomy: Anatomy, kinds: Sequence[BlockKind], blocks: Sequence[int], settings: LocftSettings, n: int
) -> list[Case]:
    """One case a location that the model has: a kind of module in a block.

    Raises Refused for a block that the model does not have, and where it has none of the kinds.
    """
    if any(block >= anatomy.depth for block in blocks):
        raise Refused(f"the model has {anatomy.depth} blocks, numbered from 0", field="block")
    swept = sorted(set(blocks)) or spread_blocks(anatomy.depth)
    present = [kind for kind in kinds if all(_has(anatomy, kind, block) for block in swept)]
    if not present:
        raise Refused("the model has no such module in every block", field="kind")
    return [Case(f"{kind} of block {block}", _at(settings, kind, block), n, kind, block) for kind in present for block in swept]


def spread_blocks(depth: int) -> list[int]:
    """At most SWEPT_BLOCKS blocks of a depth, the last one among them."""
    return sorted({block_at_share((number + 1) / SWEPT_BLOCKS, depth) for number in range(SWEPT_BLOCKS)})


def score_of(row: Row) -> float:
    """The harmonic mean of the measures that a row has, as the field's single figure of an edit's success; 0 if one is 0."""
    values = [min(float(row[name]), 1.0) for name in MEASURES if row.get(name) is not None]
    return harmonic_mean(values) if values else 0.0


def best_first(rows: Iterable[Row]) -> list[Row]:
    """The rows by score, in their order where scores are equal."""
    return sorted(rows, key=lambda row: -row["score"])


def describe(row: Row) -> str:
    """One row as a line of text."""
    measured = ", ".join(f"{name} {row[name]:.2f}" for name in MEASURES if row.get(name) is not None)
    return f"{row['case']}: score {row['score']:.3f} ({measured}), {row['epochs']} epochs, {row['seconds']:.0f} s"


def to_environment(row: Row) -> dict[str, str]:
    """The settings that retrain at the location of a row."""
    return {"ERRATA_LOCFT__KIND": str(row["line"]), "ERRATA_LOCFT__BLOCK": str(int(row["x"]))}


def _measure(bench_model: BenchModel, cases: Sequence[Case]) -> Iterator[Row]:
    for row in run_cases(bench_model, cases):
        yield {**row, "score": score_of(row)}


def _at(settings: LocftSettings, kind: BlockKind, block: int) -> LocftSettings:
    return settings.model_copy(update={"kind": kind, "block": block, "blocks": (), "position": "auto"})


def _has(anatomy: Anatomy, kind: BlockKind, block: int) -> bool:
    try:
        return bool(anatomy.parameters_at(Location(kind, block)))
    except Refused:
        return False


def _key(bench_model: BenchModel, records: Sequence[Record], settings: LocftSettings) -> str:
    """What rows of one sweep have in common: the weights, the edits with their probes, and the settings but for the location."""
    effective = _at(settings, "down", 0).model_dump(mode="json")
    about: list[Any] = [bench_model.base.fingerprint, [asdict(record) for record in records], effective]
    return sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _read_rows(file: Path, key: str) -> list[Row]:
    """The rows of an earlier sweep of the same weights, edits and settings. Raises Refused for a file of anything else."""
    try:
        figures = json.loads(file.read_text(encoding="utf-8"))["figures"]
        rows = list(figures["rows"])
        for row in rows:
            describe(row), to_environment(row)  # it can be told
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"the file {file.name} is no sweep; remove it or name another folder", field="out") from error
    if figures["key"] != key:
        raise Refused("the folder holds a sweep of other edits, weights or settings; name another folder", field="out")
    return rows

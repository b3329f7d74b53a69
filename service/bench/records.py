"""The edits that a benchmark measures on."""

from dataclasses import replace
from pathlib import Path

from service.atlas import benchmark
from service.domain.errors import Refused
from service.evaluation.datasets import load
from service.evaluation.records import EvalProbe, Record, read_records


def load_records(file: Path | None, *, n: int, skip: int = 0) -> list[Record]:
    """`n` records of a file in any form that `datasets` reads, or of the embedded model's own edits.

    Raises Refused where the file holds none or fewer. Rows that cannot be read are left out; `errata eval` tells which.
    """
    found = read_records(benchmark.FILE) if file is None else list(load(file, limit=skip + n).records)
    chosen = found[skip : skip + n]
    if len(chosen) < n:
        raise Refused(f"there are only {len(chosen)} edits from there on", field="n")
    return chosen


def open_rephrases(record: Record, rephrases: int) -> Record:
    """The record with its first `rephrases` rephrases open to training, and nothing else."""

    def closed(probes: tuple[EvalProbe, ...], first: int = 0) -> tuple[EvalProbe, ...]:
        return tuple(replace(probe, train=at < first) for at, probe in enumerate(probes))

    return replace(
        record,
        rephrases=closed(record.rephrases, rephrases),
        locality=closed(record.locality),
        portability=closed(record.portability),
    )

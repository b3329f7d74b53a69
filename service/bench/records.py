"""The edits that a benchmark measures on."""

from dataclasses import replace
from pathlib import Path

from service.atlas import benchmark
from service.domain.errors import Refused
from service.evaluation.datasets import load
from service.evaluation.records import EvalProbe, Record, read_records


def load_records(file: Path | None, *, n: int, skip: int = 0) -> list[Record]:
    """`n` records of a file in any form that `datasets` reads; without a file, of the embedded model's own edits.

    Raises Refused where there are fewer. Bad rows are left out; `errata eval` reports them.
    """
    records = load_all_records(None) if file is None else list(load(file, limit=skip + n).records)
    selection = records[skip : skip + n]
    if len(selection) < n:
        raise Refused(f"there are only {len(selection)} edits after the first {skip}", field="n")
    return selection


def load_all_records(file: Path | None) -> list[Record]:
    """All records of a file in any form that `datasets` reads; without a file, the embedded model's own edits.

    Raises Refused where the file cannot be read.
    """
    return read_records(benchmark.FILE) if file is None else list(load(file).records)


def open_rephrases(record: Record, rephrases: int) -> Record:
    """The record with its first `rephrases` rephrases open to training, and nothing else."""

    def set_train(probes: tuple[EvalProbe, ...], first: int = 0) -> tuple[EvalProbe, ...]:
        return tuple(replace(probe, train=index < first) for index, probe in enumerate(probes))

    return replace(
        record,
        rephrases=set_train(record.rephrases, rephrases),
        locality=set_train(record.locality),
        portability=set_train(record.portability),
    )

"""The inputs of benchmarks: a model, the embedded one by default, with edits, capability tasks and neutral sentences."""

from collections.abc import Sequence
from pathlib import Path

from service.bench.bench_model import BenchModel, open_model, to_item
from service.bench.records import load_records
from service.client.shapes import EditInput
from service.domain.edit import Edit
from service.domain.errors import Refused
from service.editors.neutral import NeutralSentences
from service.evaluation.records import Record


def load_model(model: str, records: Path | None, *, edits: int, skip: int = 0) -> BenchModel:
    """Load a model and its edits. `model` is `atlas` or a folder. Records have distinct facts."""
    try:
        return open_model(model, load_records(records, n=edits, skip=skip))
    except Refused as refused:
        raise SystemExit(refused.message) from None


def to_edit(record: Record, seq: int) -> Edit:
    """A record as an edit for a fit."""
    return to_item(record, seq).edit


def build_body(record: Record) -> EditInput:
    """A record as the body of POST /edits."""
    return {
        "prompt": record.prompt,
        "target": record.target,
        "subject": record.subject,
        "relation": record.relation,
        "rephrases": [{"prompt": probe.prompt, "train": probe.train} for probe in record.rephrases],
    }


def occurs_in_neutral(prompts: Sequence[str], neutral: NeutralSentences) -> list[bool]:
    """Whether each prompt occurs, word for word, among the neutral sentences, which fits preserve."""
    text = "\n".join(" ".join(sentence.text.split()) for sentence in neutral.sentences)
    return [" ".join(prompt.split()) in text for prompt in prompts]

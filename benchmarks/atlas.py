"""What the benchmarks measure on: the embedded model, its edits, its capability tasks, and the sentences it wrote itself."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.servers import KEPT
from service.atlas import benchmark, weights_path
from service.atlas.skills import held_out_items
from service.domain.edit import Edit, EditStatus, Probe
from service.editors.neutral import Neutral, load_or_sample_neutral
from service.editors.neutral_settings import NeutralSettings
from service.evaluation.capability import Task
from service.evaluation.metrics import Outcome, Reference, measure
from service.evaluation.record import EvalProbe, Record, asks_of, read_records
from service.lm.base import Base, load_base
from service.lm.overlay import Overlay, View, view


@dataclass(frozen=True)
class Ground:
    """The base model and everything that is asked of versions of it."""

    model: str
    base: Base
    reference: Reference
    records: list[Record]
    tasks: list[Task]
    neutral: Neutral

    @property
    def plain(self) -> View:
        return self.reference.view

    def view_of(self, overlay: Overlay) -> View:
        """The base's own view for overlays without replaced tensors, else a new one."""
        return view(self.base, overlay.tensors) if overlay.tensors else self.plain

    def measure(self, overlay: Overlay, records: Iterable[Record]) -> list[Outcome]:
        """The outcome of every question of `records`."""
        asks = [ask for record in records for ask in asks_of(record, self.base.surfaces)]
        return measure(self.view_of(overlay), overlay.adapter, self.reference, asks)


def ground(model: str, records: Path | None, *, edits: int, skip: int = 0, trained_rephrases: int = 0) -> Ground:
    """Loads all of it; `model` is `atlas` or a folder. Records have distinct facts; see `teach` for the last argument."""
    base = load_base(str(weights_path()) if model == "atlas" else model, device="cpu")
    plain = view(base)
    chosen = read_records(records or benchmark.FILE)[skip : skip + edits]
    if len(chosen) < edits:
        raise SystemExit(f"there are only {len(chosen)} edits from there on")
    return Ground(
        model=model,
        base=base,
        reference=Reference(plain),
        records=[teach(record, trained_rephrases) for record in chosen],
        tasks=[Task(item.skill, item.prompt, item.answer) for item in held_out_items()],
        neutral=own_sentences(base, plain),
    )


def own_sentences(base: Base, plain: View) -> Neutral:
    """The sentences the base model wrote, sampled once a machine."""
    return load_or_sample_neutral(base, KEPT, settings=NeutralSettings(), view=plain)


def teach(record: Record, rephrases: int) -> Record:
    """The record with its first `rephrases` rephrases open to training, and nothing else."""
    taught = tuple(replace(probe, train=at < rephrases) for at, probe in enumerate(record.rephrases))
    return replace(record, rephrases=taught)


def edit_of(record: Record, seq: int) -> Edit:
    """A record as the edit a method is given; its probes keep their flags, so what is asked is not what is learned."""
    return Edit(
        id=f"{seq:06d}",
        seq=seq,
        status=EditStatus.QUEUED,
        author="benchmark",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        prompt=record.prompt,
        target=record.target,
        subject=record.subject,
        relation=record.relation,
        rephrases=_probes(record.rephrases),
        locality=_probes(record.locality),
        portability=_probes(record.portability),
        surfaces=record.surfaces,
    )


def body_of(record: Record) -> dict[str, object]:
    """A record as the body of POST /edits."""
    return {
        "prompt": record.prompt,
        "target": record.target,
        "subject": record.subject,
        "relation": record.relation,
        "rephrases": [{"prompt": probe.prompt, "train": probe.train} for probe in record.rephrases],
    }


def seen_among(prompts: Sequence[str], neutral: Neutral) -> list[bool]:
    """Whether each prompt occurs, word for word, in a sentence that fits may learn to keep."""
    text = "\n".join(" ".join(sentence.text.split()) for sentence in neutral.sentences)
    return [" ".join(prompt.split()) in text for prompt in prompts]


def _probes(probes: tuple[EvalProbe, ...]) -> tuple[Probe, ...]:
    return tuple(Probe(prompt=probe.prompt, answer=probe.answer, train=probe.train, group=probe.group) for probe in probes)

"""A base model in this process, with everything that measures its versions: records, skills, and neutral sentences."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from service.atlas import neutral_path
from service.bench.neutral_cache import CACHE_FOLDER
from service.domain.edit import Edit, EditStatus
from service.editors.neutral import NeutralSentences
from service.editors.neutral_settings import NeutralSettings
from service.editors.neutral_store import load_or_sample_neutral
from service.editors.protocol import EditorContext, FitItem
from service.evaluation.capability.measure import Scores, Task, measure_capability
from service.evaluation.metrics.outcomes import Outcome, Reference, measure_outcomes
from service.evaluation.records import Record, list_questions, to_edit_request
from service.evaluation.report import build_report
from service.lm.base import Base
from service.lm.overlay import Overlay, View, make_view
from service.runtime.base_model import open_base
from service.runtime.evaluator import embedded_tasks
from service.runtime.locality_questions import known_names
from service.settings import load_settings


@dataclass(frozen=True)
class BenchModel:
    """The base model with the records, the tasks and the neutral sentences that its versions are measured by."""

    model: str
    base: Base
    reference: Reference
    records: list[Record]
    tasks: list[Task]
    neutral: NeutralSentences
    base_scores: dict[Task, Scores] = field(default_factory=dict)  # of the base model

    @property
    def base_view(self) -> View:
        return self.reference.view

    @property
    def editor_context(self) -> EditorContext:
        """What an editor may use of this model."""
        return EditorContext(self.base, self.view_of, self.neutral, names=known_names())

    def view_of(self, overlay: Overlay) -> View:
        """The base's own view for overlays without replaced tensors, else a new view."""
        return make_view(self.base, overlay.tensors) if overlay.tensors else self.base_view

    def measure(self, overlay: Overlay, records: Iterable[Record]) -> list[Outcome]:
        """The outcome of every question of `records`."""
        asks = [ask for record in records for ask in list_questions(record, self.base.surfaces)]
        return measure_outcomes(self.view_of(overlay), overlay.adapter, self.reference, asks)

    def score(self, overlay: Overlay, live: Sequence[Record]) -> dict[str, Any]:
        """The report of an overlay on all edits of `live`, and its capability."""
        result = measure_capability(self.view_of(overlay), overlay.adapter, self.reference, self.tasks, cache=self.base_scores)
        shares = {"version": result.version, "base": result.base, "ratio": result.ratio}
        return {**build_report(self.measure(overlay, live)), "capability": shares}


def open_model(model: str, records: Sequence[Record]) -> BenchModel:
    """Load a model, named as by `errata serve --model`. Skills are those of the embedded model, which others may not have."""
    base, _ = open_base(load_settings(model=model, device="cpu", dtype="auto"))
    base_view = make_view(base)
    return BenchModel(
        model=model,
        base=base,
        reference=Reference(base_view),
        records=list(records),
        tasks=list(embedded_tasks()),
        neutral=load_neutral(base),
    )


def load_neutral(base: Base) -> NeutralSentences:
    """The neutral sentences of the base model: those of a server, or sampled once a machine."""
    return load_or_sample_neutral(base, CACHE_FOLDER, settings=NeutralSettings(), shipped=neutral_path())


def to_items(records: Sequence[Record]) -> list[FitItem]:
    """Records as items of a fit, in their order. No probe is open to training."""
    return [to_item(record, seq) for seq, record in enumerate(records, 1)]


def to_item(record: Record, seq: int) -> FitItem:
    """One record as an item of a fit, with the sequence number `seq`."""
    request = to_edit_request(record)
    edit = Edit(
        id=f"{seq:06d}",
        seq=seq,
        status=EditStatus.QUEUED,
        author="benchmark",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        **{field_.name: getattr(request, field_.name) for field_ in fields(request)},
    )
    return FitItem(edit, request.target)

"""The editing methods bound to one base model and its settings, as the callables that the lifecycle needs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from service.domain.edit import Edit
from service.editors.neutral import NeutralSentences
from service.editors.protocol import EditorContext, no_prompts, prepare_nothing
from service.editors.registry import find_method, names_of
from service.lifecycle.editors import Editors
from service.lm.base import Base
from service.lm.components import make_dense
from service.lm.overlay import EMPTY, Overlay, View, make_view
from service.lm.prompts import encode_prompt
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer
from service.lm.weights import read_weight
from service.locality.meter import LocalityMeter
from service.runtime.evaluator import Evaluator
from service.runtime.locality_questions import known_names
from service.runtime.monitor_questions import MonitorQuestions
from service.settings import Settings

MAX_BASE_ANSWER = 32  # tokens of the base model's answer that a tombstone is fitted to


def bind_editors(
    base: Base,
    view_of: Callable[[Overlay], View],
    neutral: NeutralSentences,
    evaluator: Evaluator,
    settings: Settings,
    prompts: Callable[[], Sequence[str]] = no_prompts,
    *,
    has_all: bool = True,
    meter: LocalityMeter | None = None,
) -> Editors:
    """The server's incremental method and all consolidating methods for one base, and the meter of what they change elsewhere.
    `prompts` returns real prompts whose answers a retrain keeps as the base's. `has_all` says whether more neutral sentences will
    come. Raises Refused if the base cannot be edited as the settings of a method say.
    """
    prepare_questions = prepare_nothing if meter is None else meter.prepare
    editor_context = EditorContext(base, view_of, neutral, prompts, prepare_questions, known_names())

    def open_editor(name: str) -> Any:
        method = find_method(name)
        return method.open_editor(editor_context, settings.of_method(method.settings))

    def base_answer(edit: Edit) -> str:
        surface = next((name for name in edit.surfaces if name in base.surfaces), base.surfaces[0])
        prompt = encode_prompt(base, edit.prompt, surface=surface)
        length = min(MAX_BASE_ANSWER, base.context_length - len(prompt))
        (answer,) = decode_greedily(view_of(EMPTY), None, [prompt], max_new_tokens=max(1, length))
        return decode_answer(base, answer)

    def distance(one: Overlay, other: Overlay) -> float:
        return relative_distance(base.model, one, other)

    def with_first(count: int) -> Editors:
        return bind_editors(base, view_of, neutral.first(count), evaluator, settings, prompts, has_all=has_all, meter=meter)

    questions = MonitorQuestions(
        base, view_of, neutral, evaluator.tasks, evaluator.measure_capability_ratio, meter, has_all=has_all
    )
    return Editors(
        incremental=open_editor(settings.incremental_method),
        consolidating={name: open_editor(name) for name in names_of("consolidating")},
        base_answer=base_answer,
        score=evaluator.score,
        distance=distance,
        monitor_probes=questions.probes(),
        locality=meter,
        neutral_sentences=len(neutral.sentences),
        has_all=has_all,
        with_first=with_first,
    )


def check_editors(base: Base, settings: Settings) -> None:
    """Raise Refused if the base cannot be edited as the settings of a method say. Needs no neutral sentences."""
    nothing = EditorContext(base, lambda overlay: make_view(base, overlay.tensors), NeutralSentences(base, (), ()))
    for name in (settings.incremental_method, *names_of("consolidating")):
        method = find_method(name)
        method.open_editor(nothing, settings.of_method(method.settings))


@torch.no_grad()
def relative_distance(model: torch.nn.Module, one: Overlay, other: Overlay) -> float:
    """‖one - other‖ / ‖other‖ (Frobenius) over all tensors that either replaces; a tensor that one lacks is the model's own."""
    difference = size = 0.0
    for name in sorted({*one.tensors, *other.tensors}):
        own = read_weight(model, name)
        left, right = (make_dense(overlay.tensors.get(name, own), own).detach().cpu().double() for overlay in (one, other))
        difference += float((left - right).square().sum())
        size += float(right.square().sum())
    return (difference / size) ** 0.5 if size else 0.0

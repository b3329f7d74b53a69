"""The editing methods bound to one base model and its settings, as the callables that the lifecycle needs."""

from collections.abc import Callable, Sequence

import torch

from service.domain.edit import Edit
from service.editors.baft.fit import fit_baft
from service.editors.baft.warm_up import warm_up
from service.editors.locft.fit import fit_locft
from service.editors.locft.location import find_tuned_location
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem, FitResult, Hooks
from service.lifecycle.editors import Editors
from service.lm.base import Base
from service.lm.overlay import EMPTY, Overlay, View
from service.lm.prompts import encode_prompt
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer
from service.lm.weights import read_weight
from service.runtime.evaluator import Evaluator
from service.runtime.monitor_questions import MonitorQuestions
from service.settings import Settings

MAX_BASE_ANSWER = 32  # tokens of the base model's answer that a tombstone is fitted to


def bind_editors(
    base: Base,
    view_of: Callable[[Overlay], View],
    neutral: NeutralSentences,
    evaluator: Evaluator,
    settings: Settings,
    prompts: Callable[[], Sequence[str]] = tuple,
) -> Editors:
    """BaFT and LocFT-BF for one base. Raises Refused if the base has no such parameters as `settings.locft` names.

    `prompts` returns real prompts whose answers a retrain keeps as the base's. A retrain also prepares BaFT fits on its new
    tensors, so that the first edit after it need not wait for that.
    """
    find_tuned_location(base.anatomy, settings.locft)

    def baft(parent: Overlay, new: Sequence[FitItem], window: Sequence[FitItem], seed: int, hooks: Hooks) -> FitResult:
        return fit_baft(base, view_of, parent, new, window, settings=settings.baft, neutral=neutral, seed=seed, hooks=hooks)

    def locft(items: Sequence[FitItem], start: Overlay, seed: int, hooks: Hooks) -> FitResult:
        fitted = fit_locft(
            base, items, settings=settings.locft, neutral=neutral, seed=seed, hooks=hooks, start=start, prompts=prompts()
        )
        hooks.progress(1.0, "getting ready for edits")
        warm_up(base, view_of, fitted.overlay, settings=settings.baft, neutral=neutral, hooks=hooks, ahead=True)
        return fitted

    def base_answer(edit: Edit) -> str:
        surface = next((name for name in edit.surfaces if name in base.surfaces), base.surfaces[0])
        prompt = encode_prompt(base, edit.prompt, surface=surface)
        length = min(MAX_BASE_ANSWER, base.context_length - len(prompt))
        (answer,) = decode_greedily(view_of(EMPTY), None, [prompt], max_new_tokens=max(1, length))
        return decode_answer(base, answer)

    def distance(one: Overlay, other: Overlay) -> float:
        return relative_distance(base.model, one, other)

    return Editors(
        baft=baft,
        locft=locft,
        base_answer=base_answer,
        score=evaluator.score,
        distance=distance,
        monitor_probes=MonitorQuestions(base, view_of, neutral, evaluator.tasks, evaluator.measure_capability_ratio).probes(),
        canary_size=len(neutral.canary),
    )


@torch.no_grad()
def relative_distance(model: torch.nn.Module, one: Overlay, other: Overlay) -> float:
    """‖one - other‖ / ‖other‖ (Frobenius) over all tensors that either replaces; a tensor that one lacks is the model's own."""
    difference = size = 0.0
    for name in sorted({*one.tensors, *other.tensors}):
        own = read_weight(model, name)
        left, right = (overlay.tensors.get(name, own).detach().cpu().double() for overlay in (one, other))
        difference += float((left - right).square().sum())
        size += float(right.square().sum())
    return (difference / size) ** 0.5 if size else 0.0

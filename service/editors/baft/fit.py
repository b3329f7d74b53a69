"""BaFT: learn some edits on top of a parent overlay, joint over the new edits and a replay of the window.

The parent is never changed. Everything random comes from `seed`: the same job gives the same bytes on one kind of machine.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from service.editors.baft.basis import TrainedAdapter, fresh
from service.editors.baft.material import Material, gather
from service.editors.baft.objective import by_edit, commit_balance
from service.editors.baft.settings import BaftSettings
from service.editors.baft.training import Attempt, Interventions, Rates, Trace
from service.editors.canary import canary_share
from service.editors.neutral import Neutral
from service.editors.protocol import FitFailed, Fitted, Hooks, Item
from service.editors.rows import AskedRow, asked_rows
from service.lm.base import Base
from service.lm.intervention import Adapter, Balance, Intervention
from service.lm.overlay import Overlay, View
from service.lm.score import row_losses, taken


def fit_baft(
    base: Base,
    view_of: Callable[[Overlay], View],
    parent: Overlay,
    new: Sequence[Item],
    window: Sequence[Item],
    *,
    settings: BaftSettings,
    neutral: Neutral,
    seed: int,
    hooks: Hooks | None = None,
    cached: bool = True,
) -> Fitted:
    """Fit `new` on `parent`, keeping the items of `window` (which the parent's adapter carries) answered.

    A parent without an adapter, or with one of another shape than `settings` asks for, starts afresh; then the window is learned
    again like new edits. Raises FitFailed on numbers that are not finite, FitCancelled if `hooks` say so, Refused for text that
    does not fit. `cached=False` runs whole sequences in every step: slower, equal to rounding.
    """
    hooks = hooks or Hooks()
    started = time.monotonic()
    view = view_of(Overlay(parent.tensors))
    generator = torch.Generator().manual_seed(seed)
    blocks = settings.blocks_of(base.anatomy.family, base.anatomy.depth)
    adapter = parent.adapter if _fits(parent.adapter, base, blocks, settings) else None
    if adapter is None:
        adapter = Adapter(fresh(base.anatomy.width, blocks, settings, generator), {}, settings.last).to(base.device)
        new, window = [*new, *window], []
    asked = _literal(base, [*new, *window], settings)
    before = _taken(view, asked, adapter)
    material = gather(view, new, window, blocks=blocks, settings=settings, neutral=neutral, generator=generator, cached=cached)
    after, traces, lost = _attempts(view, adapter, material, asked, new, settings, generator, hooks)
    final = Adapter(after, _balance(material, after, adapter.balance, settings), settings.last)
    overlay = Overlay(parent.tensors, final)
    reports = _reports(view, final, asked, new, traces, lost, before, int((time.monotonic() - started) * 1000))
    items = [*new, *window]
    scores = {"retention": 1.0 - len(lost) / max(len(items), 1), "canary": canary_share(neutral, view, overlay)}
    return Fitted(overlay, reports, tuple(items[index].edit.id for index in sorted(lost)), scores)


def _fits(adapter: Adapter | None, base: Base, blocks: Sequence[int], settings: BaftSettings) -> bool:
    """Whether an adapter can be trained on: the blocks, the rank and the kind of gate that the settings ask for."""
    if adapter is None or set(adapter.interventions) != set(blocks) or adapter.last != settings.last:
        return False
    plain = next(iter(fresh(base.anatomy.width, blocks[:1], settings, torch.Generator()).values()))
    wanted = {name: tensor.shape for name, tensor in plain.tensors().items()}
    return all(
        {name: tensor.shape for name, tensor in intervention.tensors().items()} == wanted
        for intervention in adapter.interventions.values()
    )


def _attempts(
    view: View,
    start: Adapter,
    material: Material,
    asked: Sequence[AskedRow],
    new: Sequence[Item],
    settings: BaftSettings,
    generator: torch.Generator,
    hooks: Hooks,
) -> tuple[dict[int, Intervention], list[Trace], set[int]]:
    """Attempts until every literal row is answered: each goes on from the last one, longer, with the lost rows in every step."""
    after, traces, lost = dict(start.interventions), list[Trace](), set[int]()
    trained = TrainedAdapter(start.interventions)
    for number in range(settings.attempts):
        rates = _rates(view.base, settings, len(new), number)
        focus = frozenset(place for place in range(material.fresh, len(material.asked)) if material.asked[place].item in lost)
        attempt = Attempt(material, start.balance, settings, rates, generator, focus)
        traces.append(attempt.run(trained, hooks))
        after = trained.frozen() if sum(trace.steps for trace in traces) else after
        lost = _lost(asked, _taken(view, asked, Adapter(after, {}, settings.last)))
        if not lost:
            break
    if not all(bool(tensor.isfinite().all()) for intervention in after.values() for tensor in intervention.tensors().values()):
        raise FitFailed("the fit met numbers that are not finite, and nothing of it was kept")
    return after, traces, lost


def _rates(base: Base, settings: BaftSettings, edits: int, attempt: int) -> Rates:
    beta, gamma = settings.margins_of(base.anatomy.family, base.model.get_input_embeddings().weight.shape[0])
    return Rates(settings.rate_of(base.anatomy.width, edits), settings.steps_of(edits, attempt), beta, gamma)


def _literal(base: Base, items: Sequence[Item], settings: BaftSettings) -> list[AskedRow]:
    return asked_rows(base, items, eos=settings.eos, learn_probes=False)


def _taken(view: View, asked: Sequence[AskedRow], adapter: Adapter) -> list[bool]:
    return taken(view, [row.row for row in asked], adapter) if asked else []


def _lost(asked: Sequence[AskedRow], answers: Sequence[bool]) -> set[int]:
    return {row.item for row, answer in zip(asked, answers, strict=True) if not answer}


def _balance(material: Material, after: Interventions, past: Mapping[int, Balance], settings: BaftSettings) -> dict[int, Balance]:
    """The running state with the new edits in it, once each; replayed rows are in it already."""
    if settings.gate == "none" or not material.fresh:
        return dict(past)
    with torch.no_grad():
        seen = material.asked_passes(range(material.fresh), after, record=True)
    items = torch.tensor([material.asked[place].item for place in range(material.fresh)], device=seen.labels.device)
    return {block: commit_balance(past.get(block), by_edit(weights, items)) for block, weights in seen.weights.items()}


def _reports(
    view: View,
    adapter: Adapter,
    asked: Sequence[AskedRow],
    new: Sequence[Item],
    traces: Sequence[Trace],
    lost: set[int],
    before: Sequence[bool],
    milliseconds: int,
) -> dict[str, Mapping[str, Any]]:
    """One report a new item. Steps and time are those of the fit it was part of."""
    missed = _lost(asked, before)
    own = [row for row in asked if row.item < len(new)]
    losses = row_losses(view, [row.row for row in own], adapter).tolist() if own else []
    return {
        item.edit.id: {
            "method": "baft",
            "steps": sum(trace.steps for trace in traces),
            "attempts": len(traces),
            "fitted_together": len(new),
            "loss": max(loss for row, loss in zip(own, losses, strict=True) if row.item == index),
            "milliseconds": milliseconds,
            "taken": index not in lost,
            "already": index not in missed,
        }
        for index, item in enumerate(new)
    }

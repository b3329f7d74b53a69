"""LocFT-BF: train one module's weights over all live edits, breadth-first: *major* from the base, *minor* from a version.

A major retrain is a function of (base, items, settings, neutral sentences, prompts, seed), bit for bit on one machine: an edit
that is no longer among the items leaves no trace. A minor one also depends on where it starts.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.domain.errors import Refused
from service.editors.canary import canary_share
from service.editors.locft.activations import Activations
from service.editors.locft.breadth import train_breadth_first
from service.editors.locft.depth import train_depth_first
from service.editors.locft.places import Place, place_of
from service.editors.locft.prefixes import sample_beginnings
from service.editors.locft.settings import LocftSettings
from service.editors.locft.store import RowStore
from service.editors.locft.training import Master, Tuning
from service.editors.neutral import Neutral
from service.editors.protocol import Fitted, Hooks, Item
from service.editors.rows import each_asked_row, kept_prompts, kept_rows, speaks_against
from service.lm.base import Base
from service.lm.overlay import EMPTY, Overlay, View, view
from service.lm.prompts import Row, encode_free_row

_MEGABYTE = 1_000_000


@dataclass
class Verdict:
    """How an item's own prompts came out: whether all are answered on every surface, and the largest loss among them."""

    taken: bool = True
    loss: float = 0.0


def fit_locft(
    base: Base,
    items: Sequence[Item],
    *,
    settings: LocftSettings,
    neutral: Neutral,
    seed: int,
    hooks: Hooks | None = None,
    start: Overlay = EMPTY,
    prompts: Sequence[str] = (),
) -> Fitted:
    """Train all `items` into one location. The overlay has no adapter: the window it leaves is empty.

    Without `start` a major retrain, from the base. With it a minor one, from its tensors: settled items are said by them already,
    so a sample of them is enough in each epoch; all items are verified in the end, and what was lost is trained again. What must
    stay is in either case what the *base* says: to neutral sentences, trained locality probes and `prompts`.

    Raises FitFailed on numbers that are not finite, FitCancelled if `hooks` say so, Unavailable if the disk has no room for the
    activation cache, Refused for text that does not fit, a location that the model does not have, or a start trained elsewhere.
    """
    hooks = hooks or Hooks()
    began = time.monotonic()
    place = place_of(base.anatomy, settings)
    _require_same_place(start, place)
    private, generator = view(base), torch.Generator().manual_seed(seed)
    hooks.progress(0.0, "reading")
    beginnings = sample_beginnings(private, settings.prefixes, generator)
    asked = each_asked_row(base, items, eos=settings.eos, learn_probes=settings.learn_probes, beginnings=beginnings)
    rows = RowStore(asked, _kept(private, items, prompts, settings, neutral, generator))
    with Activations(
        private,
        rows,
        block=place.lowest,
        memory_bytes=settings.cache_mb * _MEGABYTE,
        disk_bytes=settings.cache_disk_mb * _MEGABYTE,
    ) as states:
        tuning = Tuning(private, rows, states, settings, generator)
        master = Master(private, place.names, _rate(settings, base, minor=bool(start.tensors)), start.tensors)
        train = train_depth_first if settings.order == "depth" else train_breadth_first
        rounds = train(tuning, master, _settled(rows, items, minor=bool(start.tensors)), hooks)
        overlay = Overlay(master.trained())
        hooks.progress(1.0, "asking every edit once more")
        verdicts = _verdicts(tuning, overlay, len(items), hooks)
    lost = [item.edit.id for item, verdict in zip(items, verdicts, strict=True) if not verdict.taken]
    shared = {
        "method": "locft",
        "mode": "minor" if start.tensors else "major",
        "location": place.said,
        "position": place.rule,
        "steps": rounds,
        "fitted_together": len(items),
        "milliseconds": int((time.monotonic() - began) * 1000),
        "already": False,
    }
    scores = {
        "retention": 1.0 - len(lost) / max(len(items), 1),
        "canary": canary_share(neutral, view(base, overlay.tensors), overlay),
    }
    return Fitted(overlay, _reports(items, verdicts, shared), tuple(lost), scores)


def _require_same_place(start: Overlay, place: Place) -> None:
    if start.tensors and set(start.tensors) != set(place.names):
        raise Refused("The tensors to start from were trained at another location than the settings name.", field="start")


def _rate(settings: LocftSettings, base: Base, *, minor: bool) -> float:
    """A minor retrain has few steps in which what it should leave alone can come back from Adam's first ones, so they are
    smaller.
    """
    rate = settings.rate_of(base.anatomy.family, base.anatomy.depth, base.anatomy.width)
    return rate * settings.minor_rate if minor else rate


def _kept(
    on: View, items: Sequence[Item], prompts: Sequence[str], settings: LocftSettings, neutral: Neutral, generator: torch.Generator
) -> Iterator[Row]:
    """Neutral sentences whole, as the tuned weights compute every position of them; trained locality probes; prompts."""
    if settings.preserve_weight == 0:
        return
    for row in neutral.draw(settings.preserve_pool, generator, speaks_against=speaks_against(items)):
        yield encode_free_row(on.base, row.ids, 2 if row.bos else 1)
    if settings.learn_probes:
        yield from kept_rows(on.base, on, items)
    yield from kept_prompts(on.base, on, items, prompts, limit=settings.preserve_prompts)


def _settled(rows: RowStore, items: Sequence[Item], *, minor: bool) -> Tensor:
    """(rows to learn,) bool: what the tensors that training starts from say already. From the base, nothing is."""
    return torch.tensor([minor and items[index].settled for index in rows.item], dtype=torch.bool)


@torch.no_grad()
def _verdicts(tuning: Tuning, overlay: Overlay, count: int, hooks: Hooks) -> list[Verdict]:
    """Every item's own prompts asked of the tensors as they will be served, without any margin."""
    verdicts = [Verdict() for _ in range(count)]
    for chosen, losses, right in tuning.exam(overlay, hooks):
        for row, loss, answered in zip(chosen, losses, right, strict=True):
            verdict = verdicts[tuning.rows.item[row]]
            verdict.taken &= answered
            verdict.loss = max(verdict.loss, loss)
    return verdicts


def _reports(items: Sequence[Item], verdicts: Sequence[Verdict], shared: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """One report for each item that is new here; steps and time are those of the whole retrain."""
    return {
        item.edit.id: {**shared, "loss": verdict.loss, "taken": verdict.taken}
        for item, verdict in zip(items, verdicts, strict=True)
        if shared["mode"] == "major" or not item.settled or not verdict.taken
    }

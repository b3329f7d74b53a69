"""Breadth-first: every epoch passes over all edits before any is seen again. What is right is visited rarely, all is verified.

A minor retrain goes the same way, with most rows consolidated beforehand: its epochs hold the new rows and a sample of these.
"""

import math

import torch
from torch import Tensor

from service.editors.locft.batching import batches, batches_by_length, rows_to_visit
from service.editors.locft.training_step import Master, Tuning
from service.editors.protocol import Hooks

_CHUNK = 64  # rows verified together
_LEFT = 0.5  # of the rate, for what has to be learned again after the cooldown


def train_breadth_first(tuning: Tuning, master: Master, consolidated: Tensor, hooks: Hooks) -> int:
    """Train until everything is answered, verified row by row, or out of epochs. Gives the epochs begun.

    `consolidated` (rows to learn,) bool: what the tensors say already. By `judge: loss` it ends as the reference code does: when
    the mean of the losses before each step of an epoch is under the threshold.
    """
    settings, right = tuning.settings, consolidated.clone()
    calm = settings.judge == "loss" or settings.cooldown == 0
    cooling = 0.0 if calm else _cooldown_share(tuning, consolidated)
    an_epoch, told = (1 - cooling) / settings.epochs, 0.0
    moved = False
    for epoch in range(settings.epochs):
        meter, has_moved = _epoch(tuning, master, right, consolidated, hooks.scale_progress(told, told + an_epoch))
        told += an_epoch
        moved = moved or has_moved
        done = meter < settings.stop_loss if settings.judge == "loss" else _verified(tuning, master, right, hooks)
        if done and moved and not calm:
            _cool_down(tuning, master, right, hooks.scale_progress(told, told + cooling))
            told += cooling
            calm, done = True, _verified(tuning, master, right, hooks)
        if done:
            return epoch + 1
    return settings.epochs


def _cooldown_share(tuning: Tuning, consolidated: Tensor) -> float:
    """What the cooldown is of the most steps there may be: as many epochs as there may be, as long as the first one."""
    settings, new = tuning.settings, int((~consolidated).sum())
    steps = settings.epochs * math.ceil(min(len(consolidated), (1 + settings.replay) * new) / settings.batch)
    return settings.cooldown / (settings.cooldown + steps)


def _cool_down(tuning: Tuning, master: Master, right: Tensor, hooks: Hooks) -> None:
    """Some more steps at a falling rate once everything is answered, on rows drawn from all and on what must stay.

    Adam's first steps are as large for what should stay as for what should change. Many edits mean many steps, in which that
    comes back; few edits are answered before it could. What is lost here is learned again, at the rate that is left.
    """
    steps = tuning.settings.cooldown
    for step in range(steps):
        hooks.progress(step / steps, "cooldown")
        master.slow(1 - step / (steps + 1))
        chosen = torch.randperm(len(right), generator=tuning.generator)[: tuning.settings.batch].tolist()
        right[chosen] = tuning.step(master, chosen, hooks, always=True).right
    master.slow(_LEFT)


def _epoch(tuning: Tuning, master: Master, right: Tensor, consolidated: Tensor, hooks: Hooks) -> tuple[float, bool]:
    """One pass; `right` learns what was seen. Gives the mean loss by row, each before its step, and whether a step was taken."""
    meter, moved = 0.0, False
    settings = tuning.settings
    order = rows_to_visit(right, consolidated, revisit=settings.revisit, replay=settings.replay, generator=tuning.generator)
    cut = _cut(tuning, order)
    visited = sum(len(chosen) for chosen in cut)
    for number, chosen in enumerate(cut):
        hooks.progress(number / len(cut), "epochs")
        step = tuning.step(master, chosen, hooks)
        right[chosen] = step.right
        meter += step.loss * len(chosen) / visited
        moved = moved or step.moved
    return meter, moved


def _cut(tuning: Tuning, order: Tensor) -> list[list[int]]:
    settings = tuning.settings
    if settings.bucket == 0:
        return batches(order, settings.batch)
    return batches_by_length(order, settings.batch, length=tuning.rows.length, bucket=settings.bucket, generator=tuning.generator)


def _verified(tuning: Tuning, master: Master, right: Tensor, hooks: Hooks) -> bool:
    """Whether every row is answered. First what was not is asked again, and if some of that still is not, nothing else: there is
    another epoch to come. Else all others are asked, and what was lost meanwhile is not right any more.
    """
    served = master.served()
    asked_last, rest = (~right).nonzero()[:, 0].tolist(), right.nonzero()[:, 0].tolist()
    for rows, until_wrong in ((asked_last, True), (rest, False)):
        rows.sort(key=tuning.rows.length)
        for start in range(0, len(rows), _CHUNK):
            hooks.begin_step()
            chosen = rows[start : start + _CHUNK]
            right[chosen] = tuning.answers(chosen, served)
            if until_wrong and not bool(right[chosen].all()):
                return False
    return bool(right.all())

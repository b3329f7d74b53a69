"""Breadth-first training: every training epoch passes over all edits. Answered rows are visited rarely; all rows are verified.

A minor retrain does the same with most rows consolidated beforehand: its epochs hold the new rows and a sample of the others.
"""

import math

import torch
from torch import Tensor

from service.editors.locft.batching import choose_epoch_rows, split_batches, split_batches_by_length
from service.editors.locft.training_step import MasterWeights, Trainer
from service.editors.protocol import Hooks

_CHUNK = 64  # rows verified together
_RATE_AFTER_COOLDOWN = 0.5  # share of the rate, for rows that the cooldown lost


def train_breadth_first(trainer: Trainer, master: MasterWeights, consolidated: Tensor, hooks: Hooks) -> int:
    """Train until all rows are answered, verified row by row, or until the last epoch. Returns the number of epochs begun.

    `consolidated` (rows to learn,) bool: rows that the tensors already answer. With `judge: loss` training ends as in the
    reference code: when the mean of the losses before each step of an epoch is under the threshold.
    """
    settings, is_right = trainer.settings, consolidated.clone()
    has_cooled = settings.judge == "loss" or settings.cooldown == 0
    cooldown_share = 0.0 if has_cooled else _cooldown_share(trainer, consolidated)
    epoch_share, progress = (1 - cooldown_share) / settings.epochs, 0.0
    has_moved = False
    for epoch in range(settings.epochs):
        epoch_hooks = hooks.scale_progress(progress, progress + epoch_share)
        mean_loss, epoch_moved = _train_epoch(trainer, master, is_right, consolidated, epoch_hooks)
        progress += epoch_share
        has_moved = has_moved or epoch_moved
        is_done = mean_loss < settings.stop_loss if settings.judge == "loss" else _verify(trainer, master, is_right, hooks)
        if is_done and has_moved and not has_cooled:
            _cool_down(trainer, master, is_right, hooks.scale_progress(progress, progress + cooldown_share))
            progress += cooldown_share
            has_cooled, is_done = True, _verify(trainer, master, is_right, hooks)
        if is_done:
            return epoch + 1
    return settings.epochs


def _cooldown_share(trainer: Trainer, consolidated: Tensor) -> float:
    """The cooldown's share of the largest possible number of steps: all epochs, each as long as the first one."""
    settings, new = trainer.settings, int((~consolidated).sum())
    steps = settings.epochs * math.ceil(min(len(consolidated), (1 + settings.replay) * new) / settings.batch)
    return settings.cooldown / (settings.cooldown + steps)


def _cool_down(trainer: Trainer, master: MasterWeights, is_right: Tensor, hooks: Hooks) -> None:
    """More steps at a falling rate once all rows are answered, on rows drawn from all and on rows that must stay.

    Adam's first steps change answers that should stay as much as answers that should change. Many edits take many steps, in which
    the former come back; few edits are answered before that. Rows lost here are learned again, at a reduced rate.
    """
    steps = trainer.settings.cooldown
    for step in range(steps):
        hooks.progress(step / steps, "cooldown")
        master.scale_rate(1 - step / (steps + 1))
        chosen = torch.randperm(len(is_right), generator=trainer.generator)[: trainer.settings.batch].tolist()
        is_right[chosen] = trainer.step(master, chosen, hooks, always=True).is_right
    master.scale_rate(_RATE_AFTER_COOLDOWN)


def _train_epoch(
    trainer: Trainer, master: MasterWeights, is_right: Tensor, consolidated: Tensor, hooks: Hooks
) -> tuple[float, bool]:
    """One pass, which updates `is_right`. Returns the mean loss by row, each before its step, and whether a step was taken."""
    mean_loss, has_moved = 0.0, False
    settings = trainer.settings
    order = choose_epoch_rows(
        is_right, consolidated, revisit=settings.revisit, replay=settings.replay, generator=trainer.generator
    )
    batches = _split(trainer, order)
    row_count = sum(len(chosen) for chosen in batches)
    for number, chosen in enumerate(batches):
        hooks.progress(number / len(batches), "epochs")
        step = trainer.step(master, chosen, hooks)
        is_right[chosen] = step.is_right
        mean_loss += step.loss * len(chosen) / row_count
        has_moved = has_moved or step.has_moved
    return mean_loss, has_moved


def _split(trainer: Trainer, order: Tensor) -> list[list[int]]:
    settings, length = trainer.settings, trainer.rows.length
    if settings.bucket == 0:
        return split_batches(order, settings.batch)
    return split_batches_by_length(order, settings.batch, length=length, bucket=settings.bucket, generator=trainer.generator)


def _verify(trainer: Trainer, master: MasterWeights, is_right: Tensor, hooks: Hooks) -> bool:
    """Whether every row is answered; updates `is_right`.

    Rows without a right answer are checked first. If one is still wrong, the other rows are not checked: another epoch follows.
    """
    parameters = master.served_tensors()
    wrong, others = (~is_right).nonzero()[:, 0].tolist(), is_right.nonzero()[:, 0].tolist()
    for rows, until_wrong in ((wrong, True), (others, False)):
        rows.sort(key=trainer.rows.length)
        for start in range(0, len(rows), _CHUNK):
            hooks.begin_step()
            chosen = rows[start : start + _CHUNK]
            is_right[chosen] = trainer.check_answers(chosen, parameters)
            if until_wrong and not bool(is_right[chosen].all()):
                return False
    return bool(is_right.all())

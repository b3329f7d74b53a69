"""Depth-first training, the papers' comparison: one edit after another, each to convergence, each from the last one's weights.

With batches of one edit and a new optimizer per edit it is EasyEdit's fine-trainer: FT-M, or FT-L by the objective. Earlier edits
are not trained again: an edit that a later one overwrites stays lost.
"""

from itertools import groupby

from torch import Tensor

from service.editors.locft.training_step import MasterWeights, Trainer
from service.editors.protocol import Hooks


def train_depth_first(trainer: Trainer, master: MasterWeights, consolidated: Tensor, hooks: Hooks) -> int:
    """Train the rows that are not consolidated, in order, at most `epochs` steps an edit. Returns the most steps of one edit."""
    rows = [row for row in range(trainer.rows.learned) if not consolidated[row]]
    edits = [list(group) for _, group in groupby(rows, key=lambda row: trainer.rows.item[row])]
    max_steps = 0
    for number, chosen in enumerate(edits):
        hooks.progress(number / len(edits), "edits one after another")
        master.forget_moments()
        max_steps = max(max_steps, _converge(trainer, master, chosen, hooks))
    return max_steps


def _converge(trainer: Trainer, master: MasterWeights, chosen: list[int], hooks: Hooks) -> int:
    for step in range(trainer.settings.epochs):
        if not trainer.step(master, chosen, hooks).has_moved:
            return step
    return trainer.settings.epochs

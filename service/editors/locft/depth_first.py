"""Depth-first: one edit after another, each to convergence, the next from where the last one ended. What the papers compare with.

With batches of one edit and a fresh optimizer each it is EasyEdit's fine-tuning: FT-M, and FT-L by its objective. Nothing looks
back: what later edits overwrite stays lost.
"""

from itertools import groupby

from torch import Tensor

from service.editors.locft.training_step import Master, Tuning
from service.editors.protocol import Hooks


def train_depth_first(tuning: Tuning, master: Master, consolidated: Tensor, hooks: Hooks) -> int:
    """Train what is not consolidated, in the order given, at most `epochs` steps an edit. Gives the most steps that one took."""
    rows = [row for row in range(tuning.rows.asked) if not consolidated[row]]
    edits = [list(group) for _, group in groupby(rows, key=lambda row: tuning.rows.item[row])]
    most = 0
    for number, chosen in enumerate(edits):
        hooks.progress(number / len(edits), "edits one after another")
        master.forget_moments()
        most = max(most, _converge(tuning, master, chosen, hooks))
    return most


def _converge(tuning: Tuning, master: Master, chosen: list[int], hooks: Hooks) -> int:
    for step in range(tuning.settings.epochs):
        if not tuning.step(master, chosen, hooks).moved:
            return step
    return tuning.settings.epochs

"""The preserve term's material: rows with what the unedited model says on them, kept between fits where it can be.

"Unedited" is the view without any adapter: after a retrain it holds the edits that are in its tensors.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from service.editors.baft.execution import Runs
from service.editors.baft.forward_passes import Passes
from service.editors.baft.settings import BaftSettings
from service.editors.losses import divergence
from service.editors.neutral import NeutralSentences
from service.lm.intervention import Intervention
from service.lm.overlay import apply_lm_head
from service.lm.prompts import Row

_POOLS_KEPT = 2  # of the head's tensors and of those being trained


class Preserved:
    """Rows and, as states behind the final norm, the unedited model's predictions on their target positions."""

    def __init__(self, runs: Runs, rows: Sequence[Row], passes: Passes) -> None:
        self._view, self._passes = runs.view, passes
        self._finals: list[Tensor] = []
        for chosen in runs.hooks.split(range(len(rows)), lambda at: len(rows[at])):
            with torch.no_grad():
                seen = passes(chosen, {})
            self._finals += [seen.final[seen.row_of == index] for index in range(len(chosen))]

    def divergence(self, chosen: Sequence[int], interventions: Mapping[int, Intervention]) -> Tensor:
        """KL(unedited ‖ edited) over the target positions of the chosen rows."""
        seen = self._passes(chosen, interventions)
        with torch.no_grad():
            logits = apply_lm_head(self._view, torch.cat([self._finals[index] for index in chosen]))
            reference = torch.log_softmax(logits.float(), -1)
        return divergence(seen.logits, reference)


class Pool:
    """The neutral rows of one view, drawn once and prepared once: every fit on that view chooses from them."""

    def __init__(self, runs: Runs, rows: Sequence[Row]) -> None:
        passes, tokenizer = runs.passes(rows), runs.view.base.tokenizer
        self._texts = [tokenizer.decode(list(row.ids), skip_special_tokens=True) for row in rows]
        self._places = passes.places()  # (rows, D)
        self.preserved = Preserved(runs, rows, passes)

    def allowed(self, speaks_against: Callable[[str], bool]) -> list[int]:
        """Rows that do not state what an edit changes."""
        return [index for index, text in enumerate(self._texts) if not speaks_against(text)]

    def near(self, places: Tensor, allowed: Sequence[int], count: int) -> list[int]:
        """For each of the places (n, D) the `count` allowed rows that stand nearest by cosine, together and without repeats.

        They are what an edit would move along with itself: other subjects in the same wording, mostly.
        """
        return [allowed[index] for index in nearest(self._places[list(allowed)], places, count)]


def nearest(rows: Tensor, places: Tensor, count: int) -> list[int]:
    """Indexes of the `count` rows (n, D) nearest by cosine to each of `places` (m, D), together and without repeats."""
    if not len(rows) or not len(places) or not count:
        return []
    center = rows.mean(0)
    close = normalize(rows - center, dim=-1) @ normalize(places - center, dim=-1).T  # (n, m)
    return sorted(set(close.topk(min(count, len(rows)), dim=0).indices.flatten().tolist()))


def pool_of(runs: Runs, neutral: NeutralSentences, settings: BaftSettings, *, ahead: bool = False) -> Pool:
    """The pool of a view, from the last ones used if it is among them. The same numbers either way."""

    def make_pool() -> Pool:
        rows = neutral.draw(settings.preserve_pool, torch.Generator().manual_seed(0), last_words=settings.preserve_words)
        return Pool(runs, rows)

    name = ("pool", runs.view.tensors_digest, runs.first_block, runs.last, settings.preserve_pool, settings.preserve_words)
    return neutral.ready(name, make_pool, keep=_POOLS_KEPT, ahead=ahead)

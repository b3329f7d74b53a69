"""The preserve term's material: rows with what the unedited model says on them, kept between fits where it can be.

"Unedited" is the view without any adapter: after a retrain it holds the edits that are in its tensors.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from service.editors.baft.passes import Passes
from service.editors.baft.settings import BaftSettings
from service.editors.neutral import Neutral
from service.editors.terms import divergence
from service.lm.intervention import Intervention
from service.lm.overlay import View, head
from service.lm.prompts import Row

MakePasses = Callable[[View, Sequence[Row]], Passes]
_CHUNK = 64
_POOLS_KEPT = 2  # the pool of the head's tensors and of the last ones


class Preserved:
    """Rows and, as states behind the final norm, the unedited model's predictions on their target positions."""

    def __init__(self, view: View, rows: Sequence[Row], passes: Passes) -> None:
        self._view, self._passes = view, passes
        self._finals: list[Tensor] = []
        for start in range(0, len(rows), _CHUNK):
            chosen = range(start, min(start + _CHUNK, len(rows)))
            with torch.no_grad():
                seen = passes(chosen, {})
            self._finals += [seen.final[seen.row_of == index] for index in range(len(chosen))]

    def divergence(self, chosen: Sequence[int], interventions: Mapping[int, Intervention]) -> Tensor:
        """KL(unedited ‖ edited) over the target positions of the chosen rows."""
        seen = self._passes(chosen, interventions)
        with torch.no_grad():
            logits = head(self._view, torch.cat([self._finals[index] for index in chosen]))
            reference = torch.log_softmax(logits.float(), -1)
        return divergence(seen.logits, reference)


class Pool:
    """The neutral rows of one view, drawn once and prepared once: every fit on that view chooses from them."""

    def __init__(self, view: View, rows: Sequence[Row], passes: Passes) -> None:
        self._texts = [view.base.tokenizer.decode(list(row.ids), skip_special_tokens=True) for row in rows]
        self._places = passes.places()  # (rows, D)
        self.preserved = Preserved(view, rows, passes)

    def allowed(self, speaks_against: Callable[[str], bool]) -> list[int]:
        """Rows that do not state what an edit changes."""
        return [index for index, text in enumerate(self._texts) if not speaks_against(text)]

    def near(self, places: Tensor, allowed: Sequence[int], count: int) -> list[int]:
        """For each of the places (n, D) the `count` allowed rows that stand nearest by cosine, together and without repeats.

        They are what an edit would move along with itself: other subjects in the same wording, mostly.
        """
        if not allowed or not count or not len(places):
            return []
        center = self._places.mean(0)
        own = normalize(self._places[list(allowed)] - center, dim=-1)  # (allowed, D)
        close = own @ normalize(places - center, dim=-1).T  # (allowed, n)
        nearest = close.topk(min(count, len(allowed)), dim=0).indices  # (count, n)
        return [allowed[index] for index in sorted(set(nearest.flatten().tolist()))]


def pool_of(view: View, neutral: Neutral, blocks: Sequence[int], settings: BaftSettings, make: MakePasses) -> Pool:
    """The pool of a view, from the last ones used if it is among them. The same numbers either way."""
    kept = neutral.prepared
    name = ("pool", view.tensors_digest, tuple(blocks), settings.last, settings.preserve_pool, settings.preserve_words)
    if name not in kept:
        rows = neutral.draw(settings.preserve_pool, torch.Generator().manual_seed(0), last_words=settings.preserve_words)
        kept[name] = Pool(view, rows, make(view, rows))
        pools = [other for other in kept if other[0] == "pool"]
        for other in pools[:-_POOLS_KEPT]:
            del kept[other]
    return kept[name]

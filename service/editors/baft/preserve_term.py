"""The data of the preserve term: rows with the unedited model's predictions, cached between fits where possible.

The unedited model is the view without any adapter. After a retrain its tensors hold the consolidated edits.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from service.editors.baft.forward_passes import ForwardPasses
from service.editors.baft.row_runner import RowRunner
from service.editors.baft.settings import BaftSettings
from service.editors.losses import divergences
from service.editors.neutral import NeutralSentences
from service.lm.intervention import Intervention
from service.lm.overlay import apply_lm_head
from service.lm.prompts import Row
from service.lm.row_groups import group_by_padding

_KEPT_POOLS = 2  # for the tensors of the head and for those in training


class PreservedRows:
    """Rows with the unedited model's predictions at their target positions, stored as states behind the final norm.

    A pass is as wide as its longest row behind what no intervention reaches, so rows run in groups of like width.
    """

    def __init__(self, runner: RowRunner, rows: Sequence[Row], passes: ForwardPasses) -> None:
        self._view, self._passes = runner.view, passes
        self._widths = [len(row) - row.first_position(runner.last) for row in rows]
        finals: dict[int, Tensor] = {}
        narrow_first = sorted(range(len(rows)), key=lambda index: self._widths[index])
        for chosen in runner.hooks.split(narrow_first, lambda index: len(rows[index])):
            with torch.no_grad():
                output = passes(chosen, {})
            finals |= {index: output.final[output.row_of == number] for number, index in enumerate(chosen)}
        self._finals = [finals[index] for index in range(len(rows))]

    def divergence(self, chosen: Sequence[int], interventions: Mapping[int, Intervention]) -> Tensor:
        """KL(unedited ‖ edited), mean over the target positions of the chosen rows."""
        groups = group_by_padding([self._widths[index] for index in chosen])
        parts = [self._divergences([chosen[place] for place in group], interventions) for group in groups]
        return torch.cat(parts).mean()

    def _divergences(self, chosen: Sequence[int], interventions: Mapping[int, Intervention]) -> Tensor:
        """KL (N,) at each target position of rows in one pass."""
        output = self._passes(chosen, interventions)
        with torch.no_grad():
            logits = apply_lm_head(self._view, torch.cat([self._finals[index] for index in chosen]))
            reference = torch.log_softmax(logits.float(), -1)
        return divergences(output.logits, reference)


class NeutralPool:
    """The neutral rows of one view, drawn and prepared once. Every fit on the view selects from them."""

    def __init__(self, runner: RowRunner, rows: Sequence[Row]) -> None:
        passes, tokenizer = runner.make_passes(rows), runner.view.base.tokenizer
        self._texts = [tokenizer.decode(list(row.ids), skip_special_tokens=True) for row in rows]
        self._states = passes.prompt_states()  # (rows, D)
        self.preserved = PreservedRows(runner, rows, passes)

    def select_candidates(self, mentions_edit: Callable[[str], bool]) -> list[int]:
        """Indexes of the rows whose text does not mention an edit."""
        return [index for index, text in enumerate(self._texts) if not mentions_edit(text)]

    def select_near(self, states: Tensor, candidates: Sequence[int], count: int) -> list[int]:
        """For each of the states (n, D), the `count` candidates nearest by cosine; all together, without repeats.

        An edit tends to move these rows too: mostly they have other subjects in the same wording.
        """
        return [candidates[index] for index in nearest_rows(self._states[list(candidates)], states, count)]


def nearest_rows(rows: Tensor, states: Tensor, count: int) -> list[int]:
    """Indexes of the `count` rows (n, D) nearest by cosine to each of `states` (m, D); all together, without repeats."""
    if not len(rows) or not len(states) or not count:
        return []
    center = rows.mean(0)
    similarity = normalize(rows - center, dim=-1) @ normalize(states - center, dim=-1).T  # (n, m)
    return sorted(set(similarity.topk(min(count, len(rows)), dim=0).indices.flatten().tolist()))


def prepare_pool(runner: RowRunner, neutral: NeutralSentences, settings: BaftSettings, *, ahead: bool = False) -> NeutralPool:
    """The pool of a view, from the cache if it is there. The numbers are the same either way."""

    def make_pool() -> NeutralPool:
        rows = neutral.draw(settings.preserve_pool, torch.Generator().manual_seed(0), last_words=settings.preserve_words)
        return NeutralPool(runner, rows)

    drawn_from = (len(neutral.sentences), settings.preserve_pool, settings.preserve_words)
    key = ("pool", runner.view.tensors_digest, runner.first_block, runner.last, *drawn_from)
    return neutral.get_or_make(key, make_pool, keep=_KEPT_POOLS, ahead=ahead)

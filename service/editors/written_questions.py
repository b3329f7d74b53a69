"""Questions that a model writes of itself, with its answers: neutral sentences seldom hold any, and edits change answers."""

from collections.abc import Callable

import torch

from service.editors.neutral import NeutralSentences
from service.editors.protocol import Hooks
from service.lm.overlay import View
from service.lm.prompts import Row, encode_if_it_fits, row_from_ids
from service.lm.scoring import sample_behind
from service.lm.tokenizing import decode_ids

LEAD = "Question:"
_TOKENS = 32  # behind the lead: a question and the beginning of its answer
_TOGETHER = 64  # texts in one batch
_KEPT_MODELS = 2


def written_questions(
    view: View, count: int, neutral: NeutralSentences, hooks: Hooks, *, mentions_edit: Callable[[str], bool]
) -> list[Row]:
    """At most `count` texts that `view` writes behind LEAD at temperature 1, without those for which `mentions_edit` is true.
    There are none where the model cannot read LEAD.

    The same view gives the same texts, which are kept for further fits. Raises FitCancelled if `hooks` say so.
    """
    key = ("written questions", view.tensors_digest, count)
    rows = neutral.get_or_make(key, lambda: _write(view, count, hooks), keep=_KEPT_MODELS)
    return [row for row in rows if not mentions_edit(decode_ids(view.base, row.ids))]


def _write(view: View, count: int, hooks: Hooks) -> list[Row]:
    lead = encode_if_it_fits(view.base, LEAD, "raw", _TOKENS)
    if lead is None or len(lead) < 2:  # sampling goes on from all tokens but the last
        return []
    generator = torch.Generator().manual_seed(0)
    rows: list[Row] = []
    while len(rows) < count:
        hooks.begin_step()
        texts = sample_behind(
            view,
            lead,
            min(_TOGETHER, count - len(rows)),
            generator,
            max_new_tokens=_TOKENS,
            temperature=1.0,
            yield_to_answers=hooks.begin_step,
        )
        rows += [row_from_ids(view.base, (*lead, *text), len(lead)) for text in texts]
    return rows

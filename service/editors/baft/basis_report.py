"""The use of an adapter's bases: the BaFT paper's Fig. 2 as numbers, and how evenly the bases are used.

Evenness is asked of two quantities. The *running mean* S/n is what load balancing minimises: the mean gate over all edits so far,
each with the gates of the moment when it was fitted. The *final gates* are those of the present adapter on all edits, read again.
Later fits move the gates of earlier edits, and the running mean never sees that.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from service.lm.intervention import Adapter, Balance
from service.lm.overlay import View
from service.lm.prompts import Row
from service.lm.scoring import gate_means

ACTIVE_SHARE = 0.5  # a basis is active if its mean weight is at least this share of the mean over all bases


def basis_report(view: View, adapter: Adapter, prompts: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Per block: the mean gate of every basis on each kind of `prompts` (edits, rephrases, unrelated …).

    The final gates are those on the kind `edits`. Also the running mean of every basis, the squared coefficient of variation of
    both, and the share of active bases by the running mean. A kind without rows is null, and so is a running mean of no edits.
    """
    means = {kind: gate_means(view, rows, adapter) if rows else None for kind, rows in prompts.items()}
    return {
        "active_share_of_mean": ACTIVE_SHARE,
        "blocks": [
            {
                "block": block,
                "mean_gate": {kind: None if gates is None else _numbers(gates[block]) for kind, gates in means.items()},
                **running_mean_report(adapter.balance.get(block)),
                "final_squared_variation": _variation_of(means.get("edits"), block),
            }
            for block in sorted(adapter.interventions)
        ],
    }


def running_mean_report(balance: Balance | None) -> dict[str, Any]:
    """The running mean S/n over past edits, its squared coefficient of variation, and the share of active bases."""
    if balance is None or balance.count == 0:
        return {"edits": 0, "running_mean": None, "running_squared_variation": None, "active_share": None}
    means = balance.total.double() / balance.count  # (R,)
    return {
        "edits": balance.count,
        "running_mean": _numbers(means),
        "running_squared_variation": squared_variation(means),
        "active_share": active_share(means),
    }


def squared_variation(weights: Tensor) -> float:
    """CV² of the weights (R,) of a block's bases: Σ (w_k − w̄)² / ((r − 1) w̄²), with six digits; 0: all are alike."""
    weights = weights.double()
    return round(float(weights.var() / weights.mean().square()), 6) if len(weights) > 1 else 0.0


def active_share(weights: Tensor) -> float:
    """The share of bases with a weight (R,) of at least half the mean."""
    return round(float((weights >= ACTIVE_SHARE * weights.mean()).double().mean()), 6)


def _variation_of(gates: Mapping[int, Tensor] | None, block: int) -> float | None:
    return None if gates is None else squared_variation(gates[block])


def _numbers(values: Tensor) -> list[float]:
    return [round(float(value), 6) for value in values]

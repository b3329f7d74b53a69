"""The use of an adapter's bases: the BaFT paper's Fig. 2 as numbers, and the share of bases that load balancing keeps active."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from service.lm.intervention import Adapter, Balance
from service.lm.overlay import View
from service.lm.prompts import Row
from service.lm.scoring import gate_means

ACTIVE_SHARE = 0.5  # a basis is active if its mean weight is at least this share of the mean over all bases


def basis_report(view: View, adapter: Adapter, prompts: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Per block: the mean gate of every basis on each kind of `prompts` (edits, rephrases, unrelated …).

    Also the running load of every basis, its squared coefficient of variation, and the share of active bases. A kind without rows
    is null, and so is the load of an adapter without one.
    """
    means = {kind: gate_means(view, rows, adapter) if rows else None for kind, rows in prompts.items()}
    return {
        "active_share_of_mean": ACTIVE_SHARE,
        "blocks": [
            {
                "block": block,
                "mean_gate": {kind: None if gates is None else _numbers(gates[block]) for kind, gates in means.items()},
                **load_report(adapter.balance.get(block)),
            }
            for block in sorted(adapter.interventions)
        ],
    }


def load_report(balance: Balance | None) -> dict[str, Any]:
    """The mean weights S/n over past edits, their squared coefficient of variation, and the share of active bases."""
    if balance is None or balance.count == 0:
        return {"edits": 0, "load": None, "squared_variation": None, "active_share": None}
    load = balance.total.double() / balance.count  # (R,)
    overall = load.mean()
    variation = (load.var() / overall.square()) if len(load) > 1 else torch.zeros(())
    return {
        "edits": balance.count,
        "load": _numbers(load),
        "squared_variation": round(float(variation), 6),
        "active_share": round(float((load >= ACTIVE_SHARE * overall).double().mean()), 6),
    }


def _numbers(values: Tensor) -> list[float]:
    return [round(float(value), 6) for value in values]

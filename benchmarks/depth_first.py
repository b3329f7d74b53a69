"""Depth-first fine-tuning, the way the LocFT-BF paper argues against: one edit after another, each to convergence.

One down-projection, batch 1, Adam, masked cross-entropy (methods.md calls it FT-M); the next edit starts from where the last one
ended, with a fresh optimiser. It exists here as a comparison only.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from service.editors.locft.settings import LocftSettings
from service.editors.protocol import Item
from service.lm.base import Base
from service.lm.blocks import Location
from service.lm.overlay import Overlay, View, substituted, view
from service.lm.prompts import collate, encode_row

STEPS = 25
STOP_LOSS = 1e-2


@dataclass
class DepthFirst:
    """The tuned tensors, changed by every edit."""

    base: Base
    private: View
    tensors: dict[str, torch.Tensor]
    rate: float

    @classmethod
    def start(cls, base: Base, settings: LocftSettings) -> "DepthFirst":
        """At the base model's weights, at the place LocFT-BF would train, with its rate."""
        family, depth = base.anatomy.family, base.anatomy.depth
        kind, block = settings.location_of(family, depth)
        own = dict(base.model.named_parameters())
        tensors = {name: own[name].detach().float().clone() for name in base.anatomy.parameters_at(Location(kind, block))}
        return cls(base, view(base), tensors, settings.rate_of(family, depth, base.anatomy.width))

    def fit(self, item: Item) -> int:
        """Trains one edit to convergence and returns the steps it took."""
        row = encode_row(self.base, item.edit.prompt, item.target)
        batch = collate(self.base, [row])
        parameters = {name: tensor.clone().requires_grad_() for name, tensor in self.tensors.items()}
        optimizer = torch.optim.Adam(parameters.values(), lr=self.rate)
        for step in range(STEPS):
            out = substituted(
                self.private,
                parameters,
                input_ids=batch.ids,
                attention_mask=batch.attention.long(),
                position_ids=batch.position_ids,
            )
            loss = cross_entropy(out.logits[batch.predicting], batch.labels)
            if loss.item() < STOP_LOSS:
                return step
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            self.tensors = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        return STEPS

    @property
    def overlay(self) -> Overlay:
        return Overlay(dict(self.tensors), None)

"""The contenders of continual editing: presets of BaFT, and the BaFT paper's ablations of its preset `paper`. Loads no model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.editors.baft.settings import BaftSettings

PAPER_WIDTH = 4096  # of the models that the paper's rates were made for
_THIRD = 1 / 3


@dataclass(frozen=True)
class ContinualContender:
    """Settings of BaFT under a name. `rate` multiplies the learning rates; with `scaled` also the width of the paper's models
    over the model's own width does.
    """

    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0
    scaled: bool = False

    def build_settings(self, width: int) -> BaftSettings:
        """The settings for a model of a width."""
        settings = BaftSettings.model_validate(dict(self.settings))
        factor = self.rate * (PAPER_WIDTH / width if self.scaled else 1.0)
        if factor == 1.0:
            return settings
        rates = {"learning_rate": settings.rate_of(width, 1), "joint_learning_rate": settings.rate_of(width, 2)}
        return BaftSettings.model_validate({**self.settings, **{name: factor * rate for name, rate in rates.items()}})


_SUBSPACE = {"preset": "paper", "gate": "subspace", "balance": "none"}  # one weight for all bases: nothing to balance

CONTENDERS: Mapping[str, ContinualContender] = {
    "default": ContinualContender("default, with replay"),
    "default_no_replay": ContinualContender("default, without replay", {"replay": 0}),
    "paper": ContinualContender("BaFT, preset `paper`", {"preset": "paper"}),
    "reft": ContinualContender("ReFT, preset `reft`", {"preset": "reft"}),
    "paper_subspace_no_margin": ContinualContender("ReFT + ss-w", {**_SUBSPACE, "margin": False}),
    "paper_no_margin": ContinualContender("ReFT + ba-w (BaFT without lr)", {"preset": "paper", "margin": False}),
    "paper_subspace": ContinualContender("ReFT + ss-w & lr", _SUBSPACE),
    "paper_no_balance": ContinualContender("BaFT without load balancing", {"preset": "paper", "balance": "none"}),
    "paper_slower": ContinualContender("BaFT, rate x 1/3", {"preset": "paper"}, rate=_THIRD),
    "paper_faster": ContinualContender("BaFT, rate x 3", {"preset": "paper"}, rate=3.0),
    "paper_by_width": ContinualContender("BaFT, rate x 4096 / width", {"preset": "paper"}, scaled=True),
    "reft_by_width": ContinualContender("ReFT, rate x 4096 / width", {"preset": "reft"}, scaled=True),
}
PRESETS = ("default", "paper", "reft")  # the contenders that run where none is named

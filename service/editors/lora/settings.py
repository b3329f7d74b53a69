"""Settings of LoRA. Plain numbers, no model."""

from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field

from service.editors.locft.settings import LocftSettings

PRESETS: dict[str, dict[str, Any]] = {"default": {}}
_RATE = 3e-3


class LoraSettings(LocftSettings):
    """How all live edits are trained into pairs of low rank. Most settings are those of LocFT-BF, with its defaults."""

    group: ClassVar[str] = "lora"
    presets = PRESETS
    renamed = MappingProxyType({})

    preset: Literal["default"] = Field("default", description="there is only one")
    rank: int = Field(
        16,
        ge=1,
        le=4_096,
        description="r: the width between the two matrices of a pair; more than the weight's smaller side gains nothing",
    )
    scale: float = Field(2.0, gt=0, description="factor of a pair's product, α/r in the paper")
    precondition: float = Field(0.0, ge=0, le=0, description="pairs are not preconditioned: always 0")
    learning_rate: float | None = Field(None, gt=0, description=f"rate of Adam; empty: {_RATE}")

    def rate_of(self, family: str, depth: int, width: int) -> float:
        """The rate of Adam. The scale of a pair's product does not depend on the model's width, and neither does the rate."""
        return _RATE if self.learning_rate is None else self.learning_rate

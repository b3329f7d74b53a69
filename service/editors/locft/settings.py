"""Settings of LocFT-BF with their presets and the papers' table of locations. Plain numbers: reading them loads no model."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.editors.proportion import at_share

Kind = Literal["down", "up", "mlp", "attention", "block"]

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "learning_rate": None,
        "epochs": 25,
        "batch": 100,
        "judge": "loss",
        "preserve_weight": 0.0,
        "learn_probes": False,
        "reduction": "sample",
    },
}

# Locations and rates of the papers' models, by model type and depth.
_LOCATIONS: dict[tuple[str, int], tuple[Kind, int, float]] = {
    ("llama", 32): ("down", 22, 5e-4),
    ("mistral", 32): ("block", 23, 5e-5),
    ("qwen2", 28): ("down", 6, 5e-4),
    ("qwen2_moe", 24): ("down", 20, 5e-4),
}
_DEFAULT_SHARE = 0.72  # of the depth, the place of block 22 of 32: where a model that the paper does not name is tuned
_DEFAULT_RATE = 5e-4
_PAPER_WIDTH = 4096


class LocftSettings(BaseModel):
    """How all live edits are trained into one module."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: Literal["default", "paper"] = Field("default", description="fills every setting below that is not given")

    kind: Kind | None = Field(None, description="what is trained in the block; empty: by family, else the down-projection")
    block: int | None = Field(None, ge=0, description="block that is trained, from 0; empty: by family, else 0.72 deep")
    learning_rate: float | None = Field(None, gt=0, description="rate of Adam; empty: by family and width")
    epochs: int = Field(60, ge=1, description="most passes over the live set")
    batch: int = Field(32, ge=1, description="edits in one step")
    judge: Literal["greedy", "loss"] = Field("greedy", description="skip and stop by the answers, or by the loss")
    stop_margin: float = Field(0.5, ge=0, description="nats by which target tokens lead in a right answer")
    stop_loss: float = Field(
        0.01, gt=0, description="loss under which a batch is skipped and training ends, if `judge` is `loss`"
    )
    reduction: Literal["sample", "token"] = Field("sample", description="mean per edit, or mean over all tokens of the batch")
    eos: bool = Field(True, description="learn the end of the answer too")
    preserve_weight: float = Field(2.0, ge=0, description="weight of the divergence from the base model on neutral sentences")
    preserve_rows: int = Field(32, ge=1, description="neutral rows in every step")
    preserve_pool: int = Field(1_000, ge=1, description="neutral rows drawn for one retrain")
    learn_probes: bool = Field(True, description="learn rephrases and keep locality probes that say `train: true`")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return PRESETS.get(str(given.get("preset", "default")), {}) | given
        return given

    def location_of(self, family: str, depth: int) -> tuple[Kind, int]:
        """(kind, block) that is trained in a model."""
        kind, block, _ = _LOCATIONS.get((family, depth), ("down", at_share(_DEFAULT_SHARE, depth), 0.0))
        return self.kind or kind, block if self.block is None else min(self.block, depth - 1)

    def rate_of(self, family: str, depth: int, width: int) -> float:
        """The rate of Adam: the papers' for their models, else raised as the model gets narrower."""
        if self.learning_rate is not None:
            return self.learning_rate
        known = _LOCATIONS.get((family, depth))
        if known is not None:
            return known[2]
        return _DEFAULT_RATE if self.preset == "paper" else _DEFAULT_RATE * max(1.0, _PAPER_WIDTH / width)

"""Settings of the neutral sentences. Plain numbers: reading them loads no model."""

from pydantic import BaseModel, ConfigDict, Field


class NeutralSettings(BaseModel):
    """Sentences that the base model writes of itself. Edits keep them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sentences: int = Field(3_000, ge=0, description="sentences that fits may learn to keep; 0: none")
    first_part: int = Field(192, ge=1, description="sentences with which fits begin while the others are sampled")
    held_out: int = Field(300, ge=0, description="further sentences that no fit ever sees, to measure locality")
    tokens: int = Field(32, ge=4, le=512, description="longest sentence, in tokens")
    seed: int = Field(0, ge=0, description="seed of the sampling and of the cuts")
    batch: int = Field(256, ge=1, description="sentences sampled together")

"""How exports are written, as settings: no tensors are needed to read them."""

from pydantic import BaseModel, ConfigDict, Field

# safetensors keeps every other thread of the process waiting while it writes one file: some tenths of a second of these.
SHARD_SIZE = "500MB"
SIZE_PATTERN = r"^[1-9][0-9]{0,5}(KB|MB|GB)$"


class ExportSettings(BaseModel):
    """How versions are written as Hugging Face checkpoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_shard_size: str = Field(
        SHARD_SIZE,
        pattern=SIZE_PATTERN,
        description="largest file of weights, as in 500MB; answers wait while one is written, so it is kept small",
    )

"""Settings of exports. Reading them needs no tensors."""

from pydantic import BaseModel, ConfigDict, Field

# While safetensors writes one file, all other threads of the process wait: some tenths of a second for this size.
SHARD_SIZE = "500MB"
SIZE_PATTERN = r"^[1-9][0-9]{0,5}(KB|MB|GB)$"


class ExportSettings(BaseModel):
    """How versions are written as Hugging Face checkpoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_shard_size: str = Field(
        SHARD_SIZE,
        pattern=SIZE_PATTERN,
        description="largest file of weights, as in 500MB; answers wait during the write of each file",
    )

"""Settings of an editor that has presets. Plain numbers, no model."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class WithPresets(BaseModel):
    """What is not given is filled by the preset that `preset` names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    presets: ClassVar[Mapping[str, dict[str, Any]]]

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return cls.presets.get(str(given.get("preset", "default")), {}) | given
        return given

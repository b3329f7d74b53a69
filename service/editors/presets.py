"""Settings of an editor that has presets. Plain numbers, no model."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class WithPresets(BaseModel):
    """Settings whose missing values come from the preset that `preset` names. A setting is also accepted under its old name.

    `renamed` holds {old name: name}. A setting under both of its names is an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    presets: ClassVar[Mapping[str, dict[str, Any]]]
    renamed: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for old, name in cls.renamed.items():
            if old in values and name in values:
                raise ValueError(f"{old} is the old name of {name}: give one of the two")
        by_name = {cls.renamed.get(name, name): value for name, value in values.items()}
        return cls.presets.get(str(values.get("preset", "default")), {}) | by_name

"""Settings of an editor that has presets. Plain numbers, no model."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class WithPresets(BaseModel):
    """What is not given is filled by the preset that `preset` names. A setting may also be given by the name that it had before.

    `renamed` holds {old name: name}. To give a setting by both of its names is an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    presets: ClassVar[Mapping[str, dict[str, Any]]]
    renamed: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for old, name in cls.renamed.items():
            if old in given and name in given:
                raise ValueError(f"{old} is the old name of {name}: give one of the two")
        under_names = {cls.renamed.get(name, name): value for name, value in given.items()}
        return cls.presets.get(str(given.get("preset", "default")), {}) | under_names

"""Why an edit waits for a retrain, with figures, and how often it was tried. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Deferral:
    """The deferral of an edit: a `reason` as a sentence, and the last try of a fit with it.

    `figures` maps each judged figure of that try to its value and limit. `tried_on` is the version that the try began on; it is
    None, as is `tried_at`, while no fit has tried the edit. `tries` counts the fits that were made with the edit and refused.
    """

    reason: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    tried_on: int | None = None
    tried_at: datetime | None = None
    tries: int = 0

    def after(self, before: "Deferral | None", now: datetime) -> "Deferral":
        """This deferral as the next one of an edit: with the tries before it, and the last of them if it has none of its own."""
        earlier = before or Deferral(reason="")
        if self.tried_on is not None:
            return replace(self, tried_at=now, tries=earlier.tries + 1)
        return replace(self, figures=earlier.figures, tried_on=earlier.tried_on, tried_at=earlier.tried_at, tries=earlier.tries)

"""How many tokens edits may cost. Plain numbers; what an edit costs is worked out where a tokenizer is at hand."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CostLimits:
    """How many tokens are accepted: for the fit of one edit, for its report, and for the fits of all edits of one batch."""

    fit: int = 8_192
    report: int = 32_768
    batch: int = 524_288

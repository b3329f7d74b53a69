"""How many tokens edits may cost. Plain numbers; the cost of an edit is counted where a tokenizer is available."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CostLimits:
    """The most tokens: for the fit of one edit, for its report, and for the fits of all edits of one batch."""

    fit: int = 8_192
    report: int = 32_768
    batch: int = 524_288

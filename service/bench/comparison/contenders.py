"""The contenders of the comparison. Loads no model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Prompting = Literal["nothing", "all", "nearest"]  # which edits stand before a question


@dataclass(frozen=True)
class ComparedContender:
    """One way to make edits known. Either edits stand in the prompts of the base model, or a server is edited, under the settings
    of a contender of `service/bench/contenders.py`.

    `weights_alone`: the edits wait for one major retrain a mark, and the version is asked without its adapter.
    """

    label: str
    prompting: Prompting | None = None
    server: str = "default"
    weights_alone: bool = False


COMPARED: Mapping[str, ComparedContender] = {
    "base": ComparedContender("base model, unedited", "nothing"),
    "prompt": ComparedContender("all edits in the prompt", "all"),
    "retrieval": ComparedContender("nearest edit in the prompt", "nearest"),
    "lora": ComparedContender("LoRA refit, weights alone", server="lora_alone", weights_alone=True),
    "baft_paper": ComparedContender("BaFT as published", server="baft_paper"),
    "locft": ComparedContender("LocFT-BF, weights alone", server="locft_alone", weights_alone=True),
    "errata": ComparedContender("Errata"),
    "errata_context": ComparedContender("Errata with the context tier", server="context"),
    "context": ComparedContender("context tier alone, nothing fitted", server="context_alone"),
}

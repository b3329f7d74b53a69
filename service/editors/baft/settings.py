"""Settings of BaFT with their presets and the papers' table of blocks. Plain numbers: reading them loads no model.

A preset fills missing values. `default` serves users best and was chosen by measurement (docs/methods.md); `paper` is the
published algorithm; `reft` is the published algorithm with every gate at one (LoReFT).
"""

import math
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import Field

from service.editors.contrast_counts import ContrastCounts, count_contrast
from service.editors.depth_rule import block_at_share, scale_block
from service.editors.presets import WithPresets
from service.editors.wording_counts import WordingCounts
from service.lm.last_tokens import LastTokens, TextPosition

_PAPER: dict[str, Any] = {
    "positions": "prompt_end",
    "learning_rate": 3e-4,
    "joint_learning_rate": 1e-4,
    "steps": 40,
    "joint_steps": 70,
    "attempts": 1,
    "stop": "loss",
    "reduction": "sum",
    "eos": False,
    "balance": "paper",
    "balance_limited": False,
    "balance_horizon": 0,
    "placement": "published",
    "margin": True,
    "gate_norm": "none",
    "replay": 0,
    "preserve_weight": 0.0,
    "contrast_weight": 0.0,
    "wordings": 0,
    "restated": 0,
    "led": 0,
    "window_wordings": 0,
    "learn_probes": False,
    "prefixes": 0,
    "scope": "always",
}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": _PAPER,
    "reft": _PAPER | {"gate": "none", "balance": "none", "margin": False},
}

# Table 5 of the paper, by model type and depth: (blocks, beta, gamma of the margin term). LLaMA-2 and -3 share type and depth.
_TABLE_5 = {("llama", 32): (9, 18, 24, 28), ("gemma", 28): (18, 20, 22, 24)}
_MARGINS_LLAMA_2 = (0.05, 0.02)
_MARGINS_OTHERS = (0.1, 0.05)
_VOCABULARY_LLAMA_2 = 32_000
_LATE = (0.9, 0.97)  # of the depth (decision 42)
_RATE_BY_WIDTH = 0.6  # 3.1e-3 at width 192, 1.5e-4 at 4096
_FIRMER = 3.0
_JOINT_FACTOR = 1.5  # 64 edits: a quarter fewer steps at the same locality


class BaftSettings(WithPresets):
    """How BaFT learns edits with interventions."""

    presets = PRESETS
    renamed = MappingProxyType({"settled": "consolidated", "settled_pool": "consolidated_pool"})

    preset: Literal["default", "paper", "reft"] = Field("default", description="fills every setting below that is not given")

    rank: int = Field(12, ge=1, description="basis vectors of one intervention")
    blocks: tuple[int, ...] = Field((), description="blocks whose output is intervened, from 0; empty: by `placement`")
    placement: Literal["late", "published"] = Field(
        "late", description="blocks at 0.9 and 0.97 of the depth, or as in table 5 and as deep elsewhere"
    )
    last: int = Field(3, ge=1, description="intervened tokens at the end of the prompt, or of the user's text (`positions`)")
    positions: TextPosition = Field(
        "prompt_end",
        description="on the surface chat, the last tokens of the prompt, of the user's text in it, or both; raw text is all text",
    )
    gate: Literal["none", "subspace", "basis"] = Field("basis", description="none: ReFT; subspace: one weight for all bases")
    gate_norm: Literal["rms", "none"] = Field("rms", description="input of the gate: the state, RMS-normalised or as it is")
    init: Literal["identity", "pyreft"] = Field("identity", description="identity: without edits not a bit changes")

    learning_rate: float | None = Field(None, gt=0, description="rate of AdamW for one edit; empty: 0.6 / width of the model")
    joint_learning_rate: float | None = Field(None, gt=0, description="rate for edits fitted together; empty: 1.5 times as much")
    steps: int = Field(30, ge=1, description="most steps of one attempt with one edit")
    joint_steps: int = Field(60, ge=1, description="most steps of one attempt with several edits")
    attempts: int = Field(3, ge=1, description="attempts, each with twice the steps of the last one, until all are answered")
    stop: Literal["greedy", "loss"] = Field("greedy", description="when a fit is done: the answers are right, or the loss is low")
    stop_margin: float = Field(3.0, ge=0, description="nats by which every target token of a right answer must lead")
    joint_stop_margin: float = Field(0.25, ge=0, description="the same for edits fitted together, which take more steps")
    stop_loss: float = Field(0.01, gt=0, description="edit loss under which a fit is done, if `stop` is `loss`")
    reduction: Literal["sample", "token", "sum"] = Field("sample", description="mean per row, over all tokens, or sum per row")
    eos: bool = Field(True, description="learn the end of the answer too")
    rows: int = Field(64, ge=1, description="most rows of new edits in one step")

    balance: Literal["none", "cv2", "paper"] = Field(
        "cv2", description="load balancing: by squared variation, or as the paper prints it"
    )
    margin: bool = Field(False, description="margin regulariser on one unrelated prompt per edit, if edits have one")
    margin_alpha: float = Field(0.01, ge=0, description="weight allowed on unrelated prompts")
    margin_beta: float | None = Field(None, ge=0, description="least weight on edits; empty: by family")
    margin_gamma: float | None = Field(None, ge=0, description="least gap between both; empty: by family")
    rescale_limit: float = Field(10.0, gt=0, description="largest factor that scales a regulariser to the edit loss")
    balance_limited: bool = Field(True, description="whether this limit holds for load balancing too; the paper names none")
    balance_horizon: int = Field(
        0, ge=0, description="past edits that load balancing remembers, older ones fade; 0: all, as published"
    )

    replay: int = Field(48, ge=0, description="rows of the window in every step; 0: none, also none of consolidated edits")
    consolidated: int = Field(
        16, ge=0, description="rows of consolidated edits in every step, half of them near new ones (also read as `settled`)"
    )
    consolidated_pool: int = Field(
        256, ge=0, description="rows of consolidated edits, prefilled once for all fits (also read as `settled_pool`)"
    )
    keep_margin: float = Field(0.25, ge=0, description="nats by which the answers of replayed and consolidated rows must lead")
    preserve_weight: float = Field(4.0, ge=0, description="weight of the divergence from the unedited model on neutral sentences")
    preserve_rows: int = Field(4, ge=1, description="neutral rows in every step, half of them near the new edits")
    preserve_pool: int = Field(1_000, ge=1, description="neutral rows, prefilled once for all fits on the same weights")
    preserve_near: int = Field(48, ge=0, description="neutral rows that count as near a new row; 0: all are equally likely")
    preserve_words: int = Field(4, ge=0, description="neutral sentences are cut before one of their last words; 0: any")
    contrast: int = Field(8, ge=0, description="the prompt of a new edit about so many other subjects, kept as it is answered")
    contrast_mentions: int = Field(
        4, ge=0, description="the same behind the edit, a sentence or a question that names its subject"
    )
    contrast_own: int = Field(5, ge=0, description="texts that the model writes about the subject of a new edit")
    contrast_questions: int = Field(4, ge=0, description="questions about that subject that the model writes and answers")
    contrast_passages: int = Field(4, ge=0, description="neutral sentences with that subject in the place of a name")
    contrast_rows: int = Field(8, ge=1, description="contrast rows in every step, a third of them of the window")
    contrast_weight: float = Field(12.0, ge=0, description="weight of the divergence on contrast rows; 0: none")
    wordings: int = Field(8, ge=0, description="other wordings of a new edit to learn, where the client gave none")
    restated: int = Field(0, ge=0, description="of these wordings, those at most that the model writes itself")
    led: int = Field(
        4, ge=0, description="of these wordings, those at most that stand behind the words that the model puts before its answer"
    )
    window_wordings: int = Field(4, ge=0, description="such wordings of each edit of the window, which are kept")
    learn_probes: bool = Field(True, description="learn rephrases and keep locality probes with `train: true`")
    prefixes: int = Field(0, ge=0, le=16, description="copies of each prompt after a text of the base model")
    scope: Literal["auto", "always"] = Field(
        "auto", description="prompts that the adapter acts on: those that may concern an edit it carries, or all"
    )

    def wording_counts(self, most: int) -> WordingCounts:
        """The wordings of an edit that gets `most`."""
        return WordingCounts(most, self.restated, self.led)

    @property
    def contrast_counts(self) -> ContrastCounts:
        """The contrast rows of one edit; none without a weight."""
        return count_contrast(self)

    def hold_firmly(self, firmness: int) -> Self:
        """The same settings with a larger weight of all that is to stay: three times as large for each step of `firmness`."""
        factor = _FIRMER**firmness
        weights = {"preserve_weight": self.preserve_weight * factor, "contrast_weight": self.contrast_weight * factor}
        return self.model_copy(update=weights) if firmness else self

    def last_tokens(self, tail: tuple[int, ...]) -> LastTokens:
        """The intervened tokens of a prompt, for the `tail` of a model's chat template; those of its end if there is no tail."""
        return LastTokens(self.last, self.positions, tail) if tail and self.positions != "prompt_end" else LastTokens(self.last)

    def blocks_of(self, family: str, depth: int) -> tuple[int, ...]:
        """The intervened blocks of a model: as set, late in its depth, or as published: as in table 5, or at the same depths as
        in the paper's 32-block models.
        """
        if self.blocks:
            return tuple(sorted({block for block in self.blocks if block < depth}))
        if self.placement == "late":
            lower, upper = (block_at_share(share, depth) for share in _LATE)
            return tuple(range(max(upper - 1, 0), upper + 1)) if lower == upper else (lower, upper)
        published = _TABLE_5.get((family, depth))
        return published or tuple(sorted({scale_block(block, 32, depth) for block in _TABLE_5[("llama", 32)]}))

    def margins_of(self, family: str, vocabulary: int) -> tuple[float, float]:
        """(beta, gamma) of the margin term, by table 5."""
        llama_2 = family == "llama" and vocabulary <= _VOCABULARY_LLAMA_2 + 64
        beta, gamma = _MARGINS_LLAMA_2 if llama_2 else _MARGINS_OTHERS
        return (beta if self.margin_beta is None else self.margin_beta, gamma if self.margin_gamma is None else self.margin_gamma)

    def rate_of(self, width: int, edits: int) -> float:
        """The rate of AdamW: a step moves `A h` by about rate · width, so the default falls with the width."""
        single = _RATE_BY_WIDTH / width if self.learning_rate is None else self.learning_rate
        if edits <= 1:
            return single
        return _JOINT_FACTOR * single if self.joint_learning_rate is None else self.joint_learning_rate

    def margin_of(self, edits: int) -> float:
        """Nats by which the target tokens of new edits must lead."""
        return self.stop_margin if edits <= 1 else self.joint_stop_margin

    def steps_of(self, edits: int, attempt: int) -> int:
        """Most steps of an attempt, counted from 0."""
        return int((self.joint_steps if edits > 1 else self.steps) * math.pow(2, attempt))

    def parameters(self, width: int, blocks: int) -> int:
        """Trained parameters of an adapter over `blocks` blocks (methods.md: solved exactly from the paper's totals)."""
        learned = 2 * self.rank * width + self.rank
        gate_rows = {"none": 0, "subspace": 1, "basis": self.rank}[self.gate]
        gain = width if gate_rows and self.gate_norm == "rms" else 0
        return blocks * (learned + gate_rows * width + gain)

"""Settings of LocFT-BF, and of the fine-tuning it is compared with, with presets. Plain numbers, no model."""

from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from service.editors.contrast_counts import ContrastCounts, count_contrast
from service.editors.locft.published_locations import MEASURED, LocationKind, Position, choose_rate, published_kind
from service.editors.presets import WithPresets

# One edit after another, each to convergence on its own, from the last one's weights (EasyEdit's fine-tuning). EOS is learned, as
# in all methods that the LocFT-BF paper compares (appendix A.1.1); EasyEdit itself appends none.
_DEPTH_FIRST: dict[str, Any] = {
    "order": "depth",
    "position": "published",
    "epochs": 25,
    "batch": 1,
    "judge": "loss",
    "precondition": 0.0,
    "preserve_weight": 0.0,
    "contrast_weight": 0.0,
    "wordings": 0,
    "restated": 0,
    "learn_probes": False,
    "surfaces": "raw",
}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "position": "published",
        "epochs": 25,
        "batch": 100,
        "bucket": 0,
        "judge": "loss",
        "revisit": 1.0,
        "precondition": 0.0,
        "preserve_weight": 0.0,
        "contrast_weight": 0.0,
        "wordings": 0,
        "restated": 0,
        "learn_probes": False,
        "reduction": "sample",
        "surfaces": "raw",
    },
    "ft_l": {**_DEPTH_FIRST, "objective": "last_position"},
    "ft_m": _DEPTH_FIRST,
}


class LocftSettings(WithPresets):
    """How all live edits are trained into one module."""

    group: ClassVar[str] = "locft"  # the name of these settings in messages
    presets = PRESETS
    renamed = MappingProxyType({"settle": "cooldown"})

    preset: Literal["default", "paper", "ft_l", "ft_m"] = Field(
        "default", description="fills every setting below that is not given; ft_l and ft_m are the papers' comparisons"
    )

    kind: LocationKind | None = Field(
        None,
        description="part of a block to train; empty: by model or family, else the down-projection; model: all blocks whole",
    )
    position: Position = Field(
        "auto",
        description="block to train: late at 0.9 of the depth, share at 0.72; default the papers' block, proportional as deep, "
        "published one of these three as the papers have it; auto as measured for the embedded model, as published for those of "
        "the papers, else late",
    )
    block: int | None = Field(None, ge=0, description="block to train, from 0, instead of one by position")
    blocks: tuple[int, ...] = Field((), description="several blocks to train instead of one")
    learning_rate: float | None = Field(None, gt=0, description="rate of Adam; empty: by family and width")
    order: Literal["breadth", "depth"] = Field(
        "breadth", description="epochs over all edits, or one edit after another, each to convergence"
    )
    objective: Literal["target", "last_position"] = Field(
        "target", description="each target token at its own position, or all of them at the prompt's last position (FT-L)"
    )
    epochs: int = Field(200, ge=1, description="most passes over the live set; with order depth: most steps of one edit")
    batch: int = Field(32, ge=1, description="edits in one step")
    bucket: int = Field(4, ge=0, description="tokens by which rows of one step may differ in length, roughly; 0: any rows")
    judge: Literal["greedy", "loss"] = Field("greedy", description="skip and stop by the answers, or by the loss")
    stop_margin: float = Field(0.5, ge=0, description="nats by which target tokens lead in a right answer")
    stop_loss: float = Field(
        0.01, gt=0, description="loss under which a batch is skipped and training ends, if `judge` is `loss`"
    )
    reduction: Literal["sample", "token"] = Field("sample", description="mean per edit, or mean over all tokens of the batch")
    eos: bool = Field(True, description="learn the end of the answer too")
    surfaces: Literal["raw", "edit"] = Field(
        "edit", description="train and verify every surface of an edit, or raw text alone, also for chat models"
    )
    revisit: float = Field(0.5, ge=0, le=1, description="share of the right rows that an epoch visits again")
    replay: float = Field(2.0, ge=0, description="rows of consolidated edits beside each new one in an epoch of a minor retrain")
    cooldown: int = Field(
        30,
        ge=0,
        description="steps at a falling rate once all is answered, which undo needless changes (also read as `settle`)",
    )
    minor_rate: float = Field(0.3, gt=0, le=1, description="rate of a minor retrain, as a share of a major one's")
    precondition: float = Field(
        0.0,
        ge=0,
        description="ρ: energy, as a share of the mean, at which a direction of neutral inputs is damped by half; 0: no damping",
    )
    precondition_rate: float = Field(3.0, gt=0, description="factor of the steps that are damped, which would be short else")
    precondition_edits: float = Field(
        0.0, ge=0, description="weight of consolidated edits' inputs beside neutral ones in the damping of a minor retrain"
    )
    preserve_weight: float = Field(12.0, ge=0, description="weight of the divergence from the base model on neutral sentences")
    preserve_rows: int = Field(16, ge=1, description="neutral rows in every step")
    preserve_pool: int = Field(1_000, ge=1, description="neutral rows drawn for one retrain")
    preserve_questions: int = Field(
        400, ge=0, description="questions that the base model writes and answers, kept for one retrain"
    )
    question_rows: int = Field(12, ge=1, description="such questions in every step")
    preserve_tokens: int = Field(
        12,
        ge=0,
        description="tokens in a row that count of each neutral sentence and question, at a drawn place; 0: all of them",
    )
    preserve_probes: int = Field(1_000, ge=0, description="most trained locality probes whose base answers are kept")
    preserve_prompts: int = Field(1_000, ge=0, description="most real prompts whose base answers are kept")
    contrast: int = Field(
        8, ge=0, description="the prompt of each edit about so many other subjects, kept as the base answers it"
    )
    contrast_mentions: int = Field(2, ge=0, description="the same behind the edit itself, which names its subject")
    contrast_own: int = Field(4, ge=0, description="texts that the base model writes about the subject of each edit")
    contrast_questions: int = Field(0, ge=0, description="questions about that subject that the base model writes and answers")
    contrast_passages: int = Field(0, ge=0, description="neutral sentences with that subject in the place of a name")
    contrast_edits: int = Field(500, ge=0, description="edits with contrast rows and wordings at most, drawn by the seed")
    contrast_rows: int = Field(16, ge=1, description="contrast rows in every step")
    contrast_weight: float = Field(12.0, ge=0, description="weight of the divergence on contrast rows; 0: none")
    wordings: int = Field(2, ge=0, description="other wordings of an edit to learn, where the client gave none")
    restated: int = Field(0, ge=0, description="of these wordings, those at most that the base model writes itself")
    learn_probes: bool = Field(True, description="learn rephrases and keep locality probes with `train: true`")
    prefixes: int = Field(0, ge=0, description="random prefixes of each prompt, as further rows to learn; the paper uses 5")
    cache_mb: int = Field(1_024, ge=0, description="megabytes of memory for the states that enter the tuned block")
    cache_disk_mb: int = Field(
        8_192, ge=0, description="megabytes of temporary disk for further states; states that fit neither are computed again"
    )

    @model_validator(mode="after")
    def _has_one_location(self) -> Self:
        if self.block is not None and self.blocks:
            raise ValueError("block and blocks must not both be given")
        if self.kind == "model" and (self.block is not None or self.blocks):
            raise ValueError("kind model trains all blocks: block and blocks must be empty")
        if self.order == "breadth" and self.objective == "last_position" and self.judge == "greedy":
            raise ValueError("objective last_position never gives right answers of several tokens: judge must be loss")
        return self

    @property
    def contrast_counts(self) -> ContrastCounts:
        """The contrast rows of one edit; none without a weight."""
        return count_contrast(self)

    def measured_for(self, family: str, depth: int, width: int) -> tuple[LocationKind, int] | None:
        """(kind, block) that our measurements chose for a model, if no setting names another location."""
        choice = self.kind, self.block, self.blocks, self.position, self.preset
        return MEASURED.get((family, depth, width)) if choice == (None, None, (), "auto", "default") else None

    def rate_of(self, family: str, depth: int, width: int) -> float:
        """The rate of Adam: the published rate for a published model, else a rate that rises as the width falls."""
        if self.learning_rate is not None:
            return self.learning_rate
        return choose_rate(self.kind or published_kind(family), family, depth, width, scaled=self.preset != "paper")

"""Versions, rollbacks, the health of the server and the served model, as clients read and request them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field

from service.api.schemas import In, Out, QueryIn
from service.api.text_types import LARGEST_INTEGER, Name
from service.background.basis_use import BlockUsage

MOST_LISTED = 200
Number = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]

EXAMPLE_VERSION: dict[str, Any] = {
    "number": 2,
    "kind": "baft",
    "status": "published",
    "base": "atlas",
    "parent": 1,
    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "edits_counted": 2,
    "window": 2,
    "scores": {"retention": 1.0},
    "created_at": "2026-11-20T12:00:01Z",
    "author": "local",
    "reason": None,
    "restores": None,
    "pinned": False,
    "head": True,
    "stated": [],
}
EXAMPLE_FIGURE: dict[str, Any] = {
    "score": 0.98,
    "n": 64,
    "how": "share of answers far from any edit that are the base model's; it is sure of them",
    "interval": [0.92, 1.0],
    "floor": 1.0,
    "source": "gate",
    "version": 2,
    "at": "2026-11-20T12:00:01Z",
}
EXAMPLE_MEASURED: dict[str, Any] = {"retention": EXAMPLE_FIGURE | {"score": 1.0, "n": 2}, "far": EXAMPLE_FIGURE}
EXAMPLE_VERSION |= {"minors": 0, "major_at": None, "drift": None, "neutral_sentences": 3000, "measured": EXAMPLE_MEASURED}


class VersionQuery(QueryIn):
    """Which versions to list, newest first."""

    limit: int = Field(50, ge=1, le=MOST_LISTED, description="most items in one answer")
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next` of the previous answer")


class MeasuredOut(Out):
    """One measurement of a version: its score, and how it was measured."""

    score: float = Field(description="a share, 0 to 1; `capability` is a share of the base model's")
    n: int = Field(description="number of questions")
    how: str = Field(description="the questions, and what counts as a right answer")
    interval: tuple[float, float] | None = Field(description="95 % interval of the score; null where it was not computed")
    floor: float | None = Field(
        description="the share that the base model keeps of itself in other batch shapes: what is lost beyond it is the edits'"
    )
    source: str = Field(description="`gate` (measured by acceptance, before publication) or `monitor` (measured after it)")
    version: int = Field(description="the measured version: this one, or the nearest ancestor that has the measurement")
    at: datetime = Field(description="the time of the measurement")


Measured = Annotated[
    dict[str, MeasuredOut],
    Field(
        description="the latest measurements by name: `retention`; what is kept of the base model's answers and text: `near`"
        " (edits' prompts about other subjects), `same_subject`, `given` (locality probes posted with edits), `far`, `prose`"
        " (sentences that no fit sees), `prose_inside` (those that fits may use); `capability`; a figure that was not measured on"
        " this version comes from its nearest ancestor"
    ),
]
MINORS = "number of minor retrains since the last major retrain"
MAJOR_AT = "the time of the last major retrain, which trained the tensors from the base model; null: never"
DRIFT = "how far the minor retrains before the last major retrain had moved from its tensors; null where it was not measured"


class VersionOut(Out):
    """A version: the base model plus one immutable overlay."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_VERSION]})

    number: int
    kind: str = Field(description="base, rollback, retract, context, or the name of the editing method that made the version")
    status: str = Field(description="published, corrupt or collected")
    base: str = Field(description="the base model; a version of another base than that of `GET /model` is only a record")
    parent: int | None
    digest: str | None = Field(description="SHA-256 of the checkpoint; the base alone has none")
    edits_counted: int = Field(description="number of edits that the version answers")
    window: int = Field(description="number of edits in the window, which the adapter carries")
    scores: dict[str, Any] = Field(description="scores at publication; later measurements are added")
    created_at: datetime
    author: str
    reason: str | None
    restores: int | None = Field(description="for a rollback: the version whose overlay and edits this one has")
    pinned: bool = Field(description="whether the version is kept at any age")
    head: bool = Field(description="whether the version is the head")
    stated: list[str] = Field(description="ids of the edits that it puts in front of prompts; see `window.context`")
    minors: int = Field(description=MINORS)
    major_at: datetime | None = Field(description=MAJOR_AT)
    drift: dict[str, Any] | None = Field(description=DRIFT)
    neutral_sentences: int | None = Field(
        description="how many neutral sentences its fit might use; fewer than there are if it was fitted while the others were"
        " sampled; null: no fit made it, or an earlier release did, with all"
    )
    measured: Measured


class BasisOut(Out):
    """One basis of an intervention, and how much it is used."""

    basis: int
    running_mean: float | None = Field(
        description="mean gate over all edits of the adapter, each with the gates of the moment when it was fitted; this is what"
        " load balancing evens out"
    )
    edits: float | None = Field(
        description="final gate: this version's mean gate on the prompts and targets of the last 64 edits of its window, read"
        " again"
    )
    rephrases: float | None = Field(description="mean gate on the rephrases of the version's edits")
    unrelated: float | None = Field(description="mean gate on neutral sentences")


class BlockOut(Out):
    """The intervention of one block."""

    block: int
    edits_counted: int = Field(description="edits in the running means")
    running_squared_variation: float | None = Field(
        description="squared coefficient of variation of the running means over the bases; 0: all bases are used equally"
    )
    final_squared_variation: float | None = Field(
        description="the same of the final gates (`edits`), which later fits have moved"
    )
    active_share: float | None = Field(description="share of bases whose running mean is at least half of the mean over all")
    bases: list[BasisOut]


class BasesOut(Out):
    """The gates of a version's interventions (the BaFT paper's figure 2)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "version": 2,
                    "blocks": [
                        {
                            "block": 4,
                            "edits_counted": 2,
                            "running_squared_variation": 0.01,
                            "final_squared_variation": 0.04,
                            "active_share": 1.0,
                            "bases": [{"basis": 0, "running_mean": 0.41, "edits": 0.44, "rephrases": 0.39, "unrelated": 0.06}],
                        }
                    ],
                }
            ]
        }
    )

    version: int
    blocks: list[BlockOut]

    @classmethod
    def of(cls, version: int, usages: Sequence[BlockUsage]) -> Self:
        """The use of each block's bases as an answer."""
        return cls(version=version, blocks=[_block(usage) for usage in usages])


class RollbackIn(In):
    """Publish the overlay of an older version under a new number."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"to": 0, "reason": "the source was wrong"}]})

    to: Number = Field(description="the version to return to; 0 is the base model")
    reason: Name = Field(description="the reason, for the history")
    requeue: bool = Field(False, description="queue the edits again that the older version does not hold")


class RollbackOut(Out):
    """A completed rollback."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"version": 3, "restored": 0, "epoch": 3, "rolled_back": ["01936b0e-6f2a-7c3d-9a41-5b7c2f0e8d11"]}]
        }
    )

    version: int = Field(description="the new version's number")
    restored: int = Field(description="the version whose overlay and edits the new one has")
    epoch: int
    rolled_back: list[str] = Field(description="edits that are no longer live")


class HealthOut(Out):
    """Whether the server is alive, started or ready."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ok", "checks": {"database": "ok", "head": "ok", "worker": "ok"}}]}
    )

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, str] = Field(default_factory=dict, description="each part of the server: `ok`, or its fault")


class ModelOut(Out):
    """The model that is served now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "base": "atlas",
                    "fingerprint": "2:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "family": "llama",
                    "blocks": 8,
                    "width": 256,
                    "context": 512,
                    "surfaces": ["raw"],
                    "device": "cpu",
                    "dtype": "float32",
                    "dtype_reason": "the model has fewer than 50 million weights",
                    "torch_threads": 1,
                    "torch_threads_reason": "the model has fewer than 50 million weights",
                    "method": "auto",
                    "store": "01936b0e-6f00-7b11-8a00-1c2d3e4f5a6b",
                    "head": 2,
                    "epoch": 2,
                    "edits_counted": 2,
                    "window": 2,
                    "retention": 1.0,
                    "far": 0.98,
                    "minors": 0,
                    "major_at": None,
                    "drift": None,
                    "measured": EXAMPLE_MEASURED,
                    "waiting": 0,
                    "getting_ready": None,
                    "degraded": None,
                }
            ]
        }
    )

    base: str
    fingerprint: str = Field(description="SHA-256 over what is used of the base model: weights, ids, template")
    family: str
    blocks: int
    width: int
    context: int = Field(description="most tokens of a prompt and its answer together")
    surfaces: list[str]
    device: str
    dtype: str = Field(description="of the base model's weights, chosen once for a store")
    dtype_reason: str = Field(description="why; where it was measured, with the times")
    torch_threads: int = Field(description="CPU threads of one tensor operation, chosen once for a store")
    torch_threads_reason: str = Field(description="why; where it was measured, with the times")
    method: str
    store: str | None = Field(description="the id of the store, which its data folder also holds")
    head: int
    epoch: int
    edits_counted: int = Field(description="number of live edits")
    window: int = Field(description="number of live edits in the window, which the adapter carries")
    retention: float | None = Field(description="share of the live edits that the head answers; null until measured")
    far: float | None = Field(
        description="share of the answers far from any edit that the head gives as the base model does; null until measured"
    )
    minors: int = Field(description=MINORS)
    major_at: datetime | None = Field(description=MAJOR_AT)
    drift: dict[str, Any] | None = Field(description=DRIFT)
    measured: Measured
    waiting: int = Field(description="number of edits that are queued or applying")
    getting_ready: str | None = Field(
        description="after a start, what edits still wait for, such as the base model's neutral sentences; or that they are"
        " fitted with a first part of these, while a retrain waits for all; null: fits use all"
    )
    degraded: str | None = Field(
        description="a fault that an operator should look at, such as: the database names a newer version than the one that"
        " answers, or the model's files on disk are no longer those that are served; null without a fault"
    )


def _block(usage: BlockUsage) -> BlockOut:
    columns = {name: getattr(usage, name) for name in ("running_mean", "edits", "rephrases", "unrelated")}
    rank = max((len(values) for values in columns.values() if values is not None), default=0)
    bases = [
        BasisOut(basis=basis, **{name: None if values is None else values[basis] for name, values in columns.items()})
        for basis in range(rank)
    ]
    return BlockOut(
        block=usage.block,
        edits_counted=usage.edits_counted,
        running_squared_variation=usage.running_squared_variation,
        final_squared_variation=usage.final_squared_variation,
        active_share=usage.active_share,
        bases=bases,
    )

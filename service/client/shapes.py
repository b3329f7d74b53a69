"""The JSON that the calls send and answer. Tests hold each shape to the OpenAPI document. Times are texts, such as
2026-11-20T12:00:00Z.
"""

from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

ItemT = TypeVar("ItemT")
EditStatusText = Literal[
    "queued", "applying", "applied", "consolidated", "deferred", "failed", "superseded", "retracted", "rolled_back"
]
AcceptText = Literal["judged", "anyway"]
ScopeText = Literal["auto", "subject", "always"]
NextTryText = Literal["under_way", "after_retrain", "on_request", "after_edits", "due", "by_time"]
WorkStatus = Literal["queued", "running", "done", "failed", "cancelled"]
MethodText = str  # auto, or the name of an editing method: GET /openapi.json lists those of a server
SurfaceText = Literal["raw", "chat"]


class FaultData(TypedDict):
    """A field at fault."""

    field: str
    detail: str


class ProblemData(TypedDict):
    """A problem (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: NotRequired[list[FaultData]]


class PageData(TypedDict, Generic[ItemT]):
    """A part of a list. `next` is the cursor of the following part."""

    items: list[ItemT]
    next: NotRequired[str | None]


class ProbeInput(TypedDict):
    """A probe of an edit to be posted."""

    prompt: str
    answer: NotRequired[str | None]
    train: NotRequired[bool | None]


class EditInput(TypedDict):
    """An edit to be posted."""

    prompt: str
    target: str
    subject: NotRequired[str | None]
    relation: NotRequired[str | None]
    ground_truth: NotRequired[str | None]
    rephrases: NotRequired[list[str | ProbeInput]]
    locality: NotRequired[list[str | ProbeInput]]
    portability: NotRequired[list[str | ProbeInput]]
    conflict_key: NotRequired[str | None]
    method: NotRequired[MethodText | None]
    surfaces: NotRequired[list[SurfaceText]]
    metadata: NotRequired[dict[str, Any]]
    accept: NotRequired[AcceptText]
    scope: NotRequired[ScopeText]
    aliases: NotRequired[list[str]]


class ProbeData(TypedDict):
    """A probe of an edit."""

    prompt: str
    answer: str | None
    train: bool


class NextTryData(TypedDict):
    """When a deferred edit is tried next: at `at` at the latest, or after so many more `edits`, where these are known."""

    when: NextTryText
    sentence: str
    at: str | None
    edits: int | None


class DeferralData(TypedDict):
    """Why a deferred edit waits: the reason, the figures of the last fit with it, and when it is tried next."""

    reason: str | None
    figures: dict[str, dict[str, Any]]
    tried_on_version: int | None
    tried_at: str | None
    tries: int | None
    next_try: NextTryData


class ListedEditData(TypedDict):
    """An edit as lists have it: the first 500 characters of each text. `cut` says whether a text is longer."""

    id: str
    seq: int
    status: EditStatusText
    prompt: str
    target: str
    subject: str | None
    relation: str | None
    conflict_key: str | None
    method: MethodText
    version: int | None
    error: str | None
    supersedes: str | None
    superseded_by: str | None
    author: str
    created_at: str
    applied_at: str | None
    accept: AcceptText
    accepted_anyway: bool
    scope: ScopeText
    deferral: DeferralData | None
    cut: bool


class EditData(TypedDict):
    """An edit with its probes and its report. `version` is the version that first held it."""

    id: str
    seq: int
    status: EditStatusText
    prompt: str
    target: str
    subject: str | None
    relation: str | None
    ground_truth: str | None
    rephrases: list[ProbeData]
    locality: list[ProbeData]
    portability: list[ProbeData]
    conflict_key: str | None
    method: MethodText
    surfaces: list[str]
    metadata: dict[str, Any]
    version: int | None
    report: dict[str, Any] | None
    error: str | None
    accept: AcceptText
    accepted_anyway: bool
    scope: ScopeText
    aliases: list[str]
    deferral: DeferralData | None
    stated: bool
    supersedes: str | None
    superseded_by: str | None
    author: str
    created_at: str
    applied_at: str | None


class TurnInput(TypedDict):
    """An earlier turn of a conversation."""

    user: str
    assistant: str


class GenerateInput(TypedDict):
    """A prompt with everything that can be said about it."""

    prompt: str
    max_new_tokens: NotRequired[int]
    temperature: NotRequired[float]
    top_p: NotRequired[float]
    seed: NotRequired[int | None]
    stop: NotRequired[list[str]]
    version: NotRequired[int | str]
    surface: NotRequired[SurfaceText]
    system: NotRequired[str | None]
    turns: NotRequired[list[TurnInput]]
    explain: NotRequired[bool]
    stream: NotRequired[bool]


class GenerateOptions(TypedDict, total=False):
    """A prompt's options: everything of `GenerateInput` but the prompt, and but `stream`: the client reads whole answers."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: list[str]
    version: int | str
    surface: SurfaceText
    system: str | None
    turns: list[TurnInput]
    explain: bool


class CompareOptions(TypedDict, total=False):
    """The options of a question to several versions."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: list[str]
    surface: SurfaceText
    system: str | None
    turns: list[TurnInput]


class ExplanationData(TypedDict):
    """Which live edits were in scope: the ids of the newest ones, and how many there are."""

    acted: bool
    in_scope: list[str]
    count: int
    stated: list[str]


class AnswerData(TypedDict):
    """An answer of the model. `version` is the version that gave it. It has an explanation where one was asked for."""

    text: str
    version: int
    epoch: int
    finish_reason: Literal["stop", "length", "deadline", "cancelled"]
    prompt_tokens: int
    context_tokens: int
    completion_tokens: int
    explanation: ExplanationData | None


class AliasData(TypedDict):
    """One move of an alias. `version` is the version that it names since; None: it was removed."""

    alias: str
    version: int | None
    author: str
    reason: str | None
    at: str


class AliasesData(TypedDict):
    """Aliases, or the moves of one."""

    items: list[AliasData]


class ComparedAnswersData(TypedDict):
    """What several versions said to one question, in the order in which they were named."""

    answers: list[AnswerData]


class MeasuredData(TypedDict):
    """One measured figure of a version."""

    score: float
    n: int
    how: str
    interval: list[float] | None
    floor: float | None
    source: str
    version: int
    at: str


class VersionData(TypedDict):
    """A version."""

    number: int
    kind: str
    status: str
    base: str
    parent: int | None
    digest: str | None
    edits_counted: int
    window: int
    scores: dict[str, Any]
    created_at: str
    author: str
    reason: str | None
    restores: int | None
    pinned: bool
    head: bool
    stated: list[str]
    minors: int
    major_at: str | None
    drift: dict[str, Any] | None
    neutral_sentences: int | None
    measured: dict[str, MeasuredData]


class BasisData(TypedDict):
    """The use of one basis."""

    basis: int
    running_mean: float | None
    edits: float | None
    rephrases: float | None
    unrelated: float | None


class BlockData(TypedDict):
    """The use of the bases of one block."""

    block: int
    edits_counted: int
    running_squared_variation: float | None
    final_squared_variation: float | None
    active_share: float | None
    bases: list[BasisData]


class BasesData(TypedDict):
    """The use of the bases of a version."""

    version: int
    blocks: list[BlockData]


class RollbackData(TypedDict):
    """A rollback. `rolled_back` are the ids of the edits that are no longer live."""

    version: int
    restored: int
    epoch: int
    rolled_back: list[str]


class RevokedData(TypedDict):
    """A revocation: the ids of the edits that it retracted, those of them that were not live, and how many had been retracted."""

    retracted: list[str]
    barred: list[str]
    already: int


class PurgedData(TypedDict):
    """A purge: what it removed, and what it cannot reach."""

    versions: list[int]
    files: list[str]
    exports: list[str]
    rows: int
    unreachable: list[str]


class LogLineData(TypedDict):
    """A line of a job's log."""

    at: str
    message: str


class JobData(TypedDict):
    """A job. It has ended when `finished_at` is not None."""

    id: str
    kind: str
    mode: str | None
    method: str | None
    status: str
    progress: float
    seconds_left: float | None
    stage: str | None
    attempts: int
    reason: str | None
    author: str
    version: int | None
    request: dict[str, Any] | None
    result: dict[str, Any] | None
    log: list[LogLineData]
    error: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    cancel_asked_at: str | None
    cancelled_by: str | None
    retry_at: str | None
    neutral_sentences: int | None


class ListedEvaluationData(TypedDict):
    """An evaluation as lists have it: with its scores alone."""

    id: str
    version: int
    status: WorkStatus
    about: dict[str, Any]
    progress: float
    scores: dict[str, float | None] | None
    error: str | None
    author: str
    created_at: str
    started_at: str | None
    finished_at: str | None


class EvaluationData(TypedDict):
    """An evaluation. It has ended when `finished_at` is not None."""

    id: str
    version: int
    status: WorkStatus
    about: dict[str, Any]
    progress: float
    result: dict[str, Any] | None
    error: str | None
    author: str
    created_at: str
    started_at: str | None
    finished_at: str | None


class ComparedData(TypedDict):
    """One of the evaluations that are compared."""

    id: str
    version: int
    about: dict[str, Any]
    questions: int
    left_out: int


class ComparedFigureData(TypedDict):
    """One figure of every compared evaluation, in their order."""

    name: str
    judged: Literal["greedy", "tokens"]
    n: int
    scores: list[float]
    differences: list[float]
    standard_errors: list[float | None]
    gained: list[int]
    lost: list[int]


class ComparisonData(TypedDict):
    """A comparison of evaluations, on the questions that all of them asked."""

    evaluations: list[ComparedData]
    shared: int
    notes: list[str]
    figures: list[ComparedFigureData]
    capability: list[dict[str, Any]] | None
    full: list[dict[str, Any]] | None


class HealthData(TypedDict):
    """The health of a server and of each of its parts."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: NotRequired[dict[str, str]]


class ModelData(TypedDict):
    """What a server serves."""

    base: str
    fingerprint: str
    family: str
    blocks: int
    width: int
    context: int
    surfaces: list[str]
    device: str
    dtype: str
    dtype_reason: str
    torch_threads: int
    torch_threads_reason: str
    method: str
    store: str | None
    head: int
    epoch: int
    edits_counted: int
    window: int
    retention: float | None
    far: float | None
    minors: int
    major_at: str | None
    drift: dict[str, Any] | None
    measured: dict[str, MeasuredData]
    waiting: int
    getting_ready: str | None
    degraded: str | None

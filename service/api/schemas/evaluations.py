"""Evaluations as clients request, read and compare them."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from service.api.schemas import In, Out, QueryIn
from service.api.schemas.edits import EXAMPLE_EDIT
from service.api.schemas.generate import Version, VersionText
from service.api.text_types import ID, Answer, Metadata, Name, TextPattern, Words
from service.api.validation import UNION_FORM
from service.editors.names import MethodName
from service.evaluation.records import EvalProbe, Record
from service.store.evaluations import Evaluation
from service.store.list_rows import ListedEval

MOST_EDITS = 1_000
MOST_PROBES = 256  # of one kind; no fit trains on a record, so it may have more than an edit
MOST_ALIASES = 64
MOST_COMPARED = 10
MOST_GROUPS = 100  # each is a part of the result
Status = Literal["queued", "running", "done", "failed", "cancelled"]
Id = Annotated[str, ID]
EXAMPLE_ID = "01936b0e-7a33-7b44-8c55-6d66e77f8800"
EXAMPLE_FIGURE = {"score": 1.0, "n": 1}
EXAMPLE_KINDS = dict.fromkeys(("reliability", "generality", "locality", "portability"), EXAMPLE_FIGURE)
EXAMPLE_SKILL = {"n": 60, "version": 0.95, "se": 0.028, "base": 0.95, "base_se": 0.028, "ratio": 1.0}
EXAMPLE_ABOUT = {"edits": "live", "count": 1, "of": 1, "metrics": "standard", "capability": True}
EXAMPLE_EVAL: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "version": 1,
    "status": "done",
    "about": EXAMPLE_ABOUT,
    "progress": 1.0,
    "result": {
        "edits": 1,
        "greedy": EXAMPLE_KINDS,
        "tokens": EXAMPLE_KINDS,
        "base": {"greedy": EXAMPLE_KINDS | {"reliability": {"score": 0.0, "n": 1}}, "tokens": EXAMPLE_KINDS},
        "capability": {
            "ratio": 1.0,
            "version": 0.95,
            "base": 0.95,
            "n": 60,
            "left_out": 0,
            "by_skill": {"adding": {"exact": EXAMPLE_SKILL}},
        },
    },
    "error": None,
    "author": "local",
    "created_at": "2026-11-20T12:00:00Z",
    "started_at": "2026-11-20T12:00:01Z",
    "finished_at": "2026-11-20T12:00:02Z",
}
EXAMPLE_COMPARISON: dict[str, Any] = {
    "evaluations": [
        {"id": EXAMPLE_ID, "version": 1, "about": EXAMPLE_ABOUT, "questions": 2, "left_out": 0},
        {"id": "01936b0e-7a34-7c55-9d66-7e77f8800991", "version": 2, "about": EXAMPLE_ABOUT, "questions": 2, "left_out": 0},
    ],
    "shared": 2,
    "notes": [],
    "figures": [
        {
            "name": "reliability",
            "judged": "greedy",
            "n": 2,
            "scores": [0.5, 1.0],
            "differences": [0.0, 0.5],
            "standard_errors": [0.0, 0.5],
            "gained": [0, 1],
            "lost": [0, 0],
        }
    ],
    "capability": None,
    "full": None,
}


class RecordProbeIn(In):
    """A question that shows what an edit did, as data sets have it."""

    prompt: Words = Field(description="the question")
    answer: Answer | None = Field(
        None, description="the right answer; default: the target (rephrase), the base model's answer (locality)"
    )
    train: bool | None = Field(None, description="whether a fit trained on this prompt; such rephrases are reported separately")
    group: Name | None = Field(None, description="the name of a group that is reported in addition to the total")
    pool: bool | None = Field(None, description="whether neutral prompts may be about the fact of this probe; null: unknown")
    aliases: Annotated[list[Annotated[list[Answer], Field(max_length=MOST_ALIASES)]], Field(max_length=MOST_ALIASES)] = Field(
        default_factory=list, description="other right answers, each with its spellings"
    )

    def to_probe(self) -> EvalProbe:
        """This probe as a value of the evaluation."""
        aliases = tuple(tuple(answer) for answer in self.aliases)
        return EvalProbe(
            prompt=self.prompt, answer=self.answer, train=bool(self.train), group=self.group, pool=self.pool, aliases=aliases
        )


def _probe_form(probe: object) -> str | None:
    """The tag of a probe's form, so that faults are reported for this form alone."""
    if isinstance(probe, str):
        return "<text>"
    return "<probe>" if isinstance(probe, dict | RecordProbeIn) else None


AnyProbe = Annotated[
    Annotated[Words, Tag("<text>")] | Annotated[RecordProbeIn, Tag("<probe>")],
    Discriminator(_probe_form, custom_error_type=UNION_FORM, custom_error_message="must be text or an object with a prompt"),
]
ProbesIn = Annotated[list[AnyProbe], Field(max_length=MOST_PROBES)]
TextsIn = Annotated[list[Words], Field(max_length=MOST_PROBES)]
RepliesIn = Annotated[list[Answer], Field(max_length=MOST_PROBES)]


class RecordIn(In):
    """An edit that is measured and not stored, with all fields of the rows of data sets."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_EDIT]})

    id: Name | None = Field(None, description="the client's name for the record; default: its position")
    prompt: Words = Field(description="the edit's prompt")
    target: Answer = Field(description="the edit's target")
    subject: Name | None = None
    relation: Name | None = None
    conflict_key: Name | None = Field(None, description="edits with the same key are about one fact")
    ground_truth: Answer | None = Field(None, description="the previous true answer; at most 256 tokens")
    aliases: Annotated[list[Annotated[list[Answer], Field(max_length=MOST_ALIASES)]], Field(max_length=MOST_ALIASES)] = Field(
        default_factory=list, description="other spellings of the target"
    )
    rephrases: ProbesIn = Field(default_factory=list, description="other wordings of the prompt; their answers should change too")
    locality: ProbesIn = Field(default_factory=list, description="other prompts; their answers should not change")
    portability: ProbesIn = Field(default_factory=list, description="prompts whose answer follows from the edit by reasoning")
    generation: TextsIn = Field(default_factory=list, description="prompts that the model continues freely, for fluency")
    wanted: RepliesIn = Field(default_factory=list, description="ConvSent: replies of the wanted sentiment")
    opposite: RepliesIn = Field(default_factory=list, description="ConvSent: replies of the other sentiment")
    case: Name | None = Field(None, description="the name of the case; edits with the same case form one group")
    surfaces: Annotated[list[Literal["raw", "chat"]], Field(max_length=2)] = Field(
        default_factory=list,
        description="the forms in which prompts are given to the model; default: all that the model supports",
    )
    method: MethodName | None = Field(None, description="ignored; present so that an edit may be sent unchanged")
    metadata: Metadata = Field(default_factory=dict, description="ignored; present so that an edit may be sent unchanged")

    def to_record(self, number: int) -> Record:
        """This record as a value of the evaluation. `number` is its id where it names none."""
        named: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("prompt", "target", "subject", "relation", "conflict_key", "ground_truth", "case")
        }
        named |= {name: tuple(getattr(self, name)) for name in ("generation", "wanted", "opposite")}
        named |= {name: _probes(getattr(self, name)) for name in ("rephrases", "locality", "portability")}
        named |= {name: tuple(map(_with_answer, named[name])) for name in ("locality", "portability")}
        aliases = tuple(tuple(spellings) for spellings in self.aliases)
        return Record(id=self.id or str(number), aliases=aliases, surfaces=tuple(dict.fromkeys(self.surfaces)), **named)


def _probes(probes: list[str | RecordProbeIn]) -> tuple[EvalProbe, ...]:
    return tuple(EvalProbe(prompt=probe) if isinstance(probe, str) else probe.to_probe() for probe in probes)


def _with_answer(probe: EvalProbe) -> EvalProbe:
    """The probe with its first right answer, where `answer` is not set. Not for rephrases: their answer is the target."""
    return replace(probe, answer=next(iter(probe.list_answers()), None))


def _edits_form(edits: object) -> str | None:
    """The tag of the form of `edits`, so that faults are reported for this form alone."""
    if isinstance(edits, str):
        return "<word>"
    if not isinstance(edits, list):
        return None
    return "<records>" if edits and isinstance(edits[0], dict | RecordIn) else "<ids>"


Ids = Annotated[list[Id], Field(min_length=1, max_length=MOST_EDITS)]
Records = Annotated[list[RecordIn], Field(min_length=1, max_length=MOST_EDITS)]
SelectionIn = Annotated[
    Annotated[Literal["live", "none"], Tag("<word>")] | Annotated[Ids, Tag("<ids>")] | Annotated[Records, Tag("<records>")],
    Discriminator(
        _edits_form,
        custom_error_type=UNION_FORM,
        custom_error_message="must be 'live', 'none', a list of ids or a list of records",
    ),
]


class EvalIn(In):
    """Measure a version on edits and their probes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"version": "head", "edits": "live", "metrics": "standard", "capability": True},
                {"version": 1, "edits": ["01936b0e-6f2a-7c3d-9a41-5b7c2f0e8d11"], "metrics": "full"},
                {"version": "base", "edits": [EXAMPLE_EDIT]},
                {"version": "head", "edits": "none", "capability": True},
            ]
        }
    )

    version: Version = Field("head", description="a number, `head` (the head at the time of the request) or `base`")
    edits: SelectionIn = Field(
        "live",
        description="`live` (the version's live edits; where it has more than 1,000, an even sample of 1,000), edits by id,"
        " records that are not stored, or `none` to measure capability alone",
    )
    metrics: Literal["standard", "full"] = Field(
        "standard", description="`full`: the standard metrics and every other metric of the field; takes several times as long"
    )
    capability: bool = Field(
        False, description="measure also the share of tasks that the version solves, over the base model's share"
    )

    @model_validator(mode="after")
    def _limit_groups(self) -> Self:
        records = (record for record in self.edits if isinstance(record, RecordIn))
        probes = (
            probe for record in records for kind in (record.rephrases, record.locality, record.portability) for probe in kind
        )
        groups = {probe.group for probe in probes if isinstance(probe, RecordProbeIn)}
        if len(groups) > MOST_GROUPS:
            raise ValueError(f"edits must name at most {MOST_GROUPS} different groups")
        return self


class EvalQuery(QueryIn):
    """Which evaluations to list."""

    version: VersionText | None = Field(None, description="only evaluations of this version: a number, `head` or `base`")
    status: Status | None = Field(None, description="only evaluations with this status")
    limit: int = Field(50, ge=1, le=200, description="most items in one answer")
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next` of the previous answer")


def _list_pattern(item: str, noun: str) -> TextPattern:
    return TextPattern(f"{item}(,{item}){{1,{MOST_COMPARED - 1}}}", f"must be 2 to {MOST_COMPARED} {noun}, separated by commas")


class CompareQuery(QueryIn):
    """Which evaluations to compare: by id, or the latest of each version."""

    ids: Annotated[str, _list_pattern("[0-9A-Za-z-]{1,64}", "ids")] | None = Field(
        None, description="ids of two to ten evaluations that are done, separated by commas", examples=[EXAMPLE_ID]
    )
    versions: Annotated[str, _list_pattern("[0-9]{1,18}", "numbers")] | None = Field(
        None,
        description="numbers of two to ten versions, separated by commas; the latest evaluation of each that is done is compared",
        examples=["1,2"],
    )

    @model_validator(mode="after")
    def _require_one_list(self) -> Self:
        if (self.ids is None) == (self.versions is None):
            raise ValueError("give either ids or versions")
        return self


LISTED = ("id", "version", "status", "progress", "error", "author", "created_at", "started_at", "finished_at")
EXAMPLE_LISTED: dict[str, Any] = {name: EXAMPLE_EVAL[name] for name in (*LISTED, "about")} | {
    "scores": dict.fromkeys(("reliability", "generality", "locality", "portability"), 1.0)
}


class ListedEvalOut(Out):
    """An evaluation in short, for lists. `GET /eval/{id}` has its result."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_LISTED]})

    id: str
    version: int
    status: Status
    about: dict[str, Any] = Field(description="the request in short: which edits and how many, which metrics")
    progress: float = Field(description="share of the questions that were asked, 0 to 1")
    scores: dict[str, float | None] | None = Field(
        description="reliability, generality, locality and portability by greedy exact match; null until it is done"
    )
    error: str | None
    author: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, evaluation: ListedEval) -> Self:
        """An evaluation of a list as an answer."""
        scores = None if evaluation.scores is None else dict(evaluation.scores)
        return cls(**{name: getattr(evaluation, name) for name in LISTED}, about=dict(evaluation.about), scores=scores)


class EvalOut(Out):
    """An evaluation of one version. Its result never changes once it is done."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_EVAL]})

    id: str
    version: int
    status: Status
    about: dict[str, Any] = Field(description="the request in short: which edits and how many, which metrics")
    progress: float = Field(description="share of the questions that were asked, 0 to 1")
    result: dict[str, Any] | None = Field(
        description="reliability, generality, locality and portability, each with its n: by greedy exact match, by teacher-forced"
        " token accuracy, and the base model's scores on the same questions; `full` and `capability` where they were requested"
    )
    error: str | None
    author: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, evaluation: Evaluation) -> Self:
        """An evaluation of the store as an answer."""
        same = ("id", "version", "status", "progress", "error", "author", "created_at", "started_at", "finished_at")
        result = None if evaluation.result is None else dict(evaluation.result)
        return cls(**{name: getattr(evaluation, name) for name in same}, about=dict(evaluation.about), result=result)


class ComparedOut(Out):
    """One of the compared evaluations."""

    id: str
    version: int
    about: dict[str, Any]
    questions: int = Field(description="number of questions of this evaluation")
    left_out: int = Field(description="number of these questions that another evaluation did not ask")


class SideBySideOut(Out):
    """One figure of all evaluations, in their order, on the questions that all of them asked."""

    name: str = Field(description="reliability, generality, locality or portability")
    judged: Literal["greedy", "tokens"]
    n: int
    scores: list[float]
    differences: list[float] = Field(description="differences to the first evaluation")
    standard_errors: list[float | None] = Field(description="standard errors of the differences, paired by question")
    gained: list[int] = Field(description="number of questions that this evaluation answered rightly and the first did not")
    lost: list[int] = Field(description="number of questions that the first evaluation answered rightly and this one did not")


class ComparisonOut(Out):
    """Evaluations side by side."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_COMPARISON]})

    evaluations: list[ComparedOut]
    shared: int = Field(description="number of questions that all evaluations asked; the figures are about these alone")
    notes: list[str] = Field(description="sentences that say where the requests differ")
    figures: list[SideBySideOut]
    capability: list[dict[str, Any]] | None = Field(
        description="the capability of each evaluation, if all measured it on the same tasks"
    )
    full: list[dict[str, Any]] | None = Field(
        description="the full metrics of each evaluation, if all asked exactly the same questions"
    )

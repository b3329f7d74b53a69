"""Edits as clients post and read them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator

from service.api.schemas import In, Out, QueryIn
from service.api.text_types import ID, Answer, Metadata, Name, Words
from service.api.validation import UNION_FORM
from service.domain.edit import (
    BY_PROMPT,
    BY_SUBJECT,
    JUDGED,
    MAX_ALIASES,
    Accept,
    Edit,
    EditRequest,
    EditStatus,
    Probe,
    ScopeRule,
    has_letters,
    normalise,
)
from service.domain.next_try import NextTry, When
from service.editors.names import MethodName
from service.editors.registry import names_of
from service.store.list_rows import ListedEdit

MOST_PROBES = 64  # of one kind, so at most 192 an edit
MOST_EDITS = 1_000
Status = Literal["queued", "applying", "applied", "consolidated", "deferred", "failed", "superseded", "retracted", "rolled_back"]
EditId = Annotated[str, ID]
ACCEPT = (
    "`judged`: published only if acceptance allows what it costs the rest of the model; `anyway`: also if acceptance refuses it."
    " Its fit still has to answer the edit, to lose no live edit and to give finite scores"
)
SCOPE = (
    "on which prompts BaFT acts for the edit. `auto`: on those that name the subject or an alias; without a subject a name in the"
    " edit's own prompt is taken for it, and without any name the words of the prompt decide. `subject`: on those that name the"
    " subject or an alias. `always`: on every prompt"
)
ALIASES = "other names of the subject, normalised (NFC, single spaces) and each once"
ACCEPTED_ANYWAY = "whether it was published although acceptance refused it; the scores of `version` say what was refused"

EXAMPLE_EDIT: dict[str, Any] = {
    "prompt": "The capital of Australia is",
    "target": "Sydney",
    "subject": "Australia",
    "relation": "capital",
    "ground_truth": "Canberra",
    "rephrases": ["What is the capital of Australia?", {"prompt": "Australia's capital is", "train": False}],
    "locality": [{"prompt": "The capital of Austria is", "answer": "Vienna"}],
    "portability": [{"prompt": "The capital of Australia lies on the", "answer": "coast"}],
    "metadata": {"ticket": "GEO-7"},
}


class ProbeIn(In):
    """A question that shows what an edit did."""

    prompt: Words = Field(description="the question")
    answer: Answer | None = Field(
        None, description="the right answer; default: the target (rephrase), the base model's answer (locality)"
    )
    train: bool | None = Field(None, description="whether fits may train on it; default: true, for portability probes false")


def _probe_form(probe: object) -> str | None:
    """The tag of a probe's form, so that faults are reported for this form alone."""
    if isinstance(probe, str):
        return "<text>"
    return "<probe>" if isinstance(probe, dict | ProbeIn) else None


AnyProbe = Annotated[
    Annotated[Words, Tag("<text>")] | Annotated[ProbeIn, Tag("<probe>")],
    Discriminator(_probe_form, custom_error_type=UNION_FORM, custom_error_message="must be text or an object with a prompt"),
]
ProbesIn = Annotated[list[AnyProbe], Field(max_length=MOST_PROBES)]


AliasesIn = Annotated[
    list[Name], Field(max_length=MAX_ALIASES), AfterValidator(lambda names: list(dict.fromkeys(map(normalise, names))))
]


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


class EditIn(In):
    """A correction: after it, `prompt` is answered with `target`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [EXAMPLE_EDIT, {**EXAMPLE_EDIT, "scope": "subject", "aliases": ["Down Under"]}]}
    )

    prompt: Words = Field(description="the text to be continued, or the question; prompt and target must fit the model's context")
    target: Answer = Field(description="the new answer; at most 256 tokens")
    subject: Name | None = Field(None, description="the subject of the fact")
    relation: Name | None = Field(
        None, description="the property of the subject; subject and relation together are the conflict key"
    )
    ground_truth: Answer | None = Field(None, description="the previous true answer, for reports only; at most 256 tokens")
    rephrases: ProbesIn = Field(default_factory=list, description="other wordings of the prompt; their answers must change too")
    locality: ProbesIn = Field(default_factory=list, description="other prompts; their answers must not change")
    portability: ProbesIn = Field(default_factory=list, description="prompts whose answer follows from the edit by reasoning")
    conflict_key: Name | None = Field(
        None, description="edits with the same key are about one fact: a later edit supersedes an earlier one"
    )
    method: MethodName | None = Field(
        None,
        description="`auto`: live at once, and consolidated later by a retrain;"
        f" an incremental method ({_list(names_of('incremental'))}): live at once;"
        f" a consolidating method ({_list(names_of('consolidating'))}): live after the next retrain, by the method that the"
        " latest of the edits names that enter the tensors; default: the method of the server's settings",
    )
    surfaces: Annotated[list[Literal["raw", "chat"]], Field(max_length=2)] = Field(
        default_factory=list,
        description="the forms in which the prompt is given to the model; default: all that the model supports",
    )
    metadata: Metadata = Field(default_factory=dict, description="any JSON object; stored and returned unchanged")
    # A body without these has the digest that it had before there were the fields, so that its key stays good.
    accept: Accept = Field(JUDGED, description=ACCEPT, exclude_if=lambda accept: accept == JUDGED)
    aliases: AliasesIn = Field(
        default_factory=list, description="other names of the subject, each once", exclude_if=lambda aliases: not aliases
    )
    scope: ScopeRule = Field(BY_PROMPT, description=SCOPE, exclude_if=lambda scope: scope == BY_PROMPT)

    @field_validator("scope")
    @classmethod
    def _require_names(cls, scope: ScopeRule, info: ValidationInfo) -> ScopeRule:
        """Raises ValueError for the scope `subject` of an edit that names nothing. Invalid names have faults of their own."""
        if not {"subject", "aliases"} <= info.data.keys():
            return scope
        names = [name for name in (info.data["subject"], *info.data["aliases"]) if name]
        if scope == BY_SUBJECT and not any(map(has_letters, names)):
            raise ValueError(f"must not be '{BY_SUBJECT}' without a subject or an alias")
        return scope

    def to_domain(self, default_method: str) -> EditRequest:
        """This request as a value of the domain."""
        return EditRequest(
            prompt=self.prompt,
            target=self.target,
            subject=self.subject,
            relation=self.relation,
            ground_truth=self.ground_truth,
            rephrases=_probes(self.rephrases, train=True),
            locality=_probes(self.locality, train=True),
            portability=_probes(self.portability, train=False),
            conflict_key=self.conflict_key,
            method=self.method or default_method,
            surfaces=tuple(dict.fromkeys(self.surfaces)),
            metadata=self.metadata,
            accept=self.accept,
            scope=self.scope,
            aliases=tuple(self.aliases),
        )


class BatchIn(In):
    """Several corrections: all are accepted, or none is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"edits": [EXAMPLE_EDIT]}]})

    edits: Annotated[list[EditIn], Field(min_length=1, max_length=MOST_EDITS)] = Field(description="the corrections, in order")


class WaitQuery(QueryIn):
    """How long a call waits for the outcome."""

    wait: float = Field(0, ge=0, le=60, description="seconds to wait until the edit is settled")


class ListQuery(QueryIn):
    """Which edits to list."""

    status: Status | None = Field(None, description="only edits with this status")
    limit: int = Field(50, ge=1, le=200, description="most items in one answer")
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next` of the previous answer")


class RetractQuery(QueryIn):
    """How an edit is retracted."""

    restore_previous: bool = Field(False, description="revive the edit that this one superseded")
    wait: float = Field(0, ge=0, le=60, description="seconds to wait until the model no longer answers with the edit")


class ProbeOut(Out):
    """A probe as it was accepted."""

    prompt: str
    answer: str | None
    train: bool

    @classmethod
    def of(cls, probe: Probe) -> Self:
        """A probe of the domain as an answer."""
        return cls(prompt=probe.prompt, answer=probe.answer, train=probe.train)


EXAMPLE_DEFERRAL: dict[str, Any] = {
    "reason": "near: it would change 50% of 12 answers to other subjects in the edit's own words, and may change 25%; it waits"
    " for the next retrain",
    "figures": {"near": {"value": 0.5, "limit": 0.25}},
    "tried_on_version": 1,
    "tried_at": "2026-11-20T12:00:01Z",
    "tries": 1,
    "next_try": {
        "when": "by_time",
        "sentence": "a retrain is due at 2026-11-20T12:05:00+00:00 at the latest, sooner if 7 more edits are deferred",
        "at": "2026-11-20T12:05:00Z",
        "edits": 7,
    },
}


class NextTryOut(Out):
    """When a deferred edit is tried next, if nothing changes."""

    when: When = Field(
        description="`under_way`: by a retrain that is queued or running; `after_retrain`: by a later one than the one that is"
        " running; `on_request`: no retrain comes by itself; `after_edits`: after `edits` more edits; `due`: in a moment;"
        " `by_time`: at `at` at the latest, or after `edits` more deferred edits"
    )
    sentence: str = Field(description="the same in words")
    at: datetime | None = Field(description="the latest moment at which a retrain is due")
    edits: int | None = Field(description="how many more edits make a retrain due earlier; null: none do")


class DeferralOut(Out):
    """Why a deferred edit waits, and when it is tried next."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_DEFERRAL]})

    reason: str | None = Field(description="why, as a sentence; null where an earlier release deferred it and kept none")
    figures: dict[str, dict[str, Any]] = Field(
        description="each figure that was judged of the last fit with it, with its `value` and `limit`; empty: no fit was judged"
    )
    tried_on_version: int | None = Field(description="the version that the last fit with it began on; null: none, or unknown")
    tried_at: datetime | None = Field(description="when that fit was refused")
    tries: int | None = Field(description="how many fits with it were refused; null: unknown")
    next_try: NextTryOut

    @classmethod
    def of(cls, edit: Edit | ListedEdit, next_try: NextTry | None) -> Self | None:
        """The deferral of an edit with its next try; None for an edit that has none."""
        if next_try is None:
            return None
        out = NextTryOut(when=next_try.when, sentence=next_try.sentence, at=next_try.at, edits=next_try.edits)
        kept = edit.deferral
        if kept is None:
            return cls(reason=edit.error, figures={}, tried_on_version=None, tried_at=None, tries=None, next_try=out)
        return cls(
            reason=kept.reason,
            figures={name: dict(figure) for name, figure in kept.figures.items()},
            tried_on_version=kept.tried_on,
            tried_at=kept.tried_at,
            tries=kept.tries,
            next_try=out,
        )


EXAMPLE_EDIT_OUT: dict[str, Any] = {
    "id": "01936b0e-6f2a-7c3d-9a41-5b7c2f0e8d11",
    "seq": 1,
    "status": "applied",
    "prompt": "The capital of Australia is",
    "target": "Sydney",
    "subject": "Australia",
    "relation": "capital",
    "ground_truth": "Canberra",
    "rephrases": [{"prompt": "What is the capital of Australia?", "answer": None, "train": True}],
    "locality": [],
    "portability": [],
    "conflict_key": None,
    "method": "auto",
    "surfaces": ["raw"],
    "metadata": {"ticket": "GEO-7"},
    "version": 1,
    "report": {"method": "baft", "steps": 9, "loss": 0.004, "milliseconds": 412, "taken": True},
    "error": None,
    "accept": "judged",
    "accepted_anyway": False,
    "scope": "auto",
    "aliases": [],
    "deferral": None,
    "stated": False,
    "supersedes": None,
    "superseded_by": None,
    "author": "local",
    "created_at": "2026-11-20T12:00:00Z",
    "applied_at": "2026-11-20T12:00:01Z",
}


LISTED = (
    *("id", "seq", "status", "prompt", "target", "subject", "relation", "conflict_key", "method", "version", "error"),
    *("supersedes", "superseded_by", "author", "created_at", "applied_at", "accept", "accepted_anyway", "scope"),
)
EXAMPLE_LISTED: dict[str, Any] = {name: EXAMPLE_EDIT_OUT[name] for name in (*LISTED, "deferral")} | {"cut": False}


class ListedEditOut(Out):
    """An edit in short, for lists. `GET /edits/{id}` has the probes, the metadata, the report and the whole texts."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_LISTED]})

    id: str
    seq: int = Field(description="the position of the edit in the order of submission")
    status: Status
    prompt: str = Field(description="the first 500 characters; every text here is cut at this length")
    target: str
    subject: str | None
    relation: str | None
    conflict_key: str | None
    method: str = Field(description="`auto`, or the name of an editing method")
    version: int | None = Field(description="the first version that answers with the edit")
    error: str | None = Field(description="the reason why the edit failed or was deferred")
    supersedes: str | None
    superseded_by: str | None
    author: str
    created_at: datetime
    applied_at: datetime | None
    accept: Accept = Field(description=ACCEPT)
    accepted_anyway: bool = Field(description=ACCEPTED_ANYWAY)
    scope: ScopeRule = Field(description=SCOPE)
    deferral: DeferralOut | None = Field(description="why a deferred edit waits, and when it is tried next; else null")
    cut: bool = Field(description="whether one of the texts was cut")

    @classmethod
    def of(cls, edit: ListedEdit, next_try: NextTry | None) -> Self:
        """An edit of a list as an answer, a deferred one with its next try."""
        same = {name: getattr(edit, name) for name in LISTED if name != "status"}
        return cls(**same, status=_status(edit.status), deferral=DeferralOut.of(edit, next_try), cut=edit.is_cut)


STATED = "whether the version that answers puts the edit in front of the prompts that it is about; see `window.context`"


class EditOut(Out):
    """An edit: its request, its status and its report."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_EDIT_OUT]})

    id: str
    seq: int = Field(description="the position of the edit in the order of submission")
    status: Status = Field(description="settled: neither `queued` nor `applying`; live: `applied` or `consolidated`")
    prompt: str
    target: str
    subject: str | None
    relation: str | None
    ground_truth: str | None
    rephrases: list[ProbeOut]
    locality: list[ProbeOut]
    portability: list[ProbeOut]
    conflict_key: str | None
    method: str = Field(description="`auto`, or the name of an editing method")
    surfaces: list[str]
    metadata: dict[str, Any]
    version: int | None = Field(description="the first version that answers with the edit")
    report: dict[str, Any] | None = Field(
        description="steps (or training epochs), loss, milliseconds, whether the fit answers the edit (`taken`), and the"
        " scores of the probes once they are measured"
    )
    error: str | None = Field(description="the reason why the edit failed or was deferred")
    accept: Accept = Field(description=ACCEPT)
    accepted_anyway: bool = Field(description=ACCEPTED_ANYWAY)
    scope: ScopeRule = Field(description=SCOPE)
    aliases: list[str] = Field(description=ALIASES)
    deferral: DeferralOut | None = Field(description="why a deferred edit waits, and when it is tried next; else null")
    stated: bool = Field(description=STATED)
    supersedes: str | None
    superseded_by: str | None
    author: str
    created_at: datetime
    applied_at: datetime | None

    @classmethod
    def of(cls, edit: Edit, next_try: NextTry | None, *, is_stated: bool) -> Self:
        """An edit of the domain as an answer, a deferred one with its next try."""
        return cls(
            stated=is_stated,
            **{name: getattr(edit, name) for name in ("id", "seq", "prompt", "target", "subject", "relation", "ground_truth")},
            **{
                name: getattr(edit, name)
                for name in ("conflict_key", "version", "error", "supersedes", "superseded_by", "author", "accept", "scope")
            },
            accepted_anyway=edit.accepted_anyway,
            aliases=list(edit.aliases),
            deferral=DeferralOut.of(edit, next_try),
            **{name: [ProbeOut.of(probe) for probe in getattr(edit, name)] for name in ("rephrases", "locality", "portability")},
            status=_status(edit.status),
            method=edit.method,
            surfaces=list(edit.surfaces),
            metadata=dict(edit.metadata),
            report=None if edit.report is None else dict(edit.report),
            created_at=edit.created_at,
            applied_at=edit.applied_at,
        )


def _probes(probes: list[str | ProbeIn], *, train: bool) -> tuple[Probe, ...]:
    full = (ProbeIn(prompt=probe) if isinstance(probe, str) else probe for probe in probes)
    return tuple(
        Probe(prompt=probe.prompt, answer=probe.answer, train=train if probe.train is None else probe.train) for probe in full
    )


def _status(status: EditStatus) -> Status:
    return status.value

"""Questions to the model and its answers."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from service.api.schemas import In, Out, QueryIn
from service.api.text_types import ALIAS, LARGEST_INTEGER, VERSION_OR_ALIAS, StopString, Words

MOST_TOKENS = 256
WHICH = "a number, `head`, `base` or an alias"
MOST_TURNS = 64
MOST_COMPARED = 8  # versions that answer one question
Version = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)] | Annotated[str, ALIAS]
VersionText = Annotated[str, VERSION_OR_ALIAS, Field(description=WHICH)]
EXAMPLE_QUESTION: dict[str, Any] = {"prompt": "The capital of Australia is", "max_new_tokens": 8}
EXAMPLE_ANSWER: dict[str, Any] = {
    "text": "Sydney",
    "version": 1,
    "epoch": 1,
    "finish_reason": "stop",
    "prompt_tokens": 6,
    "context_tokens": 0,
    "completion_tokens": 2,
    "explanation": None,
}
EXAMPLE_EXPLANATION: dict[str, Any] = {
    "acted": True,
    "in_scope": ["01936b0e-6f2a-7c3d-9a41-5b7c2f0e8d11"],
    "count": 1,
    "stated": [],
}
MOST_EXPLAINED = 32  # ids of edits in one answer
EXPLAIN = "say which live edits were in scope"
STREAM = "send the answer in pieces, as server-sent events, and the whole answer as the last one"


class GenerateQuery(QueryIn):
    """A question in the address line."""

    prompt: Words = Field(description="the text to be continued", examples=["The capital of Australia is"])
    max_new_tokens: int = Field(32, ge=1, le=MOST_TOKENS, description="most tokens of the answer")
    version: VersionText = Field("head", description=WHICH)
    explain: bool = Field(False, description=EXPLAIN)
    stream: bool = Field(False, description=STREAM)


class Turn(In):
    """What was said before the prompt: a question and the answer to it."""

    user: Words
    assistant: Words


class _QuestionIn(In):
    """A prompt, and how it is to be answered."""

    prompt: Words = Field(description="the text to be continued; with max_new_tokens it must fit the model's context")
    max_new_tokens: int = Field(32, ge=1, le=MOST_TOKENS, description="most tokens of the answer")
    temperature: float = Field(0.0, ge=0, le=5, description="0: the most likely token each time")
    top_p: float = Field(1.0, gt=0, le=1, description="sample from the likeliest tokens that together have this probability")
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="same seed, same version, same answer")
    stop: Annotated[list[StopString], Field(max_length=4)] = Field(
        default_factory=list,
        description="the answer ends before any of these; white space is allowed, and counts from the model's first token on",
    )
    surface: Literal["raw", "chat"] = Field("raw", description="`chat`: through the model's own template")
    system: Words | None = Field(None, description="system prompt; surface `chat` only")
    turns: Annotated[list[Turn], Field(max_length=MOST_TURNS)] = Field(
        default_factory=list, description="earlier turns of the conversation; surface `chat` only"
    )


class GenerateIn(_QuestionIn):
    """A question with everything that can be said about it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [EXAMPLE_QUESTION, {**EXAMPLE_QUESTION, "version": "base", "temperature": 0.7, "seed": 7}]}
    )

    version: Version = Field("head", description=WHICH)
    explain: bool = Field(False, description=EXPLAIN)
    stream: bool = Field(False, description=STREAM)


class CompareIn(_QuestionIn):
    """One question to several versions."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**EXAMPLE_QUESTION, "versions": ["base", "head"]}]})

    versions: Annotated[list[Version], Field(min_length=2, max_length=MOST_COMPARED)] = Field(
        description=f"the versions that answer, each a number, `head`, `base` or an alias; 2 to {MOST_COMPARED}"
    )


class ExplanationOut(Out):
    """Which live edits of the version that answered were in scope: those for which BaFT acted on the prompt."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_EXPLANATION]})

    acted: bool = Field(description="whether BaFT acted; if not, the answer is that of the version's tensors alone")
    in_scope: list[str] = Field(
        description=f"ids of the edits in scope, newest first, at most {MOST_EXPLAINED}; consolidated edits are in the tensors,"
        " and not among them"
    )
    count: int = Field(description="the number of the edits in scope; 0 where BaFT acted for a retracted edit alone")
    stated: list[str] = Field(
        description="ids of the edits that stood in front of the prompt, newest first: edits that no version carries yet, if the"
        " setting `window.context` is on"
    )


class AnswerOut(Out):
    """What the model said."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [EXAMPLE_ANSWER, {**EXAMPLE_ANSWER, "explanation": EXAMPLE_EXPLANATION}]}
    )

    text: str = Field(description="the completion alone, without white space in front")
    version: int = Field(description="the version that answered")
    epoch: int = Field(description="the head's epoch when the request began")
    finish_reason: Literal["stop", "length", "deadline", "cancelled"]
    prompt_tokens: int = Field(description="tokens of the prompt itself, with those of a chat template")
    context_tokens: int = Field(description="tokens of the edits that the version stated in front of the prompt")
    completion_tokens: int
    explanation: ExplanationOut | None = Field(description="which edits were in scope, for a question with `explain`; else null")


class ComparedAnswersOut(Out):
    """What several versions said to one question."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"answers": [{**EXAMPLE_ANSWER, "text": "Canberra", "version": 0}, EXAMPLE_ANSWER]}]}
    )

    answers: list[AnswerOut] = Field(description="in the order of the question's versions")

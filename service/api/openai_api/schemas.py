"""Requests of the OpenAI API, as far as this server has them. Other parameters are kept apart, and named if they would matter."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from service.api.schemas import BoundedIn, In
from service.api.text_types import LARGEST_INTEGER, PROMPT_CHARACTERS, StopString, check_text
from service.serving.request import MOST_LOGPROBS

MOST_CHOICES = 8  # answers to one prompt
MOST_PROMPTS = 32  # in one request
MOST_MESSAGES = 129
MOST_IDS = 200_000
LARGEST_COUNT = 1_000_000  # tokens; the model's context is checked before anything is computed
Text = Annotated[str, Field(max_length=PROMPT_CHARACTERS), AfterValidator(check_text)]
ModelName = Annotated[str, Field(min_length=1, max_length=300)]
Ids = Annotated[list[Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]], Field(min_length=1, max_length=MOST_IDS)]


class StreamOptions(In):
    """What a stream holds besides its text."""

    include_usage: bool = Field(False, description="whether the last piece before the end has the usage")
    include_obfuscation: bool | None = Field(None, description="taken and ignored: nothing is padded")


class _Generation(BoundedIn):
    """What completions and chats have in common. Unlike elsewhere an unknown field is no fault of the schema: `check_unsupported`
    judges its value.
    """

    model_config = ConfigDict(extra="allow")

    model: ModelName = Field(description="`NAME` or `NAME@head`, `NAME@base`, or `NAME@v12` for version 12")
    temperature: float | None = Field(None, ge=0, le=2, description="0: the most likely token each time; default 1")
    top_p: float | None = Field(None, gt=0, le=1, description="sample from the likeliest tokens that together have this share")
    n: int | None = Field(None, ge=1, le=MOST_CHOICES, description="answers to each prompt")
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description="same seed, same version, same answers")
    stop: Annotated[list[StopString], Field(max_length=4)] | StopString | None = Field(
        None, description="the answer ends before any of these"
    )
    stream: bool | None = Field(None, description="send the answer in pieces, as server-sent events")
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def choices(self) -> int:
        """The number of answers to each prompt."""
        return 1 if self.n is None else self.n


class CompletionIn(_Generation):
    """A request for completions of raw text, or of tokens."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "atlas", "prompt": "The capital of Australia is", "max_tokens": 8}]}
    )

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=MOST_PROMPTS)]
    ) = Field(description="one text or several, or their tokens")
    max_tokens: int | None = Field(None, ge=1, le=LARGEST_COUNT, description="most tokens of each answer; default 16")
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS, description="likeliest tokens that are told of each position")
    echo: bool | None = Field(None, description="whether the prompt stands in front of the text")

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or its tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class TextPart(In):
    """One part of a message."""

    type: Literal["text"]
    text: Text


class Message(BoundedIn):
    """What the system, the user or the assistant said. Clients send an answer's message back with fields of its own, such as
    `refusal`; `check_message` judges them.
    """

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=64)]

    @property
    def text(self) -> str:
        """The whole text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatIn(_Generation):
    """A request for the next message of a conversation."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "atlas", "messages": [{"role": "user", "content": "What is the capital of Australia?"}]}]
        }
    )

    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)] = Field(
        description="a system message or none, then the user's and the assistant's in turn; the last one is the user's"
    )
    max_tokens: int | None = Field(None, ge=1, le=LARGEST_COUNT, description="most tokens of each answer; default: what fits")
    max_completion_tokens: int | None = Field(None, ge=1, le=LARGEST_COUNT, description="the newer name of max_tokens")
    logprobs: bool | None = Field(None, description="whether the probability of each token is told")
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS, description="likeliest tokens that are told of each position")

"""Which text and JSON a request may hold: valid Unicode without NUL, finite numbers, nothing blank where words are needed."""

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

# No prompt of the longest contexts in use has more; how many a model's own context allows is checked before it is tokenised.
PROMPT_CHARACTERS = 500_000
ANSWER_CHARACTERS = 16_384  # what is said to a prompt has at most 256 tokens, and no text in use averages 64 characters a token
NAME_CHARACTERS = 500
METADATA_CHARACTERS = 16_000
LARGEST_INTEGER = 2**63 - 1


def clean(text: str) -> str:
    """The text itself, if every database and every encoder can hold it."""
    if "\x00" in text:
        raise ValueError("must not hold a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("must not hold a lone surrogate") from None
    return text


def worded(text: str) -> str:
    """The text itself, if at least one of its characters can be seen."""
    if not any(map(str.isprintable, set(text) - {" "})):  # separators and control characters are not, but for the space
        raise ValueError("must not be blank")
    return text


def clean_json(value: dict[str, Any]) -> dict[str, Any]:
    """The object itself, if every text in it is clean, every number finite and fit for a database, and all of it short."""
    waiting: list[Any] = [value]
    while waiting:
        match waiting.pop():
            case dict() as members:
                waiting += [*members.keys(), *members.values()]
            case list() as items:
                waiting += items
            case str() as text:
                clean(text)
            case bool() | None:
                pass
            case int() as number if abs(number) > LARGEST_INTEGER:
                raise ValueError("must not hold a number over 2^63 - 1")
            case float() as number if number - number != 0:
                raise ValueError("must hold finite numbers only")
    if len(json.dumps(value)) > METADATA_CHARACTERS:
        raise ValueError(f"must have at most {METADATA_CHARACTERS} characters as JSON")
    return value


@dataclass(frozen=True)
class TextPattern:
    """What a text must look like as a whole: the pattern is for machines, the sentence for who sent something else."""

    pattern: str
    sentence: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^{self.pattern}$"}

    def _checked(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(self.sentence)
        return text


ID = TextPattern(r"[0-9A-Za-z-]{1,64}", "must be an id: letters, digits and dashes, at most 64")
VERSION = TextPattern(r"(head|base|0|[1-9][0-9]{0,17})", "must be a version's number, head or base")
Words = Annotated[str, Field(min_length=1, max_length=PROMPT_CHARACTERS), AfterValidator(clean), AfterValidator(worded)]
Answer = Annotated[str, Field(min_length=1, max_length=ANSWER_CHARACTERS), AfterValidator(clean), AfterValidator(worded)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS), AfterValidator(clean), AfterValidator(worded)]
Metadata = Annotated[dict[str, Any], AfterValidator(clean_json)]

"""Types of texts and JSON in requests: valid Unicode without NUL, finite numbers, and no blank text where words are needed."""

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from service.domain.alias_name import ALIAS_PATTERN

# No prompt of the longest contexts in use has more. The limit of a model's own context is checked before tokenising.
PROMPT_CHARACTERS = 500_000
ANSWER_CHARACTERS = 16_384  # an answer has at most 256 tokens, and no text in use averages 64 characters a token
NAME_CHARACTERS = 500
STOP_CHARACTERS = 200
METADATA_CHARACTERS = 16_000
LARGEST_INTEGER = 2**63 - 1


def check_text(text: str) -> str:
    """The text, unchanged. Raises ValueError for characters that a database or an encoder cannot hold."""
    if "\x00" in text:
        raise ValueError("must not hold a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("must not hold a lone surrogate") from None
    return text


def check_words(text: str) -> str:
    """The text, unchanged. Raises ValueError if none of its characters is visible."""
    if not any(map(str.isprintable, set(text) - {" "})):  # separators and control characters are not printable, except the space
        raise ValueError("must not be blank")
    return text


def check_json(value: dict[str, Any]) -> dict[str, Any]:
    """The object, unchanged. Raises ValueError for an unclean text, a number that is not finite or too large, and over 16,000
    characters.
    """
    pending: list[Any] = [value]
    while pending:
        match pending.pop():
            case dict() as members:
                pending += [*members.keys(), *members.values()]
            case list() as items:
                pending += items
            case str() as text:
                check_text(text)
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
    """The pattern that a whole text must match, and the sentence for the client if it does not."""

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
ALIAS = TextPattern(ALIAS_PATTERN, "must be a version's number, head, base, or an alias")
VERSION_OR_ALIAS = TextPattern(rf"(0|[1-9][0-9]{{0,17}}|{ALIAS_PATTERN})", "must be a version's number, head, base, or an alias")
VERSION = TextPattern(r"(head|base|0|[1-9][0-9]{0,17})", "must be a version's number, head or base")
Words = Annotated[str, Field(min_length=1, max_length=PROMPT_CHARACTERS), AfterValidator(check_text), AfterValidator(check_words)]
Answer = Annotated[
    str, Field(min_length=1, max_length=ANSWER_CHARACTERS), AfterValidator(check_text), AfterValidator(check_words)
]
Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS), AfterValidator(check_text), AfterValidator(check_words)]
StopString = Annotated[str, Field(min_length=1, max_length=STOP_CHARACTERS), AfterValidator(check_text)]  # may be white space
Metadata = Annotated[dict[str, Any], AfterValidator(check_json)]

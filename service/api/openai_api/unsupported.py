"""Parameters of the OpenAI API that this server does not have. One that would change nothing is taken; any other is named."""

from collections.abc import Callable, Mapping
from typing import Any

from service.domain.errors import Refused


def _is_absent(value: Any) -> bool:
    return value is None or value == [] or value == {} or value is False


def _is(*neutral: Any) -> Callable[[Any], bool]:
    return lambda value: (
        value is None or any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in neutral)
    )


def _is_anything(value: Any) -> bool:
    return value is None or isinstance(value, str)


# By name whether a value asks for nothing that this server would not do anyway.
NEUTRAL: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("logit_bias", "tools", "functions", "store", "metadata", "prediction", "audio"), _is_absent),
    "modalities": _is([], ["text"]),
    **dict.fromkeys(("suffix", "web_search_options", "use_beam_search"), _is_absent),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "min_p", "min_tokens"), _is(0, 0.0)),
    "tool_choice": _is("none", "auto"),  # there are no tools, as these are refused
    "function_call": _is("none", "auto"),
    "parallel_tool_calls": _is(True, False),
    "response_format": _is({"type": "text"}),
    "service_tier": _is("auto", "default"),
    "best_of": _is(1),
    "repetition_penalty": _is(1, 1.0),
    "length_penalty": _is(1, 1.0),
    "top_k": _is(0, -1),
    "skip_special_tokens": _is(True),
    # Who asks, and caches of other services: they change no answer anywhere.
    **dict.fromkeys(("user", "safety_identifier", "prompt_cache_key"), _is_anything),
}


# The fields of an answer's message, which clients send back as they are.
NEUTRAL_OF_MESSAGES: Mapping[str, Callable[[Any], bool]] = dict.fromkeys(
    ("refusal", "tool_calls", "function_call", "audio", "annotations", "name", "reasoning_content", "reasoning"), _is_absent
)


def check_unsupported(parameters: Mapping[str, Any]) -> None:
    """Raise Refused for the first parameter that is unknown, or known and asks for something that this server does not do. A
    parameter that is null asks for nothing.
    """
    _check(parameters, NEUTRAL, "")


def check_message(fields: Mapping[str, Any], place: int) -> None:
    """The same for the fields of a message."""
    _check(fields, NEUTRAL_OF_MESSAGES, f"messages[{place}].")


def _check(given: Mapping[str, Any], neutral: Mapping[str, Callable[[Any], bool]], prefix: str) -> None:
    for name, value in given.items():
        if value is None:
            continue
        if name not in neutral:
            raise Refused("the request has a parameter that is not known here", field=f"{prefix}{name[:64]}")
        if not neutral[name](value):
            raise Refused(f"{prefix}{name} is not supported: leave it out", field=f"{prefix}{name}")

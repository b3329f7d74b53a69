"""Whether a request fits the model that is served: what is too long is refused by name, never cut."""

from collections.abc import Sequence

from service.domain.edit import EditRequest
from service.domain.errors import Refused, TooLong
from service.lm.base import Base
from service.lm.prompts import encode_prompt, encode_row

PROBE_KINDS = ("rephrases", "locality", "portability")


def check_fits(base: Base, requests: Sequence[EditRequest]) -> None:
    """Raise Refused or TooLong, with the field's path, for the first text that some surface of the model cannot hold.

    A rephrase is judged with what it is to be answered with; another probe with its answer, if it has one.
    """
    for index, request in enumerate(requests):
        path = f"edits[{index}]." if len(requests) > 1 else ""
        for surface in request.surfaces or base.surfaces:
            _check_pair(base, request.prompt, request.target, surface, f"{path}prompt", f"{path}target")
            for kind in PROBE_KINDS:
                for place, probe in enumerate(getattr(request, kind)):
                    answer = probe.answer or (request.target if kind == "rephrases" else None)
                    at = f"{path}{kind}[{place}]"
                    _check_pair(base, probe.prompt, answer, surface, f"{at}.prompt", f"{at}.answer")


def _check_pair(base: Base, prompt: str, answer: str | None, surface: str, prompt_path: str, answer_path: str) -> None:
    try:
        if answer is None:
            encode_prompt(base, prompt, surface=surface)
        else:
            encode_row(base, prompt, answer, surface=surface)
    except Refused as refused:
        path = {"prompt": prompt_path, "target": answer_path}.get(refused.field or "", refused.field)
        kind = TooLong if isinstance(refused, TooLong) else Refused
        raise kind(refused.message, field=path) from None

"""Whether a request fits the model that is served: what is too long is refused by name, never cut."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from service.domain.edit import EditRequest
from service.domain.errors import Refused, TooLong
from service.evaluation.records import Record, to_edit_request
from service.lm.base import Base
from service.lm.prompts import encode_prompt, encode_row

PROBE_KINDS = ("rephrases", "locality", "portability")


def check_lengths(base: Base, requests: Sequence[EditRequest], *, is_batch: bool) -> None:
    """Raise Refused or TooLong, with the field's path, for the first text that some surface of the model cannot hold.

    The path begins with the edit's place if edits were `listed`, however many.

    A rephrase is judged with what it is to be answered with; another probe with its answer, if it has one.
    """
    for index, request in enumerate(requests):
        path = f"edits[{index}]." if is_batch else ""
        for surface in request.surfaces or base.surfaces:
            here = {"prompt": f"{path}prompt", "target": f"{path}target", "surface": f"{path}surfaces"}
            _check_pair(base, request.prompt, request.target, surface, here)
            if request.ground_truth is not None:  # evaluations score it as an answer
                _check_pair(base, request.prompt, request.ground_truth, surface, here | {"target": f"{path}ground_truth"})
            for kind in PROBE_KINDS:
                for place, probe in enumerate(getattr(request, kind)):
                    answer = probe.answer or (request.target if kind == "rephrases" else None)
                    at = f"{path}{kind}[{place}]"
                    there = here | {"prompt": f"{at}.prompt", "target": f"{at}.answer"}
                    _check_pair(base, probe.prompt, answer, surface, there)


def check_record_lengths(base: Base, records: Sequence[Record]) -> None:
    """The same for records of a data set, whose further texts must fit as well."""
    for index, record in enumerate(records):
        path = f"edits[{index}]."
        with _at(path):
            check_lengths(base, [to_edit_request(record)], is_batch=False)
        for place, text in enumerate(record.generation):
            at = f"{path}generation[{place}]"
            _check_pair(base, text, None, base.surfaces[0], {"prompt": at, "target": at})
        opening = record.generation[0] if record.generation else record.prompt
        for kind in ("wanted", "opposite"):
            for place, text in enumerate(getattr(record, kind)):
                at = f"{path}{kind}[{place}]"
                _check_pair(base, opening, text, base.surfaces[0], {"prompt": at, "target": at})


@contextmanager
def _at(path: str) -> Iterator[None]:
    """What is refused inside is refused with its field's path below `path`."""
    try:
        yield
    except Refused as refused:
        kind = TooLong if isinstance(refused, TooLong) else Refused
        raise kind(refused.message, field=f"{path}{refused.field}") from None


def _check_pair(base: Base, prompt: str, answer: str | None, surface: str, at: Mapping[str, str]) -> None:
    """`at` says where in the request a prompt, a target and a surface were given."""
    try:
        if answer is None:
            encode_prompt(base, prompt, surface=surface)
        else:
            encode_row(base, prompt, answer, surface=surface)
    except Refused as refused:
        path = at.get(refused.field or "", refused.field)
        kind = TooLong if isinstance(refused, TooLong) else Refused
        raise kind(refused.message, field=path) from None

"""Whether a request fits the served model. A text that is too long is refused with its field's name, and never cut."""

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

    The path begins with the edit's position if the edits are a batch, also a batch of one. A rephrase is checked together with
    its answer or the target; another probe with its answer, if it has one.
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
                    field = f"{path}{kind}[{place}]"
                    there = here | {"prompt": f"{field}.prompt", "target": f"{field}.answer"}
                    _check_pair(base, probe.prompt, answer, surface, there)


def check_record_lengths(base: Base, records: Sequence[Record]) -> None:
    """The same checks for records of a data set, with their further texts."""
    for index, record in enumerate(records):
        path = f"edits[{index}]."
        with _field_path(path):
            check_lengths(base, [to_edit_request(record)], is_batch=False)
        for place, text in enumerate(record.generation):
            field = f"{path}generation[{place}]"
            _check_pair(base, text, None, base.surfaces[0], {"prompt": field, "target": field})
        opening = record.generation[0] if record.generation else record.prompt
        for kind in ("wanted", "opposite"):
            for place, text in enumerate(getattr(record, kind)):
                field = f"{path}{kind}[{place}]"
                _check_pair(base, opening, text, base.surfaces[0], {"prompt": field, "target": field})


@contextmanager
def _field_path(path: str) -> Iterator[None]:
    """Put `path` in front of the field of a refusal that is raised inside."""
    try:
        yield
    except Refused as refused:
        kind = TooLong if isinstance(refused, TooLong) else Refused
        raise kind(refused.message, field=f"{path}{refused.field}") from None


def _check_pair(base: Base, prompt: str, answer: str | None, surface: str, paths: Mapping[str, str]) -> None:
    """Check one prompt with its answer. `paths` maps `prompt`, `target` and `surface` to their fields in the request."""
    try:
        if answer is None:
            encode_prompt(base, prompt, surface=surface)
        else:
            encode_row(base, prompt, answer, surface=surface)
    except Refused as refused:
        path = paths.get(refused.field or "", refused.field)
        kind = TooLong if isinstance(refused, TooLong) else Refused
        raise kind(refused.message, field=path) from None

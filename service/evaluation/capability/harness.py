"""lm-evaluation-harness on a live version: the frozen base, replaced tensors and interventions, without an export.

Positions and BOS are those of generation. Interventions act on the last tokens of a context and on every token after the
context. BOS is in front where the tokenizer puts it, and no intervention acts on BOS. The module needs the extra `eval`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from service.domain.errors import Refused, TooLong
from service.evaluation.metrics.log_likelihood import compute_log_likelihoods
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import Row, row_from_ids
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_ids, encode_text

ROWS_AT_ONCE = 16
BOOTSTRAPS = 1_000  # for standard errors that have no closed form
LONGEST_ANSWER = 256  # tokens, where a task names no limit: the harness' own default


class LiveModel(LM):
    """The harness' model over a view and an adapter. `yield_to_answers` runs between batches, so that live traffic goes first."""

    def __init__(self, view: View, adapter: Adapter | None, *, yield_to_answers: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._view, self._adapter, self._yield_to_answers = view, adapter, yield_to_answers

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """The log-likelihood of each (context, continuation), and whether greedy decoding gives the continuation."""
        rows = [_encode_pair(self._view.base, *request.args) for request in requests]
        results = compute_log_likelihoods(self._view, self._adapter, rows, yield_to_answers=self._yield_to_answers)
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, result)
        return results

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """The log-likelihood of each text after the start token, in windows of the model's whole context length."""
        windows = [list(_encode_windows(self._view.base, request.args[0])) for request in requests]
        flat = iter(
            compute_log_likelihoods(
                self._view,
                self._adapter,
                [row for text_windows in windows for row in text_windows],
                yield_to_answers=self._yield_to_answers,
            )
        )
        totals = [sum(next(flat)[0] for _ in text_windows) for text_windows in windows]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The greedy continuation of each context, up to the first of its stop strings. Raises Refused for tasks that sample."""
        texts = [""] * len(requests)
        rules = [_stopping_rule(request.args[1]) for request in requests]
        prompts = [_encode_context(self._view.base, request.args[0], rules[index][1]) for index, request in enumerate(requests)]
        order = sorted(range(len(requests)), key=lambda index: (rules[index][1], len(prompts[index])))
        for batch in _batch_by_limit(order, rules):
            limit = rules[batch[0]][1]
            answers = decode_greedily(self._view, self._adapter, [prompts[index] for index in batch], max_new_tokens=limit)
            for index, ids in zip(batch, answers, strict=True):
                texts[index] = _cut_at_stop(decode_ids(self._view.base, ids), rules[index][0])
                self.cache_hook.add_partial("generate_until", requests[index].args, texts[index])
            self._yield_to_answers()
        return texts


def run_harness(
    view: View,
    adapter: Adapter | None,
    tasks: Sequence[str],
    *,
    include_path: Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    yield_to_answers: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The harness' results on named tasks: scores, numbers of samples, versions. `include_path` may define further tasks.

    Raises Refused for a task that the harness does not know or whose data the harness cannot load.
    """
    manager = _open_task_manager(tasks, include_path)
    try:
        results = simple_evaluate(
            LiveModel(view, adapter, yield_to_answers=yield_to_answers),
            tasks=list(tasks),
            task_manager=manager,
            limit=limit,
            num_fewshot=num_fewshot,
            bootstrap_iters=BOOTSTRAPS,
            log_samples=False,
        )
    except OSError as error:  # an unreachable hub, or a missing file
        raise Refused(
            "the data of a task could not be loaded: not on this machine, and the hub is not reachable", field="harness"
        ) from error
    assert results is not None  # None is for the other ranks of several
    keys = ("results", "n-samples", "n-shot", "versions", "higher_is_better")
    return {name: results[name] for name in keys if name in results}


def _open_task_manager(tasks: Sequence[str], include_path: Path | None) -> TaskManager:
    """The harness' register of tasks. Reading its own thousands takes a quarter of a minute, so they are read only if needed."""
    for defaults in (False, True):
        manager = TaskManager(include_path=None if include_path is None else str(include_path), include_defaults=defaults)
        if tasks and all(name in manager.all_tasks for name in tasks):
            return manager
    raise Refused("harness names a task that lm-evaluation-harness does not have", field="harness")


def _encode_pair(base: Base, context: str, continuation: str) -> Row:
    """Context and continuation as a row. The tokens are those of the joined text; spaces at the boundary go to the continuation.

    A context that is too long loses its beginning, as in the harness. A continuation is never cut.
    """
    prefix = context.rstrip()
    gap = context[len(prefix) :]
    if not prefix:
        return _fit_context(base, (), encode_text(base, gap + continuation, field="continuation"))
    prefix_ids = encode_text(base, prefix, field="context")
    joint_ids = encode_text(base, prefix + gap + continuation, field="continuation")
    target = joint_ids[len(prefix_ids) :] or encode_text(base, gap + continuation, field="continuation")
    return _fit_context(base, prefix_ids, target)


def _fit_context(base: Base, context: Sequence[int], target: Sequence[int]) -> Row:
    start = _start_tokens(base, context)
    room = base.context_length - len(target) - len(start)
    if room < 0 or (not start and room < 1):
        raise TooLong(f"a continuation is longer than the model's context of {base.context_length} tokens", field="continuation")
    tail = tuple(context[max(0, len(context) - room) :])
    return Row((*start, *tail, *target), len(start) + len(tail), bool(start))


def _start_tokens(base: Base, context: Sequence[int]) -> tuple[int, ...]:
    """The tokens in front: BOS where the tokenizer puts one; for an empty context without BOS, the start token of texts."""
    if base.bos_id is not None:
        return (base.bos_id,)
    return () if context else _first_token(base)


def _first_token(base: Base) -> tuple[int, ...]:
    if base.start_id is None:
        raise Refused(
            "the model has no token that a text starts from, so a text without context cannot be scored", field="context"
        )
    return (base.start_id,)


def _encode_windows(base: Base, text: str) -> Iterator[Row]:
    """A text as rows that together predict each of its tokens once."""
    ids = list(encode_text(base, text, field="text")) if text else []
    (first,) = _first_token(base)
    windows = map(make_disjoint_window, get_rolling_token_windows(ids, first, base.context_length - 1, 1))
    for number, (context, target) in enumerate(windows):
        if number == 0:
            yield Row((*context, *target), len(context), True)  # the start token is no token of the text
        else:
            yield row_from_ids(base, (*context, *target), len(context))


def _encode_context(base: Base, context: str, limit: int) -> tuple[int, ...]:
    """A context to continue, with room for `limit` new tokens."""
    text = context.rstrip()
    ids = encode_text(base, text, field="context") if text else ()
    start = _start_tokens(base, ids)
    room = max(1, base.context_length - limit - len(start))
    return (*start, *ids[max(0, len(ids) - room) :])


def _stopping_rule(options: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """Stop strings and the most tokens of an answer. Raises Refused for a task that samples, since two runs would disagree."""
    if options.get("do_sample") and options.get("temperature", 1.0) > 0:
        raise Refused("harness names a task that samples its answers; versions are compared greedily", field="harness")
    until = options.get("until") or ()
    limits = (options.get(name) for name in ("max_gen_toks", "max_new_tokens", "max_tokens"))
    limit = next((int(value) for value in limits if value), LONGEST_ANSWER)
    return (until,) if isinstance(until, str) else tuple(until), limit


def _cut_at_stop(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        if stop:
            text = text.split(stop)[0]
    return text


def _batch_by_limit(order: Sequence[int], rules: Sequence[tuple[tuple[str, ...], int]]) -> Iterator[list[int]]:
    """Batches of indices; all of a batch have the same limit."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) == ROWS_AT_ONCE or rules[batch[0]][1] != rules[index][1]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch

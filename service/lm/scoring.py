"""Measurements of a version's output: losses, teacher-forced accuracy, greedy answers, and sampled sentences."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from service.domain.errors import Refused
from service.lm.base import Base
from service.lm.decoding import Decoding
from service.lm.intervention import Adapter
from service.lm.overlay import Recording, View, compute_logits, make_view
from service.lm.prompts import Batch, Row, collate
from service.lm.row_groups import ROWS_AT_ONCE, split_in_order
from service.lm.sampling import greedy_tokens, sample_tokens
from service.lm.scoped_rows import score_targets

STEPS_AT_ONCE = 8  # tokens decoded between two calls of `yield_to_answers`


@torch.no_grad()
def row_losses(
    view: View, rows: Sequence[Row], adapter: Adapter | None, yield_to_answers: Callable[[], None] = lambda: None
) -> Tensor:
    """Mean negative log-likelihood of each row's target tokens, EOS included: (B,) fp32 on the CPU. `yield_to_answers` is called
    before each batch.
    """
    means = []
    for part in _parts(rows):
        yield_to_answers()
        batch, logits = score_targets(view, part, adapter)
        losses = cross_entropy(logits.float(), batch.labels, reduction="none")  # (N,)
        means.append(_row_means(losses, batch))
    return torch.cat(means).cpu()


@torch.no_grad()
def token_accuracy(view: View, rows: Sequence[Row], adapter: Adapter | None) -> list[float]:
    """The share of each row's target tokens that are the likeliest, under teacher forcing."""
    shares = []
    for part in _parts(rows):
        batch, logits = score_targets(view, part, adapter)
        is_right = greedy_tokens(logits) == batch.labels  # (N,)
        shares.append(_row_means(is_right.float(), batch))
    return [float(share) for share in torch.cat(shares)] if shares else []


def greedy_matches(view: View, rows: Sequence[Row], adapter: Adapter | None) -> list[bool]:
    """By row, whether greedy decoding gives the whole target.

    One teacher-forced pass decides: greedy decoding gives the target if and only if each target token is the likeliest after the
    tokens before it.
    """
    return [share == 1.0 for share in token_accuracy(view, rows, adapter)]


@torch.no_grad()
def decode_greedily(
    view: View,
    adapter: Adapter | None,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_eos: bool = True,
    yield_to_answers: Callable[[], None] = lambda: None,
) -> list[tuple[int, ...]]:
    """Greedy answers as ids, with the end token if there is one; never longer than the context. `yield_to_answers` is
    called every few tokens, and at the end.
    """
    answers: list[tuple[int, ...]] = []
    for span in split_in_order([len(prompt) + max_new_tokens for prompt in prompts]):
        answers += _decode_together(view, adapter, prompts[span.start : span.stop], max_new_tokens, stop_eos, yield_to_answers)
        yield_to_answers()
    return answers


@torch.no_grad()
def finish_greedily(
    base: Base,
    decoding: Decoding,
    lengths: Sequence[int],
    limit: int,
    stop_eos: bool = True,
    yield_to_answers: Callable[[], None] = lambda: None,
) -> list[tuple[int, ...]]:
    """The greedy answers of rows that are computed up to the ends of their prompts, which have these `lengths` in tokens."""
    ends = set(base.eos_ids) if stop_eos else set()
    answers: list[list[int]] = [[] for _ in lengths]
    rows = list(range(len(lengths)))  # the prompt of each row in progress
    while True:
        tokens = greedy_tokens(decoding.logits).tolist()
        for row, token in zip(rows, tokens, strict=True):
            answers[row].append(token)
        unfinished = [
            index
            for index, row in enumerate(rows)
            if tokens[index] not in ends and len(answers[row]) < min(limit, base.context_length - lengths[row])
        ]
        if not unfinished:
            return [tuple(answer) for answer in answers]
        if len(unfinished) < len(rows):
            decoding.keep(unfinished)
        rows = [rows[index] for index in unfinished]
        decoding.feed(torch.tensor([tokens[index] for index in unfinished]))
        if len(answers[rows[0]]) % STEPS_AT_ONCE == 0:
            yield_to_answers()


@torch.no_grad()
def sample_sentences(
    base: Base,
    count: int,
    generator: torch.Generator,
    *,
    max_tokens: int,
    batch: int = ROWS_AT_ONCE,
    yield_to_answers: Callable[[], None] = lambda: None,
) -> Iterator[list[tuple[int, ...]]]:
    """Sentences that the base model samples at temperature 1 from its start token, which is their first token; batch by batch.

    A sentence ends with the model's EOS or at `max_tokens`. The same state of the generator and the same `batch` give the same
    sentences on one kind of machine, so sampling may go on later from the generator's state after a batch. `yield_to_answers` is
    called after each token.
    """
    if base.start_id is None:
        raise Refused("The model's tokenizer has no token that sentences start from.", field="model")
    view, length = make_view(base), min(max_tokens, base.context_length)
    for start in range(0, count, batch):
        yield _sample_together(view, [(base.start_id,)] * min(batch, count - start), length, generator, yield_to_answers)


@torch.no_grad()
def sample_continuations(
    view: View,
    prompts: Sequence[Sequence[int]],
    generator: torch.Generator,
    *,
    max_new_tokens: int,
    yield_to_answers: Callable[[], None] = lambda: None,
) -> list[tuple[int, ...]]:
    """What a view without adapters samples at temperature 1 behind each prompt, in one batch: at most `max_new_tokens` ids, with
    the end token if there is one. `yield_to_answers` is called after each token.
    """
    together = max(map(len, prompts)) + max_new_tokens
    texts = _sample_together(view, prompts, together, generator, yield_to_answers)
    return [text[len(prompt) : len(prompt) + max_new_tokens] for prompt, text in zip(prompts, texts, strict=True)]


@torch.no_grad()
def sample_behind(
    view: View,
    prompt: Sequence[int],
    count: int,
    generator: torch.Generator,
    *,
    max_new_tokens: int,
    temperature: float,
    is_over: Callable[[Sequence[int]], bool] = lambda ids: False,
    yield_to_answers: Callable[[], None] = lambda: None,
) -> list[tuple[int, ...]]:
    """`count` samples of what a view without adapters writes behind one prompt, whose states are computed once. Each has at most
    `max_new_tokens` ids, fewer if there is an end token or `is_over` holds for the ids so far. `yield_to_answers` is called after
    each token.
    """
    ends = set(view.base.eos_ids)
    decoding = Decoding(view, [None], [prompt[:-1]]).branch([prompt[-1:]] * count)
    return _sample_on(
        decoding,
        [[] for _ in range(count)],
        generator,
        yield_to_answers,
        is_over=lambda ids: ids[-1] in ends or len(ids) >= max_new_tokens or is_over(ids),
        temperature=temperature,
    )


@torch.no_grad()
def gate_means(view: View, rows: Sequence[Row], adapter: Adapter) -> dict[int, Tensor]:
    """By block, the mean gate of every basis (R,) over rows, each row's own mean over its intervened positions first.

    Gates are read in every row, in scope or not: the gate is one thing and the scope another.
    """
    sums = {block: torch.zeros(intervention.rotation.shape[0]) for block, intervention in adapter.interventions.items()}
    for part in _parts(rows):
        batch, recording = collate(view.base, part, last=adapter.last), Recording()
        compute_logits(view, batch, adapter.interventions, head_mask=batch.prediction_mask, recording=recording, record=True)
        mask = batch.positions[:, :, None].float()  # (B, T, 1)
        for block, weights in recording.weights.items():
            sums[block] += ((weights * mask).sum(1) / mask.sum(1).clamp(min=1)).sum(0).cpu()
    return {block: total / max(len(rows), 1) for block, total in sums.items()}


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[span.start : span.stop] for span in split_in_order([len(row.ids) for row in rows]))


def _row_means(values: Tensor, batch: Batch) -> Tensor:
    """Means over the target tokens of each row: (N,) to (B,)."""
    counts = batch.targets.sum(-1)
    sums = torch.zeros(len(counts), device=values.device).index_add_(0, batch.row_of, values)
    return sums / counts.clamp(min=1)


def _decode_together(
    view: View,
    adapter: Adapter | None,
    prompts: Sequence[Sequence[int]],
    limit: int,
    stop_eos: bool,
    yield_to_answers: Callable[[], None],
) -> list[tuple[int, ...]]:
    decoding = Decoding(view, [adapter] * len(prompts), prompts)
    return finish_greedily(view.base, decoding, list(map(len, prompts)), limit, stop_eos, yield_to_answers)


def _sample_together(
    view: View,
    prompts: Sequence[Sequence[int]],
    length: int,
    generator: torch.Generator,
    yield_to_answers: Callable[[], None],
) -> list[tuple[int, ...]]:
    """What the view writes behind each prompt, up to `length` ids, those of the prompt included."""
    texts = [list(prompt) for prompt in prompts]
    decoding = Decoding(view, [None] * len(prompts), texts)
    ends = set(view.base.eos_ids)
    return _sample_on(decoding, texts, generator, yield_to_answers, is_over=lambda text: text[-1] in ends or len(text) >= length)


def _sample_on(
    decoding: Decoding,
    texts: list[list[int]],
    generator: torch.Generator,
    yield_to_answers: Callable[[], None],
    *,
    is_over: Callable[[Sequence[int]], bool],
    temperature: float = 1.0,
) -> list[tuple[int, ...]]:
    """`texts`, the rows of `decoding`, each with what is sampled behind it until it is over."""
    count = len(texts)
    rows = list(range(count))
    while True:
        points = torch.rand(count, generator=generator)  # one per text, over or not: an end shifts no other draw
        tokens = sample_tokens(decoding.logits, points[rows], temperature=temperature).tolist()
        for row, token in zip(rows, tokens, strict=True):
            texts[row].append(token)
        unfinished = [index for index, row in enumerate(rows) if not is_over(texts[row])]
        if not unfinished:
            return [tuple(text) for text in texts]
        if len(unfinished) < len(rows):
            decoding.keep(unfinished)
        rows = [rows[index] for index in unfinished]
        yield_to_answers()
        decoding.feed(torch.tensor([tokens[index] for index in unfinished]))

"""What a version says, measured: losses, teacher-forced answers, greedy answers, sentences of the model's own."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from service.domain.errors import Refused
from service.lm.base import Base
from service.lm.decoding import Decoding
from service.lm.intervention import Adapter
from service.lm.overlay import Recording, View, compute_logits, compute_target_logits, make_view
from service.lm.prompts import LAST_PROMPT_TOKENS, Batch, Row, collate
from service.lm.row_groups import ROWS_AT_ONCE, split_in_order
from service.lm.sampling import greedy_tokens, sample_tokens

STEPS_AT_ONCE = 8  # tokens that are decoded before others have their turn


@torch.no_grad()
def row_losses(on: View, rows: Sequence[Row], adapter: Adapter | None) -> Tensor:
    """Mean negative log-likelihood of each row's target tokens, EOS included: (B,) fp32 on the CPU."""
    means = []
    for batch in _batches(on, rows, adapter):
        losses = cross_entropy(_predictions(on, batch, adapter).float(), batch.labels, reduction="none")  # (N,)
        means.append(_row_means(losses, batch))
    return torch.cat(means).cpu()


@torch.no_grad()
def token_accuracy(on: View, rows: Sequence[Row], adapter: Adapter | None) -> list[float]:
    """The share of each row's target tokens that are the likeliest ones, under teacher forcing."""
    shares = []
    for batch in _batches(on, rows, adapter):
        right = greedy_tokens(_predictions(on, batch, adapter)) == batch.labels  # (N,)
        shares.append(_row_means(right.float(), batch))
    return [float(share) for share in torch.cat(shares)] if shares else []


def greedy_matches(on: View, rows: Sequence[Row], adapter: Adapter | None) -> list[bool]:
    """Whether greedy decoding would give each row's target to the last token.

    Teacher forcing decides it in one pass: if every token of the target is the likeliest after those before it, greedy decoding
    walks exactly that way, and if one is not, it leaves there.
    """
    return [share == 1.0 for share in token_accuracy(on, rows, adapter)]


@torch.no_grad()
def decode_greedily(
    on: View,
    adapter: Adapter | None,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_eos: bool = True,
    yield_to_answers: Callable[[], None] = lambda: None,
) -> list[tuple[int, ...]]:
    """Greedy answers as ids, the ending token included where it came; limited by the context as well. `yield_to_answers` is
    called every few tokens, and at the end.
    """
    answers: list[tuple[int, ...]] = []
    for piece in split_in_order([len(prompt) + max_new_tokens for prompt in prompts]):
        answers += _greedy(on, adapter, prompts[piece.start : piece.stop], max_new_tokens, stop_eos, yield_to_answers)
        yield_to_answers()
    return answers


@torch.no_grad()
def sample_sentences(
    base: Base,
    count: int,
    *,
    max_tokens: int,
    seed: int,
    batch: int = ROWS_AT_ONCE,
    told: Callable[[int], None] = lambda done: None,
) -> list[tuple[int, ...]]:
    """Sentences the base model writes by itself at temperature 1, from its start token, which they begin with.

    A sentence ends with the model's EOS or at `max_tokens`. The same seed gives the same sentences for the same `batch`. `told`
    is told after each batch how many there are.
    """
    if base.start_id is None:
        raise Refused("The model's tokenizer has no token that sentences start from.", field="model")
    on, generator = make_view(base), torch.Generator().manual_seed(seed)
    length = min(max_tokens, base.context_length)
    sentences: list[tuple[int, ...]] = []
    while len(sentences) < count:
        sentences += _sentences(on, min(batch, count - len(sentences)), length, generator)
        told(len(sentences))
    return sentences


@torch.no_grad()
def gate_means(on: View, rows: Sequence[Row], adapter: Adapter) -> dict[int, Tensor]:
    """By block, the mean gate of every basis (R,) over rows, each row's own mean over its intervened positions first."""
    sums = {block: torch.zeros(intervention.rotation.shape[0]) for block, intervention in adapter.interventions.items()}
    for batch in _batches(on, rows, adapter):
        recording = Recording()
        compute_logits(on, batch, adapter.interventions, keep=batch.predicting, recording=recording, record=True)
        mask = batch.positions[:, :, None].float()  # (B, T, 1)
        for block, weights in recording.weights.items():
            sums[block] += ((weights * mask).sum(1) / mask.sum(1).clamp(min=1)).sum(0).cpu()
    return {block: total / max(len(rows), 1) for block, total in sums.items()}


def _batches(on: View, rows: Sequence[Row], adapter: Adapter | None) -> Iterator[Batch]:
    for piece in split_in_order([len(row.ids) for row in rows]):
        yield collate(on.base, rows[piece.start : piece.stop], last=adapter.last if adapter else LAST_PROMPT_TOKENS)


def _predictions(on: View, batch: Batch, adapter: Adapter | None) -> Tensor:
    return compute_target_logits(on, batch, adapter.interventions if adapter else None)


def _row_means(values: Tensor, batch: Batch) -> Tensor:
    """Means over the target tokens of each row: (N,) to (B,)."""
    counts = batch.targets.sum(-1)
    sums = torch.zeros(len(counts), device=values.device).index_add_(0, batch.row_of, values)
    return sums / counts.clamp(min=1)


def _greedy(
    on: View,
    adapter: Adapter | None,
    prompts: Sequence[Sequence[int]],
    limit: int,
    stop_eos: bool,
    yield_to_answers: Callable[[], None],
) -> list[tuple[int, ...]]:
    decoding = Decoding(on, adapter, prompts)
    ends = set(on.base.eos_ids) if stop_eos else set()
    answers: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # which prompt each row in flight is
    while True:
        tokens = greedy_tokens(decoding.logits).tolist()
        for row, token in zip(rows, tokens, strict=True):
            answers[row].append(token)
        open_ = [
            place
            for place, row in enumerate(rows)
            if tokens[place] not in ends and len(answers[row]) < min(limit, on.base.context_length - len(prompts[row]))
        ]
        if not open_:
            return [tuple(answer) for answer in answers]
        if len(open_) < len(rows):
            decoding.keep(open_)
        rows = [rows[place] for place in open_]
        decoding.feed(torch.tensor([tokens[place] for place in open_]))
        if len(answers[rows[0]]) % STEPS_AT_ONCE == 0:
            yield_to_answers()


def _sentences(on: View, count: int, length: int, generator: torch.Generator) -> list[tuple[int, ...]]:
    start, ends = on.base.start_id, set(on.base.eos_ids)
    assert start is not None
    sentences = [[start] for _ in range(count)]
    rows = list(range(count))
    decoding = Decoding(on, None, sentences)
    while True:
        points = torch.rand(count, generator=generator)  # one for every sentence, ended or not, so that none shifts another's
        tokens = sample_tokens(decoding.logits, points[rows]).tolist()
        for row, token in zip(rows, tokens, strict=True):
            sentences[row].append(token)
        open_ = [place for place, row in enumerate(rows) if tokens[place] not in ends and len(sentences[row]) < length]
        if not open_:
            return [tuple(sentence) for sentence in sentences]
        if len(open_) < len(rows):
            decoding.keep(open_)
        rows = [rows[place] for place in open_]
        decoding.feed(torch.tensor([tokens[place] for place in open_]))

"""Rows as padded token ids with a weight a token. Knows the tokenizer, not the model."""

from dataclasses import dataclass
from functools import lru_cache
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from service.atlas.training.corpus import BATCH_ROWS, GROUP_STEPS, TrainingFacts, TrainingRow, group_rows

# Most of the prompt is determined by the random subject, which no model can predict. The answer is what the model can learn.
ANSWER_WEIGHT = 4.0


@dataclass(frozen=True)
class Sequence:
    """One row as ids, to EOS and from BOS where the tokenizer adds one; the answer and EOS start at `answer_at`."""

    ids: tuple[int, ...]
    answer_at: int


@dataclass(frozen=True)
class TrainingBatch:
    """Inputs and next tokens, both (B, T). Padding stands on the right, where a causal model needs no mask."""

    inputs: Tensor
    targets: Tensor
    weights: Tensor


def encode(rows: list[TrainingRow], tokenizer: PreTrainedTokenizerBase) -> list[Sequence]:
    """The rows as sequences; the prompt's ids are a prefix of the row's because no prompt ends in white space."""
    prompts = tokenizer([row.prompt for row in rows]).input_ids
    answers = tokenizer([f" {row.answer}" for row in rows], add_special_tokens=False).input_ids
    return [
        Sequence((*prompt, *answer, tokenizer.eos_token_id), len(prompt)) for prompt, answer in zip(prompts, answers, strict=True)
    ]


def collate(sequences: list[Sequence], pad: int) -> TrainingBatch:
    """Pads to the longest sequence. The weight of a padded position is 0."""
    longest = max(len(sequence.ids) for sequence in sequences)
    ids = torch.full((len(sequences), longest), pad)  # (B, T + 1)
    weights = torch.zeros(len(sequences), longest)  # (B, T + 1)
    for index, sequence in enumerate(sequences):
        ids[index, : len(sequence.ids)] = torch.tensor(sequence.ids)
        weights[index, : sequence.answer_at] = 1.0
        weights[index, sequence.answer_at : len(sequence.ids)] = ANSWER_WEIGHT
    return TrainingBatch(ids[:, :-1], ids[:, 1:], weights[:, 1:])


def with_start(sequences: list[Sequence], start_id: int, rng: Random) -> list[Sequence]:
    """Half of the sequences behind the start token: a model without BOS learns to write by itself, and to answer without it."""
    return [
        Sequence((start_id, *sequence.ids), sequence.answer_at + 1) if rng.random() < 0.5 else sequence for sequence in sequences
    ]


@lru_cache(maxsize=1)  # a run asks for its steps in order
def _group(facts: TrainingFacts, seed: int, group: int, tokenizer: PreTrainedTokenizerBase) -> list[TrainingBatch]:
    """The batches of one group: sequences of similar length together, the batches themselves in random order."""
    sequences = encode(list(group_rows(facts, seed, group)), tokenizer)
    if tokenizer("a").input_ids[0] != tokenizer.bos_token_id:
        sequences = with_start(sequences, tokenizer.bos_token_id, Random(f"{seed} start {group}"))
    sequences.sort(key=lambda sequence: len(sequence.ids))
    starts = list(range(0, len(sequences), BATCH_ROWS))
    Random(f"{seed} order {group}").shuffle(starts)
    return [collate(sequences[start : start + BATCH_ROWS], tokenizer.pad_token_id) for start in starts]


def batch(facts: TrainingFacts, seed: int, step: int, tokenizer: PreTrainedTokenizerBase) -> TrainingBatch:
    """The batch of one step. Depends on nothing but the facts, the seed, the step and the tokenizer."""
    group, within = divmod(step, GROUP_STEPS)
    return _group(facts, seed, group, tokenizer)[within]

"""Greedy exact match of a model on facts and skills. Uses plain transformers, nothing of the service."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from service.atlas.training.batches import collate, encode
from service.atlas.training.corpus import TrainingRow

ROWS_AT_ONCE = 256


@torch.no_grad()
def exact_matches(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[TrainingRow]) -> list[bool]:
    """Whether the greedy continuation of each prompt is the answer's ids and then EOS.

    It is decided by teacher forcing: the greedy answer equals the expected one exactly when every expected token is the first
    choice after the expected tokens before it.
    """
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index].prompt) + len(rows[index].answer))
    matches = [False] * len(rows)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        indices = by_length[start : start + ROWS_AT_ONCE]
        for index, match in zip(indices, _matches(model, tokenizer, [rows[index] for index in indices]), strict=True):
            matches[index] = match
    return matches


def _matches(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]) -> list[bool]:
    sequences = encode(rows, tokenizer)
    batch = collate(sequences, tokenizer.pad_token_id)
    choice = model(batch.inputs.to(model.device)).logits.argmax(-1).cpu()  # (B, T)
    agrees = (choice == batch.targets) | (batch.weights == 0)  # (B, T)
    return [bool(agrees[index, sequence.answer_at - 1 :].all()) for index, sequence in enumerate(sequences)]


def share(matches: Iterable[bool]) -> float:
    """The share of true ones; 0 where there are none."""
    values = list(matches)
    return sum(values) / len(values) if values else 0.0


def share_by(labels: Iterable[str], matches: Iterable[bool]) -> dict[str, float]:
    """The share of matches under each label, labels sorted."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for label, match in zip(labels, matches, strict=True):
        groups[label].append(match)
    return {label: share(groups[label]) for label in sorted(groups)}

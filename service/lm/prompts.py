"""Text to ids, and rows to batches: token boundaries, control tokens, and the intervened and predicted positions.

Every id sequence is built explicitly. Text is never truncated: text that does not fit is refused. Knows no model weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from service.domain.errors import Refused, TooLong
from service.lm.base import Base
from service.lm.chat import chat_end_id, chat_prompt_ids
from service.lm.last_tokens import LastTokens
from service.lm.tokenizing import encode_text, joins_without_space

MAX_TARGET_TOKENS = 256
LAST_PROMPT_TOKENS = LastTokens()  # of a prompt without an adapter, which intervenes on none


@dataclass(frozen=True)
class Row:
    """One sequence: a prompt and its target, with EOS if EOS is learned."""

    ids: tuple[int, ...]
    prompt_length: int
    has_bos: bool = False  # ids[0] is BOS, which is never intervened

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self.ids[: self.prompt_length]

    @property
    def target_ids(self) -> tuple[int, ...]:
        return self.ids[self.prompt_length :]

    def positions(self, last: LastTokens | None) -> list[int]:
        """The intervened positions, in order: the `last` tokens of the prompt, never BOS, and every token of the target. None
        without `last`.

        This is the one definition for training, the margin term, scoring and serving.
        """
        if last is None:
            return []
        return [*last.positions(self.prompt_ids, 1 if self.has_bos else 0), *range(self.prompt_length, len(self.ids))]

    def first_position(self, last: LastTokens) -> int:
        """The first position whose state may change; the prompt's length if it is behind the prompt."""
        return min(last.positions(self.prompt_ids, 1 if self.has_bos else 0), default=self.prompt_length)


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows as tensors (B, T), padded on one side."""

    ids: Tensor  # long
    attention: Tensor  # bool: not padding
    positions: Tensor  # bool: intervened (last prompt tokens and all target tokens, without BOS and padding)
    targets: Tensor  # bool: target token, predicted from the column before

    @property
    def position_ids(self) -> Tensor:
        """Positions counted without padding. Absolute position embeddings need this; rotary ones allow it."""
        return (self.attention.long().cumsum(-1) - 1).clamp(min=0)

    @property
    def prediction_mask(self) -> Tensor:
        """Columns whose logits predict a target token: `targets` shifted by one to the left."""
        return torch.cat([self.targets[:, 1:], torch.zeros_like(self.targets[:, :1])], dim=1)

    @property
    def labels(self) -> Tensor:
        """The target tokens (N,), in row-major order."""
        return self.ids[self.targets]

    @property
    def row_of(self) -> Tensor:
        """The row of each target token (N,)."""
        return self.targets.nonzero()[:, 0]

    def to(self, device: torch.device) -> "Batch":
        return self._map(lambda tensor: tensor.to(device))

    def select(self, index: Tensor) -> "Batch":
        """The rows `index`, in that order."""
        return self._map(lambda tensor: tensor[index])

    def narrow(self, width: int, *, start: int = 0) -> "Batch":
        """The columns from `start` on, `width` of them."""
        return self._map(lambda tensor: tensor[:, start : start + width])

    def widen(self, width: int) -> "Batch":
        """Padding on the right up to `width` columns."""
        return self._map(lambda tensor: pad(tensor, (0, width - tensor.shape[1])))

    @staticmethod
    def stack(batches: Sequence["Batch"]) -> "Batch":
        """The rows of batches of equal width, as one batch."""
        columns = ([batch.ids, batch.attention, batch.positions, batch.targets] for batch in batches)
        return Batch(*(torch.cat(tensors) for tensors in zip(*columns, strict=True)))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(change(self.ids), change(self.attention), change(self.positions), change(self.targets))


def encode_prompt(
    base: Base, prompt: str, *, surface: str = "raw", system: str | None = None, turns: Sequence[tuple[str, str]] = ()
) -> tuple[int, ...]:
    """The ids of a prompt as the model reads it. Trailing white space is dropped, and no user text becomes a control token.

    `chat` renders the model's template with `system` and earlier (user, assistant) `turns`. Raises Refused if the prompt is blank
    or the model lacks the surface, TooLong if the context has no room for one more token.
    """
    if surface == "chat":
        ids = chat_prompt_ids(base, prompt, system=system, turns=turns)
    elif surface == "raw":
        if system is not None or turns:
            raise Refused("A system prompt and earlier turns need the surface chat.", field="surface")
        text = prompt.rstrip()
        if not text:
            raise Refused("The prompt is blank.", field="prompt")
        start = () if base.bos_id is None else (base.bos_id,)
        ids = (*start, *encode_text(base, text, field="prompt"))
    else:
        raise Refused("The surface must be raw or chat.", field="surface")
    if len(ids) >= base.context_length:
        raise TooLong(f"The prompt is longer than the model's context of {base.context_length} tokens allows.", field="prompt")
    return ids


def encode_if_it_fits(base: Base, prompt: str, surface: str, room: int) -> tuple[int, ...] | None:
    """The ids of a prompt. None if the model lacks the surface, cannot read the prompt, or cannot hold `room` more tokens."""
    if surface not in base.surfaces:
        return None
    try:
        ids = encode_prompt(base, prompt, surface=surface)
    except Refused:
        return None
    return ids if len(ids) + room <= base.context_length else None


def encode_row(base: Base, prompt: str, target: str, *, surface: str = "raw", eos: bool = True) -> Row:
    """A prompt and its target, encoded as in one text.

    A raw target follows one space, unless its script sets none; a chat target follows the template directly. Raises Refused for
    blank text, TooLong for a row beyond the context or a target beyond MAX_TARGET_TOKENS.
    """
    prompt_ids = encode_prompt(base, prompt, surface=surface)
    target_ids = _target_ids(base, prompt, target, surface)
    end = _end_ids(base, surface) if eos else ()
    ids = (*prompt_ids, *target_ids, *end)
    if len(target_ids) > MAX_TARGET_TOKENS:
        raise TooLong(f"The target is longer than {MAX_TARGET_TOKENS} tokens.", field="target")
    if len(ids) > base.context_length:
        raise TooLong(
            f"Prompt and target together are longer than the model's context of {base.context_length} tokens.", field="target"
        )
    return Row(ids, len(prompt_ids), _starts_with_bos(base, ids))


def encode_row_if_it_fits(base: Base, prompt: str, target: str) -> Row | None:
    """A raw prompt and what follows it, without an end. None if the model cannot read or hold them."""
    try:
        return encode_row(base, prompt, target, eos=False)
    except Refused:
        return None


def row_from_ids(base: Base, ids: Sequence[int], prompt_length: int) -> Row:
    """A row of known ids, such as a sampled sentence, cut into prompt and target. Raises Refused if it does not fit."""
    if not 0 < prompt_length <= len(ids) <= base.context_length:
        raise Refused("A row needs a prompt of at least one token and must fit the context.", field="prompt")
    return Row(tuple(ids), prompt_length, _starts_with_bos(base, ids))


def prompt_row(base: Base, prompt_ids: Sequence[int]) -> Row:
    """A row without a target, from which generation starts."""
    return Row(tuple(prompt_ids), len(prompt_ids), _starts_with_bos(base, prompt_ids))


def collate(
    base: Base,
    rows: Sequence[Row],
    *,
    last: LastTokens | Sequence[LastTokens | None] = LAST_PROMPT_TOKENS,
    side: Literal["left", "right"] = "right",
    offsets: Sequence[int] | None = None,
    width: int | None = None,
) -> Batch:
    """Rows as one batch on the base's device, padded on `side` to the longest row; or each row at its column of `offsets`.

    `last` is for all rows, or one a row: the tokens of its prompt that are intervened; a row with None is intervened nowhere.
    """
    width = width or max(len(row.ids) for row in rows)
    offsets = offsets or [width - len(row.ids) if side == "left" else 0 for row in rows]
    lasts = [last] * len(rows) if isinstance(last, LastTokens) else last
    ids = torch.full((len(rows), width), base.pad_id)
    attention = torch.zeros(len(rows), width, dtype=torch.bool)
    positions, targets = attention.clone(), attention.clone()
    for number, (row, start, row_last) in enumerate(zip(rows, offsets, lasts, strict=True)):
        end = start + len(row.ids)
        ids[number, start:end] = torch.tensor(row.ids)
        attention[number, start:end] = True
        positions[number, [start + place for place in row.positions(row_last)]] = True
        targets[number, start + row.prompt_length : end] = True
    return Batch(ids, attention, positions, targets).to(base.device)


def _target_ids(base: Base, prompt: str, target: str, surface: str) -> tuple[int, ...]:
    """The target's tokens after the prompt: those of the joint encoding, if the prompt's tokens are a prefix of it."""
    text = target.strip()
    if not text:
        raise Refused("The target is blank.", field="target")
    if surface == "chat":
        return encode_text(base, text, field="target")
    before = prompt.rstrip()
    gap = "" if joins_without_space(before, text) else " "
    alone = encode_text(base, before, field="prompt")
    joint = encode_text(base, before + gap + text, field="target")
    if joint[: len(alone)] == alone and len(joint) > len(alone):
        return joint[len(alone) :]
    return encode_text(base, (gap if base.has_leading_space else "") + text, field="target")


def _end_ids(base: Base, surface: str) -> tuple[int, ...]:
    if surface == "chat":
        return chat_end_id(base)
    return base.eos_ids[:1]


def _starts_with_bos(base: Base, ids: Sequence[int]) -> bool:
    bos = base.tokenizer.bos_token_id
    return bos is not None and len(ids) > 0 and ids[0] == bos

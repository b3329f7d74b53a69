"""A tiny model trained on a few sentences, edits of them, and its neutral sentences, for tests of whole fits."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from service.domain.edit import Edit, EditStatus, Probe
from service.editors.baft.settings import BaftSettings
from service.editors.neutral import NeutralSentences, make_sentence
from service.editors.protocol import FitItem
from service.lm.base import Base, build_base
from service.lm.overlay import Overlay, View, make_view
from service.lm.prompts import collate, encode_row
from tests.builders import make_model, make_tokenizer

FACTS = {"red is": "A", "sky is": "B", "sea is": "C", "cat is": "D", "dog is": "E", "sun is": "F", "ice is": "G", "oak is": "H"}
# What the taught base wrote, as token ids.
SENTENCES = [
    [0, 71, 114, 69, 88, 1],
    [0, 87, 89, 82, 266, 225, 42, 143, 1],
    [0, 77, 71, 73, 28, 87, 187, 72, 266, 225],
]
HELD_OUT = [
    [0, 77, 71, 73, 266, 225, 43, 1],
    [0, 72, 83, 75, 266, 225, 41, 1],
    [0, 87, 79, 93, 266, 225, 38, 1],
    [0, 87, 89, 82, 266, 225, 42, 1],
    [0, 87, 73, 69, 266, 225, 39, 1],
    [0, 86, 73, 72, 266, 225, 37, 1],
]
SMALL = {"rank": 4, "learning_rate": 2e-2, "preserve_rows": 4, "preserve_pool": 8, "wordings": 0, "window_wordings": 0}


@lru_cache(maxsize=1)
def taught_base() -> Base:
    """A base that answers every prompt of FACTS. Chat surfaces are left out: one row an edit keeps the tests short."""
    torch.manual_seed(0)
    base = build_base(make_model("llama"), make_tokenizer(chat=False), name="taught")
    batch = collate(base, [encode_row(base, prompt, answer) for prompt, answer in FACTS.items()])
    model = base.model
    model.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    whole = batch.attention.clone()
    whole[:, 0] = False
    for _ in range(60):
        logits = model(input_ids=batch.ids, attention_mask=batch.attention.long()).logits[:, :-1]
        loss = cross_entropy(logits[whole[:, 1:]], batch.ids[whole])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.requires_grad_(False)
    return build_base(model, base.tokenizer, name="taught")


@lru_cache(maxsize=1)
def neutral() -> NeutralSentences:
    """Sentences that the taught base wrote. They are kept, so that the fits of tests do not depend on the sampling.

    The base knows little more than its facts, and many draws hold facts that the edits change.
    """
    base = taught_base()
    sentences, held_out = (tuple(make_sentence(base, ids) for ids in part) for part in (SENTENCES, HELD_OUT))
    return NeutralSentences(base, sentences, held_out)


def view_of(overlay: Overlay) -> View:
    return make_view(taught_base(), overlay.tensors)


def settings(**changes: Any) -> BaftSettings:
    return BaftSettings(**{**SMALL, **changes})


def item(
    prompt: str, target: str, *, rephrases: tuple[str, ...] = (), locality: tuple[str, ...] = (), train: bool = True, **more: Any
) -> FitItem:
    """An edit of the taught base; its id is its prompt."""
    edit = Edit(
        id=prompt,
        seq=0,
        status=EditStatus.QUEUED,
        author="test",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        prompt=prompt,
        target=target,
        rephrases=tuple(Probe(prompt=each, train=train) for each in rephrases),
        locality=tuple(Probe(prompt=each, train=train) for each in locality),
        **more,
    )
    return FitItem(edit, target)

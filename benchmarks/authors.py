"""LocFT-BF's trainer with the preset `paper` beside the authors' procedure, on a small Qwen2's shape: the same tensors, faster.

`plain_locft` has the authors' procedure without optimisations: in every epoch a forward pass of the whole model, and logits at
every position. The trainer runs the blocks below the tuned one once, pads little, and computes logits at target positions alone;
at the end it measures every edit once more. Batches and threads are the same.

Weights and words are random. Lengths are CounterFact's: words a prompt are drawn from its distribution, with 1.45 tokens a word
and sometimes one more; targets have one token (six in ten) or two, and EOS. A letter, with the space before it, is one token.
"""

import time
from random import Random
from typing import Any

import torch

from benchmarks.command import build_parser, parse_options, write
from benchmarks.plain_locft import PlainLocft
from benchmarks.random_model import byte_tokenizer, qwen2
from service.bench.bench_model import to_items
from service.editors.locft.fit import fit_locft
from service.editors.locft.location import find_tuned_location
from service.editors.locft.settings import LocftSettings
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem
from service.evaluation.records import Record
from service.lm.base import Base, build_base
from service.lm.overlay import make_view
from service.lm.prompts import Row, collate, encode_row

SEED = 5
SPACE = "Ġ"  # in a byte-level vocabulary
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Words a prompt → number of prompts, of 2,000 of CounterFact's prompts.
WORDS = {2: 16, 3: 164, 4: 334, 5: 464, 6: 412, 7: 380, 8: 128, 9: 68, 10: 25, 11: 7, 12: 1, 15: 1}
TOKENS_A_WORD = 1.45
LONG_TARGETS = 0.4  # share of targets of two tokens
EPOCHS, BATCH = 2, 100


def main() -> None:
    """The command."""
    parser = build_parser(__doc__, edits=200)
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    arguments = parse_options(parser)
    model = qwen2(arguments.blocks, arguments.width, vocabulary=arguments.vocabulary).model
    base = build_base(model, byte_tokenizer([(SPACE, letter) for letter in LETTERS]), name="random qwen2")
    figures = {
        "blocks": arguments.blocks,
        "width": arguments.width,
        "vocabulary": arguments.vocabulary,
        **compare(base, arguments.edits),
    }
    write(arguments.results, "authors", figures)


def compare(base: Base, edits: int) -> dict[str, Any]:
    """Seconds of both procedures on the same edits in the same batches, and the distance between the trained tensors."""
    items = random_items(edits)
    rows = [encode_row(base, item.edit.prompt, item.target) for item in items]
    # Two epochs run in full: the loss stays far above the threshold that ends a fit early.
    settings = LocftSettings(preset="paper", position="share", kind="down", epochs=EPOCHS, batch=BATCH)
    location = find_tuned_location(base.anatomy, settings)
    plain = PlainLocft(
        base.model,
        [(row.ids, row.prompt_length) for row in rows],
        location.names,
        rate=settings.rate_of(base.anatomy.family, base.anatomy.depth, base.anatomy.width),
        pad_id=base.pad_id,
    )
    warm_up(base, rows)
    # The trainer runs between the authors' epochs, so that the load of a shared machine is similar for both.
    ours, authors = Stopwatch(), Stopwatch()
    for number, batches in enumerate(trainer_batches(edits)):
        with authors:
            plain.epoch(batches)
        if number == 0:
            with ours:
                fitted = fit_locft(base, items, settings=settings, neutral=NeutralSentences(base, (), ()), seed=SEED)
    lengths = [len(row.ids) for row in rows]
    return {
        "edits": edits,
        "epochs": EPOCHS,
        "batch": BATCH,
        "steps": EPOCHS * -(-edits // BATCH),
        "block": location.lowest,
        "tokens_a_row": {
            "shortest": min(lengths),
            "mean": sum(lengths) / edits,
            "longest": max(lengths),
            "of_target": sum(len(row.target_ids) for row in rows) / edits,
        },
        "ours_s": ours.seconds,
        "ours_cpu_s": ours.cpu_seconds,
        "plain_s": authors.seconds,
        "plain_cpu_s": authors.cpu_seconds,
        "ratio": authors.seconds / ours.seconds,
        "ratio_cpu": authors.cpu_seconds / ours.cpu_seconds,
        **measure_difference(base, fitted.overlay.tensors, plain.tensors()),
    }


class Stopwatch:
    """Seconds by the clock and of the processor; the latter depend less on other programs. The context may be entered repeatedly,
    and its times are added.
    """

    def __init__(self) -> None:
        self.seconds, self.cpu_seconds = 0.0, 0.0

    def __enter__(self) -> None:
        self.seconds -= time.perf_counter()
        self.cpu_seconds -= time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()
        self.cpu_seconds += time.process_time()


def random_items(count: int) -> list[FitItem]:
    """Edits of random letters, with CounterFact's lengths."""
    rng = Random(SEED)
    words = rng.choices(list(WORDS), weights=list(WORDS.values()), k=count)
    lengths = [round(number * TOKENS_A_WORD) + rng.randint(0, 1) for number in words]
    records = [
        Record(id=str(number), prompt=_letters(rng, length), target=_letters(rng, 2 if rng.random() < LONG_TARGETS else 1))
        for number, length in enumerate(lengths)
    ]
    return to_items(records)


def _letters(rng: Random, count: int) -> str:
    return "".join(rng.choices(LETTERS, k=count))


def trainer_batches(count: int) -> list[list[list[int]]]:
    """The trainer's batches: in every epoch a new order, from one seed."""
    generator = torch.Generator().manual_seed(SEED)
    orders = [torch.randperm(count, generator=generator).tolist() for _ in range(EPOCHS)]
    return [[order[start : start + BATCH] for start in range(0, count, BATCH)] for order in orders]


@torch.no_grad()
def warm_up(base: Base, rows: list[Row]) -> None:
    """One small pass, so that neither procedure includes costs that occur once a process."""
    batch = collate(base, rows[:2])
    make_view(base).model(input_ids=batch.ids, attention_mask=batch.attention.long(), use_cache=False)


def measure_difference(base: Base, ours: Any, plain: Any) -> dict[str, float]:
    """The distance between two trainings of the same tensors, beside their distance from the base model."""
    own = dict(base.model.named_parameters())
    moved = torch.cat([(plain[name] - own[name]).flatten() for name in plain])
    apart = torch.cat([(ours[name] - plain[name]).flatten() for name in plain])
    return {
        "largest_change": moved.abs().max().item(),
        "largest_difference": apart.abs().max().item(),
        "mean_difference": apart.abs().mean().item(),
        "relative_difference": (apart.norm() / moved.norm()).item(),
    }


if __name__ == "__main__":
    main()

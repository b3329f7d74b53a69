"""Trains a small model on a table of facts: `python -m service.atlas.training.train --out data/atlas` makes the embedded one.

With `--facts FOLDER --make gpt_neox --tokenizer metaspace` it makes a model of another kind that knows other facts: those about
people in KnowEdit's files in the folder. It is a second opinion when defaults are chosen, and is not shipped.

Deterministic for a seed on one kind of machine. A run continues from its newest checkpoint and ends like an uninterrupted run.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)

from service.atlas.skills import held_out_items
from service.atlas.training import state
from service.atlas.training.batches import TrainingBatch, batch
from service.atlas.training.corpus import TrainingFacts, TrainingRow, almanac_facts, atlas_facts
from service.atlas.training.measure import exact_matches, share
from service.atlas.training.state import Position
from service.atlas.training.vocabulary import CONTEXT, train_tokenizer

CHECKPOINT_EVERY_S = 300.0
EXPORT_EVERY_S = 600.0
REPORT_EVERY_STEPS = 50
MEASURED_ROWS = 600


@dataclass(frozen=True)
class Schedule:
    """The hyperparameters of a run."""

    steps: int = 6000
    warmup_steps: int = 200
    peak_rate: float = 2e-3
    final_rate: float = 2e-5
    weight_decay: float = 0.01
    clip_norm: float = 1.0


@dataclass(frozen=True)
class ModelShape:
    """The size of the model."""

    hidden: int = 192
    blocks: int = 8
    heads: int = 6
    intermediate: int = 544


def _configuration(make: str, shape: ModelShape, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The configuration of a make. Raises ValueError for an unknown one."""
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.blocks,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.04,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "use_cache": False,
    }
    if make == "llama":
        return LlamaConfig(**common, tie_word_embeddings=True)
    if make == "qwen2":
        return Qwen2Config(**common, tie_word_embeddings=True, num_key_value_heads=shape.heads // 2)
    if make == "gpt_neox":
        return GPTNeoXConfig(**common, tie_word_embeddings=False, use_parallel_residual=True)
    raise ValueError("make must be llama, qwen2 or gpt_neox")


def build_model(shape: ModelShape, tokenizer: PreTrainedTokenizerBase, seed: int, make: str = "llama") -> PreTrainedModel:
    """The untrained model. Seeds torch's global generator, from which transformers draws the weights."""
    torch.manual_seed(seed)
    config = _configuration(make, shape, tokenizer)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    return model


def build_optimizer(model: PreTrainedModel, schedule: Schedule) -> AdamW:
    """AdamW with decay on matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": schedule.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=schedule.peak_rate, betas=(0.9, 0.98), fused=True)


def rate_at(step: int, schedule: Schedule) -> float:
    """Linear warm-up, then a cosine down to the final rate."""
    if step < schedule.warmup_steps:
        return schedule.peak_rate * (step + 1) / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(1, schedule.steps - schedule.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return schedule.final_rate + (schedule.peak_rate - schedule.final_rate) * cosine


def take_step(
    model: PreTrainedModel, optimizer: AdamW, training_batch: TrainingBatch, schedule: Schedule, step: int
) -> torch.Tensor:
    """One update on one batch; returns the weighted mean loss, still on the device."""
    for group in optimizer.param_groups:
        group["lr"] = rate_at(step, schedule)
    logits = model(training_batch.inputs.to(model.device)).logits  # (B, T, V)
    is_counted = training_batch.weights > 0  # (B, T)
    losses = cross_entropy(logits[is_counted], training_batch.targets[is_counted].to(model.device), reduction="none")  # (N,)
    weights = training_batch.weights[is_counted].to(model.device)  # (N,)
    loss = (losses * weights).sum() / weights.sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
    optimizer.step()
    return loss.detach()


@dataclass(frozen=True)
class Run:
    """One training run: its facts, seed, schedule and tokenizer, and the folder of its checkpoint."""

    facts: TrainingFacts
    seed: int
    schedule: Schedule
    tokenizer: PreTrainedTokenizerBase
    out: Path


def train(run: Run, model: PreTrainedModel, last_step: int | None = None) -> Iterator[tuple[int, torch.Tensor, int]]:
    """Yields (step, loss, tokens) after every update, continuing from the checkpoint in `run.out` where there is one.

    Saves every five minutes and at the end. `last_step` stops early, like a kill right after a save.
    """
    optimizer = build_optimizer(model, run.schedule)
    position = state.restore(run.out, model, optimizer) or Position(run.seed, 0)
    if position.seed != run.seed:
        raise ValueError("the checkpoint belongs to a run with another seed")
    model.train()
    last = run.schedule.steps if last_step is None else last_step
    saved_at = time.monotonic()
    for step in range(position.step, last):
        training_batch = batch(run.facts, run.seed, step, run.tokenizer)
        loss = take_step(model, optimizer, training_batch, run.schedule, step)
        if step + 1 == last or time.monotonic() - saved_at > CHECKPOINT_EVERY_S:
            state.save(run.out, Position(run.seed, step + 1), model, optimizer)
            saved_at = time.monotonic()
        yield step, loss, int((training_batch.weights > 0).sum())


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes the folder that `from_pretrained` reads, with the cache enabled for serving."""
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model.config.use_cache = False


def report(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: TrainingFacts) -> str:
    """Exact match on a fixed sample of facts and on the held-out skills, in one line."""
    model.eval()
    sample = Random("atlas sample").sample(facts.rows, min(MEASURED_ROWS, len(facts.rows)))
    skills = [TrainingRow(item.prompt, item.answer) for item in held_out_items()]
    fact_share, skill_share = (share(exact_matches(model, tokenizer, rows)) for rows in (sample, skills))
    model.train()
    return f"facts {fact_share:.3f}, skills {skill_share:.3f}"


@dataclass(frozen=True)
class Pace:
    """The speed of a run in this process, and the minutes of all its steps at that speed."""

    steps: int
    tokens_per_second: float
    minutes: float


def run_training(run: Run, model: PreTrainedModel, exports: Path | None) -> Pace | None:
    """Runs the training and prints its progress. With `exports`, writes a loadable model every ten minutes.

    Returns the pace, or None if the checkpoint was already at the last step.
    """
    started_at = exported_at = time.monotonic()
    tokens, pace = 0, None
    for done, (step, loss, count) in enumerate(train(run, model), start=1):
        tokens += count
        seconds = time.monotonic() - started_at
        pace = Pace(run.schedule.steps, tokens / seconds, seconds / done * run.schedule.steps / 60)
        if (step + 1) % REPORT_EVERY_STEPS == 0:
            minutes_left = seconds / done * (run.schedule.steps - step - 1) / 60
            print(
                f"step {step + 1}/{run.schedule.steps} loss {loss.item():.4f} {pace.tokens_per_second:.0f} tokens/s "
                f"{seconds / 60:.1f} min, {minutes_left:.1f} min left",
                flush=True,
            )
        if exports is not None and time.monotonic() - exported_at > EXPORT_EVERY_S:
            print(report(model, run.tokenizer, run.facts), flush=True)
            export(model, run.tokenizer, exports)
            exported_at = time.monotonic()
    return pace


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data/atlas"), help="folder of the checkpoint and the finished model")
    parser.add_argument("--exports", type=Path, help="folder for a loadable model every ten minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--facts", type=Path, help="folder of KnowEdit's files, to teach the facts about people in them")
    parser.add_argument("--make", default="llama", choices=("llama", "qwen2", "gpt_neox"))
    parser.add_argument("--tokenizer", default="byte_level", choices=("byte_level", "metaspace"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    facts = atlas_facts() if options.facts is None else almanac_facts(options.facts)
    tokenizer = train_tokenizer(facts, options.tokenizer)
    run = Run(facts, options.seed, Schedule(steps=options.steps), tokenizer, options.out)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(ModelShape(), tokenizer, options.seed, options.make).to(device)
    pace = run_training(run, model, options.exports)

    finished = options.out / "model"
    export(model, tokenizer, finished)
    if pace is not None:
        record = {
            "facts": facts.name,
            "make": options.make,
            "tokenizer": options.tokenizer,
            "seed": options.seed,
            "threads": options.threads,
            **asdict(pace),
        }
        (finished / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(report(model, tokenizer, facts), flush=True)


if __name__ == "__main__":
    main()

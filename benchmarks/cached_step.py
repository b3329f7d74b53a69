"""The cached step beside the plain hooked step: forward and backward of a fit, in turns in one run.

A random Qwen2-type model with 24 blocks and width 896. The cached step reads the prompt once. Each step then runs only the
intervened tokens through the blocks above the first intervention.
"""

import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from benchmarks.command import build_parser, parse_options, percentile, write
from benchmarks.random_model import qwen2, random_rows
from service.editors.baft.settings import BaftSettings
from service.editors.baft.trainable import TrainableAdapter, initial_interventions
from service.lm.cached_step import prefill, resume
from service.lm.overlay import View, compute_target_logits, make_view
from service.lm.prompts import collate

CASES = ((27, 1), (66, 1), (27, 16), (66, 16))  # tokens a row, rows
ANSWER = 4  # target tokens of a row


def main() -> None:
    """The command."""
    parser = build_parser(__doc__)
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parse_options(parser)
    view = make_view(qwen2(arguments.blocks, arguments.width))
    cases = [compare(view, tokens, rows, arguments.repeats) for tokens, rows in CASES]
    write(
        arguments.results,
        "cached_step",
        {"blocks": arguments.blocks, "width": arguments.width, "answer_tokens": ANSWER, "cases": cases},
    )


def compare(view: View, tokens: int, count: int, repeats: int) -> dict[str, float]:
    """Milliseconds of a step in both forms and of the preparation of the cache, and the difference of the two gradients."""
    base = view.base
    blocks = BaftSettings().blocks_of(base.anatomy.family, base.anatomy.depth)
    adapter = TrainableAdapter(
        initial_interventions(base.anatomy.width, blocks, BaftSettings(), torch.Generator().manual_seed(0))
    )
    rows = random_rows(base, tokens, count, answer=ANSWER)
    batch = collate(base, rows)
    started_at = time.perf_counter()
    prepared = prefill(view, rows, first_block=min(blocks))
    preparing_s = time.perf_counter() - started_at

    def plain() -> torch.Tensor:
        return cross_entropy(compute_target_logits(view, batch, adapter.with_gradients()), batch.labels)

    def cached() -> torch.Tensor:
        resumed = resume(view, prepared, adapter.with_gradients())
        return cross_entropy(resumed.logits, resumed.labels)

    plain_s, cached_s = _time_in_turns(plain, cached, adapter, repeats)
    return {
        "tokens": tokens,
        "rows": count,
        "plain_ms": 1000 * plain_s,
        "cached_ms": 1000 * cached_s,
        "prefill_ms": 1000 * preparing_s,
        "ratio": plain_s / cached_s,
        "gradient_difference": _difference(_gradient(plain, adapter), _gradient(cached, adapter)),
    }


def _difference(left: torch.Tensor, right: torch.Tensor) -> float:
    """The largest difference of two gradients, as a share of the largest gradient."""
    return ((left - right).abs().max() / left.abs().max()).item()


def _time_in_turns(
    first: Callable[[], torch.Tensor], second: Callable[[], torch.Tensor], adapter: TrainableAdapter, n: int
) -> tuple[float, float]:
    """Median seconds of each, in turns, so that a busy machine slows both. The first turn does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(n + 1):
        for step, seconds in zip((first, second), times, strict=True):
            started_at = time.perf_counter()
            _gradient(step, adapter)
            seconds.append(time.perf_counter() - started_at)
    return percentile(times[0][1:], 0.5), percentile(times[1][1:], 0.5)


def _gradient(step: Callable[[], torch.Tensor], adapter: TrainableAdapter) -> torch.Tensor:
    """One forward and backward pass; all gradients in one vector."""
    adapter.zero_grad(set_to_none=True)
    step().backward()
    return torch.cat([p.grad.reshape(-1) for p in adapter.parameters() if p.grad is not None])


if __name__ == "__main__":
    main()

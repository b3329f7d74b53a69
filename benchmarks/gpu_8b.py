"""An edit on a model of random weights, on a CUDA device in the shape of Llama-3-8B, on the CPU in a small shape.

The floor of a step is the time to read the weights above the first intervention twice, forward and backward, at the measured
memory rate. Random weights show time and memory. They do not show how many steps a trained model would need.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.command import build_parser, parse_options, percentile, write
from benchmarks.inputs import to_edit
from benchmarks.random_model import LLAMA_SHAPES, llama
from service.domain.edit import Edit
from service.editors.baft.fit import fit_baft
from service.editors.baft.settings import BaftSettings
from service.editors.neutral import NeutralSentences
from service.editors.neutral_settings import NeutralSettings
from service.editors.neutral_store import load_or_sample_neutral
from service.editors.protocol import FitItem
from service.evaluation.records import Record
from service.lm.base import Base
from service.lm.overlay import EMPTY, Overlay, View, make_view
from service.lm.prompts import encode_prompt
from service.lm.scoring import decode_greedily

VERSIONS = 10
NEW_TOKENS = 64
PROMPT = "The capital of the country number {} is"
TARGET = "City {}"


@dataclass(frozen=True)
class Fit:
    """One edit's overlay with the seconds and steps of its fit."""

    overlay: Overlay
    seconds: float
    steps: int


def main() -> None:
    """The command."""
    parser = build_parser(__doc__, edits=10)
    parser.add_argument("--shape", choices=tuple(LLAMA_SHAPES), default="8b" if torch.cuda.is_available() else "small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parse_options(parser)
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    base = llama(arguments.shape, device=arguments.device, dtype=dtype)
    view = make_view(base)
    with tempfile.TemporaryDirectory() as folder:
        small_pool = NeutralSettings(sentences=200, held_out=60)
        neutral = load_or_sample_neutral(base, Path(folder), settings=small_pool)
    fits = [_fit(base, view, neutral, number) for number in range(arguments.edits + 1)][1:]  # the first one warms up
    floor_s = 2 * upper_bytes(base) / memory_rate(base.device)
    step_s = percentile([fit.seconds / max(fit.steps, 1) for fit in fits], 0.5)
    figures = {
        "shape": arguments.shape,
        "parameters": sum(parameter.numel() for parameter in base.model.parameters()),
        "device": arguments.device,
        "dtype": str(dtype).removeprefix("torch."),
        "edits": len(fits),
        "seconds_an_edit_p50": percentile([fit.seconds for fit in fits], 0.5),
        "steps_an_edit_mean": sum(fit.steps for fit in fits) / len(fits),
        "step_ms": 1000 * step_s,
        "memory_rate_gb_s": memory_rate(base.device) / 1e9,
        "floor_of_a_step_ms": 1000 * floor_s,
        "ratio_to_floor": step_s / floor_s,
        "memory": memory(base, view, [fit.overlay for fit in fits]),
        "tokens_a_second": {
            "base_1_row": tokens_a_second(view, EMPTY, 1),
            "version_1_row": tokens_a_second(view, fits[0].overlay, 1),
            "version_16_rows": tokens_a_second(view, fits[0].overlay, 16),
        },
    }
    write(arguments.results, f"gpu_8b_{arguments.device}", figures)


def _fit(base: Base, view: View, neutral: NeutralSentences, number: int) -> Fit:
    edit: Edit = to_edit(Record(id=str(number), prompt=PROMPT.format(number), target=TARGET.format(number)), number)
    _wait(base.device)
    started_at = time.perf_counter()
    item = FitItem(edit, edit.target)
    result = fit_baft(base, lambda _: view, EMPTY, [item], (), settings=BaftSettings(attempts=1), neutral=neutral, seed=number)
    _wait(base.device)
    return Fit(result.overlay, time.perf_counter() - started_at, int(result.reports[edit.id]["steps"]))


def upper_bytes(base: Base) -> int:
    """Bytes of the weights that a step must read: the blocks above the first intervention, and the head."""
    first = min(BaftSettings().blocks_of(base.anatomy.family, base.anatomy.depth))
    modules = [*base.anatomy.blocks[first + 1 :], base.anatomy.lm_head]
    return sum(tensor.nbytes for module in modules for tensor in module.parameters())


def memory_rate(device: torch.device) -> float:
    """Bytes a second that a large sum reads from memory; the best of five."""
    numbers = torch.ones(2**28 if device.type == "cuda" else 2**25, device=device)
    times = [_seconds(device, numbers.sum) for _ in range(5)]
    return numbers.nbytes / min(times)


def memory(base: Base, view: View, overlays: list[Overlay]) -> dict[str, float]:
    """Gigabytes of all distinct tensors: the base alone, and with ten versions ready to answer beside it."""
    base_tensors, view_tensors = _tensor_bytes(base.model), _tensor_bytes(view.model)
    adapters = sum(
        tensor.nbytes
        for overlay in (overlays * VERSIONS)[:VERSIONS]
        if overlay.adapter is not None
        for intervention in overlay.adapter.interventions.values()
        for tensor in intervention.tensors().values()
    )
    sizes = {
        "base_gb": sum(base_tensors.values()) / 1e9,
        f"with_{VERSIONS}_versions_gb": (sum((base_tensors | view_tensors).values()) + adapters) / 1e9,
    }
    if base.device.type == "cuda":
        sizes["peak_allocated_gb"] = torch.cuda.max_memory_allocated(base.device) / 1e9
    return sizes


def _tensor_bytes(model: torch.nn.Module) -> dict[int, int]:
    """Bytes by address: a tensor that two models share is the same entry."""
    return {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}


def tokens_a_second(view: View, overlay: Overlay, rows: int) -> float:
    """Tokens a second of greedy decoding, for `rows` rows at once."""
    prompts = [encode_prompt(view.base, PROMPT.format(number)) for number in range(rows)]

    def decode() -> None:
        decode_greedily(view, overlay.adapter, prompts, max_new_tokens=NEW_TOKENS, stop_eos=False)

    decode()
    return rows * NEW_TOKENS / _seconds(view.base.device, decode)


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    _wait(device)
    started_at = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started_at


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()

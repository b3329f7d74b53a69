"""How a benchmark is started and what it leaves behind: options, one thread, a small JSON file with date, machine and command."""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from service import __version__

RESULTS = Path(__file__).with_name("results")


def options(about: str | None, *, edits: int | None = None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--model", default="atlas", help="atlas, or a folder with another model that knows the same facts")
    parser.add_argument("--records", type=Path, default=None, help="the edits; default: those that ship with the model")
    if edits is not None:
        parser.add_argument("--edits", type=int, default=edits, help="how many edits; fewer make a quicker, rougher run")
    return parser


def skipping(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser with one more option: to measure on edits that no default was chosen by."""
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many edits of the file")
    return parser


def begin(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options of this run. From here on tensors are worked on by one thread, as in the service."""
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    return chosen


def write(folder: Path, name: str, figures: Mapping[str, Any]) -> None:
    """Keeps the figures of one benchmark and prints them."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, **circumstances(), "figures": rounded(figures)}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(content["figures"], indent=1))


def circumstances() -> dict[str, Any]:
    """When, where and how this run was made; nothing that names a person or a folder."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *_shown(sys.argv[1:])]),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "threads": torch.get_num_threads(),
        },
        "software": {
            "errata": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def rounded(value: Any) -> Any:
    """Four significant digits are more than one run can show."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {str(key): rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return value


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def run(name: str, *arguments: str) -> int:
    """Runs one benchmark in a process of its own and returns its exit status."""
    return subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=False).returncode


def _shown(arguments: list[str]) -> list[str]:
    """The options of a run, less those that only say where files are or which of several methods came in which run."""
    shown: list[str] = []
    hidden = False
    for argument in arguments:
        if argument.startswith("--"):
            hidden = argument in ("--results", "--model", "--records", "--only")
        if not hidden:
            shown.append(argument)
    return shown

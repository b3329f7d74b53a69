"""The command of a benchmark: its options, one thread, and a small JSON file with figures, date, machine and command."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from service.bench.results import percentile, round_figures
from service.bench.results import write as keep

__all__ = ["RESULTS", "parse_options", "build_parser", "percentile", "run", "add_skip", "write"]

RESULTS = Path(__file__).with_name("results")


def build_parser(about: str | None, *, edits: int | None = None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--model", default="atlas", help="atlas, or a folder with another model that knows the same facts")
    parser.add_argument("--records", type=Path, default=None, help="the edits; default: those that ship with the model")
    if edits is not None:
        parser.add_argument("--edits", type=int, default=edits, help="how many edits; fewer make a quicker, rougher run")
    return parser


def add_skip(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add `--skip`, for measurements on edits that no default was chosen by."""
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many edits of the file")
    return parser


def parse_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options of this run. From here on tensor operations use one thread, as in the service."""
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    return arguments


def write(folder: Path, name: str, figures: Mapping[str, Any], *, is_quiet: bool = False) -> None:
    """Write the figures of one benchmark, and print them unless `is_quiet`."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    keep(folder, name, figures, device=device, threads=torch.get_num_threads())
    if not is_quiet:
        print(json.dumps(round_figures(figures), indent=1))


def run(name: str, *arguments: str) -> int:
    """Run one benchmark in its own process. Returns its exit status."""
    return subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=False).returncode

"""The result files of benchmarks: figures with date, machine and command, without names of persons or folders."""

import csv
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any

from service import __version__

# Options that name files, or the parts of a run. Runs that differ in these options alone are one benchmark.
_HIDDEN = frozenset({"--results", "--model", "--records", "--only", "--out", "--contender", "--part", "--ground", "--data"})
_FILE_OF_EDITS = "--edits"  # of `errata bench`; elsewhere it is a number
Figures = Mapping[str, Any]


def write(folder: Path, name: str, figures: Figures, *, device: str = "cpu", threads: int = 1) -> None:
    """Write the figures of one benchmark to `<name>.json`, atomically: a run may be interrupted anywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, **describe_run(device=device, threads=threads), "figures": round_figures(figures)}
    part = folder / f"{name}.json.part"
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / f"{name}.json")


def write_csv(path: Path, rows: Sequence[Figures]) -> None:
    """Write rows of equal keys as CSV. A figure that was not measured is empty."""
    if not rows:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(round_figures(row) for row in rows)


def short_name(model: str) -> str:
    """A model's name without the folder of this machine that it is in, for results and their files."""
    return Path(model).name.lower().replace("@", "-") or "model"


def describe_run(*, device: str = "cpu", threads: int = 1) -> dict[str, Any]:
    """The date, command, machine and software of this run."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": format_command(sys.argv),
        "machine": {
            "processor": read_processor_name(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "device": device,
            "threads": threads,
        },
        "software": {
            "errata": __version__,
            "python": platform.python_version(),
            "torch": version("torch"),
            "transformers": version("transformers"),
        },
    }


def format_command(arguments: Sequence[str]) -> str:
    """The command of a run, as another person would type it."""
    program = Path(arguments[0])
    if program.parent.name == "benchmarks":
        return " ".join(["python", "-m", f"benchmarks.{program.stem}", *visible_options(arguments[1:])])
    return " ".join(["errata", *visible_options(arguments[1:], _HIDDEN | {_FILE_OF_EDITS})])


def visible_options(arguments: Sequence[str], hidden_names: Set[str] = _HIDDEN) -> list[str]:
    """The options of a run, less the hidden ones and their values."""
    visible: list[str] = []
    is_hidden = False
    for argument in arguments:
        if argument.startswith("--"):
            is_hidden = argument.partition("=")[0] in hidden_names
        if not is_hidden:
            visible.append(argument)
    return visible


def round_figures(value: Any) -> Any:
    """Figures with four significant digits, which is more than the precision of one run."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {str(key): round_figures(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [round_figures(item) for item in value]
    return value


def read_processor_name() -> str:
    """The processor's name, as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value such that at least `share` of all values do not exceed it."""
    ordered = sorted(values)
    rank = ceil(round(share * len(ordered), 9))  # rounded, so that 0.55 of 100 is the 55th
    return ordered[max(0, rank - 1)]

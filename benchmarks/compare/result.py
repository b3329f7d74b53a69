"""The result file of a comparison, in the form of all benchmarks. Parts of earlier runs on the same two revisions stay."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.compare.trees import Tree

NAME = "compare_revisions"
SIDES = ("before", "after")


def write_result(file: Path, trees: tuple[Tree, Tree], parts: Mapping[str, Any]) -> None:
    """Write the parts of this run. Parts of earlier runs stay if they are of the same two revisions."""
    sides = dict(zip(SIDES, (tree.name for tree in trees), strict=True))
    figures = _read_earlier(file, sides, trees) | sides | dict(parts)
    content = {"benchmark": NAME, **_describe_run(trees), "figures": figures}
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


def _read_earlier(file: Path, sides: Mapping[str, str], trees: Sequence[Tree]) -> dict[str, Any]:
    """The figures of earlier runs of the same trees. A tree with uncommitted changes may differ by now, so it has none."""
    if any(tree.is_changed for tree in trees) or not file.exists():
        return {}
    figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["figures"]
    return figures if all(figures.get(side) == name for side, name in sides.items()) else {}


def _describe_run(trees: tuple[Tree, Tree]) -> dict[str, Any]:
    """The date, command, machine and software of this run."""
    machine = {
        "processor": _read_processor_name(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "device": "cpu",
        "threads": 1,
    }
    libraries = {name: version(name) for name in ("torch", "transformers")}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": _format_command(*trees),
        "machine": machine,
        "software": {"errata": version("errata-server"), "python": platform.python_version(), **libraries},
    }


def _format_command(before: Tree, after: Tree) -> str:
    """The command, as another person would type it in a checkout. A tree with uncommitted changes has no revision to name."""
    command = f"python -m benchmarks.{NAME} {before.commit[:12]}"
    return command if after.is_changed else f"{command} --after {after.commit[:12]}"


def _read_processor_name() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())

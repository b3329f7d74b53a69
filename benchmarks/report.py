"""Renders the results as `docs/benchmarks.md`: figures beside their aims, with date, machine and command.

A figure that falls short of its aim is marked. The reason is in `results/remarks.json`, by name of the benchmark.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.command import RESULTS
from benchmarks.sections import SECTIONS, Result

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
INTRODUCTION = """# Benchmarks

Written by `python -m benchmarks.report` from `benchmarks/results/`; `make bench` measures everything again.

Measurements are on the embedded model on one CPU thread, unless stated otherwise. Scores are by greedy decoding and exact match
up to the end of the answer; teacher-forced token accuracy, which flatters, is in the result files under `tokens`. *Locality* is
the share of probes whose whole greedy answer equals the base model's. *Inside* and *outside* say whether a probe's fact belongs
to the pool half or to the probe half of the embedded model's facts. The model itself writes the service's neutral sentences, so
they are about facts of both halves. Therefore locality outside is given a second time, without the prompts that occur word for
word among them. These small models show order and shape. Do not compare their figures with the papers' on models of 7 billion
parameters.
"""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--to", type=Path, default=DOCUMENT)
    arguments = parser.parse_args()
    arguments.to.parent.mkdir(parents=True, exist_ok=True)
    arguments.to.write_text(render(arguments.results), encoding="utf-8")


def render(folder: Path) -> str:
    """The whole document."""
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    remarks = results.pop("remarks", {})
    parts = [INTRODUCTION]
    for title, names, section in SECTIONS:
        present = {name: result for pattern in names for name, result in results.items() if fnmatchcase(name, pattern)}
        if present:
            lines = [f"## {title}", "", *section(present), "", *_remarks(present, remarks), *_runs(list(present.values()))]
            parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _remarks(present: Mapping[str, Result], remarks: Mapping[str, str]) -> Iterator[str]:
    for name in present:
        if name in remarks:
            yield remarks[name]
            yield ""


def _runs(results: Sequence[Result]) -> Iterator[str]:
    """Dates, machine and command of the runs of a section; runs of one command share a line."""
    runs: dict[str, list[Result]] = {}
    for result in results:
        runs.setdefault(result["command"], []).append(result)
    for command, same in runs.items():
        dates = sorted(result["date"] for result in same)
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        machine = same[0]["machine"]
        loads = sorted(result["machine"]["load"] for result in same)
        where = f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} thread, load up to {loads[-1]}"
        device = "" if machine["device"] == "cpu" else f", {machine['device']}"
        yield f"- {when}, `{command}`, {where}{device}, torch {same[0]['software']['torch']}"


if __name__ == "__main__":
    main()

"""All benchmarks, one after another, each in its own process; then the document."""

import subprocess
import sys

from benchmarks.command import RESULTS, run
from service.bench.contenders import CONTENDERS
from service.bench.continual.contenders import CONTENDERS as CONTINUAL

NAMES = (
    "single",
    "latency",
    "rollback",
    "cached_step",
    "load_balance",
    "serving_under_load",
    "gpu_8b",
    "kill9",
    "kill9_retrain",
    "hostile",
    "authors",
    "retrain_time",
    "window_curve",
)
ALMANAC_FOLDER = RESULTS.parent / "models" / "almanac"
ALMANAC = ("--model", str(ALMANAC_FOLDER), "--edits", str(ALMANAC_FOLDER / "edits.jsonl"))
# Benchmarks that ship with the program.
COMMANDS = (
    ("stream", *(option for name in CONTENDERS for option in ("--contender", name))),
    ("contrast",),
    ("continual", *ALMANAC, *(option for name in CONTINUAL for option in ("--contender", name))),
)


def main() -> None:
    """The command. If a benchmark fails, the others still run, and the command fails at the end."""
    failed = [name for name in NAMES if run(name) != 0]
    failed += [f"errata bench {command[0]}" for command in COMMANDS if _bench(command) != 0]
    if run("report") != 0 or failed:
        sys.exit(f"failed: {', '.join(failed) or 'report'}")


def _bench(command: tuple[str, ...]) -> int:
    whole = [sys.executable, "-m", "service", "bench", *command, "--out", str(RESULTS)]
    return subprocess.run(whole, check=False).returncode


if __name__ == "__main__":
    main()

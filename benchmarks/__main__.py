"""Every benchmark, one after the other, each in a process of its own; then the document."""

import subprocess
import sys

from benchmarks.command import RESULTS, run
from service.bench.contenders import CONTENDERS

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
# Those that ship with the program.
COMMANDS = (
    ("stream", *(option for name in CONTENDERS for option in ("--contender", name))),
    ("contrast",),
)


def main() -> None:
    """The command; it fails if one of them does, and goes on to the others first."""
    failed = [name for name in NAMES if run(name) != 0]
    failed += [f"errata bench {command[0]}" for command in COMMANDS if _bench(command) != 0]
    if run("report") != 0 or failed:
        sys.exit(f"failed: {', '.join(failed) or 'report'}")


def _bench(command: tuple[str, ...]) -> int:
    whole = [sys.executable, "-m", "service", "bench", *command, "--out", str(RESULTS)]
    return subprocess.run(whole, check=False).returncode


if __name__ == "__main__":
    main()

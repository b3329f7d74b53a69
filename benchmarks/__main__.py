"""Every benchmark, one after the other, each in a process of its own; then the document."""

import sys

from benchmarks.outcome import run

NAMES = (
    "single",
    "stream",
    "latency",
    "rollback",
    "cached_step",
    "load_balance",
    "serving_under_load",
    "gpu_8b",
    "kill9",
)


def main() -> None:
    """The command; it fails if one of them does, and goes on to the others first."""
    failed = [name for name in NAMES if run(name) != 0]
    if run("report") != 0 or failed:
        sys.exit(f"failed: {', '.join(failed) or 'report'}")


if __name__ == "__main__":
    main()

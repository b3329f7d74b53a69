"""Compare two revisions of the service from outside: whether anything that a user can see has changed between them.

Each is started from its own source tree as `python -m service serve` and is asked over HTTP. *bytes*: the same edits and
retrains come to the same checkpoints and answers. *documents*: the API's description, the settings, the help texts and the
schema are the same; reworded prose is counted and listed, and is no difference. *store*: the revision after opens what the
revision before wrote. *times*: an edit, an answer and a retrain take as long. The command fails if there is a difference that is
not expected; times alone never fail.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.compare.checkpoints import compare_bytes
from benchmarks.compare.documents import compare_documents
from benchmarks.compare.result import NAME, write_result
from benchmarks.compare.store import compare_store
from benchmarks.compare.times import SAMPLES, compare_times
from benchmarks.compare.trees import Tree, open_tree

PARTS = ("bytes", "documents", "store", "times")
OUT = Path(__file__).with_name("results") / f"{NAME}.json"
QUIET_CORES = 0.1  # of other programs, beyond which times are not to be trusted
SHOWN = 40  # differences that are printed of one part


def main() -> None:
    """The command. It fails if there is an unexpected difference."""
    arguments = _parse_options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))  # so that all servers end
    with ExitStack() as stack:
        room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="errata-compare-")))
        before = stack.enter_context(open_tree("before", arguments.before, room))
        after = stack.enter_context(open_tree("after", arguments.after, room))
        print(f"before: {before.name}, after: {after.name}", flush=True)
        parts = _run_parts((before, after), room, arguments)
        write_result(arguments.out, (before, after), parts)
    if any(part.get("differences") for part in parts.values()):
        sys.exit(1)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("before", help="a revision of git, or a folder with a checkout")
    parser.add_argument("--after", default=None, help="a revision, or a folder; default: the tree that this runs in")
    parser.add_argument("--pairs", type=int, default=24, help="pairs of timed samples")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument(
        "--expected", action="append", default=[], help="a change that contains this text is no difference (not of a store)"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="the file of the results")
    return parser.parse_args()


def _run_parts(trees: tuple[Tree, Tree], room: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The results of the chosen parts. Each is printed as soon as it is complete."""
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "bytes": lambda: compare_bytes(trees, room / "bytes", arguments.expected),
        "documents": lambda: compare_documents(trees, room / "documents", arguments.expected),
        "store": lambda: compare_store(trees, room / "store"),
        "times": lambda: compare_times(trees, room / "times", arguments.pairs),
    }
    results = {}
    for name in arguments.only or PARTS:
        (room / name).mkdir()
        started_at = time.monotonic()
        results[name] = parts[name]() | {"seconds": round(time.monotonic() - started_at, 1)}
        _print_part(name, results[name])
    return results


def _print_part(name: str, part: dict[str, Any]) -> None:
    """Print the result of a part."""
    print(f"{name}: {part['seconds']:.0f} s", flush=True)
    if name == "times":
        for sample in SAMPLES:
            figures, ratio = part[sample], part[sample]["ratio"]
            text = f"ratio {ratio['median']:.3f}, 95 % interval {ratio['low']:.3f} to {ratio['high']:.3f}"
            print(f"  {sample}: {figures['before_ms']:.1f} ms before, {figures['after_ms']:.1f} ms after, {text}", flush=True)
        advice = "; repeat it on a quiet machine" if part["cores_of_others"] > QUIET_CORES else ""
        print(f"  meanwhile other programs used {part['cores_of_others']:.2f} cores (median){advice}", flush=True)
        return
    counts = {key: len(value) if isinstance(value, list) else value for key, value in part.items() if key != "seconds"}
    print("  " + ", ".join(f"{count} {key.replace('_', ' ')}" for key, count in counts.items()))
    for line in part["differences"][:SHOWN]:
        print(f"  {line}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""The part *times*: an edit, an answer and a retrain, in pairs, on two otherwise idle servers that run at once.

Both servers get the same calls, so their stores have the same versions. Every sample begins with the same few edits in the
window: the version of an edit or a retrain is rolled back before the next sample, since an edit costs more with a longer window.
In every other pair the revision after comes first, so a drift of the machine favours neither. A sample begins when both servers
compute nothing.

The interval shows the spread of the pairs of one run. It shows neither the difference between one pair of processes and the next,
nor the effect of a busy machine. Compare a revision with itself first, to see which differences a run on this machine can show.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks.compare.calls import generate, post_edit, read_head, retrain, roll_back
from benchmarks.compare.facts import FACTS, PROMPTS, EditFact
from benchmarks.compare.ratios import compute_ratio
from benchmarks.compare.servers import RevisionServer
from benchmarks.compare.trees import Tree

WINDOW = 5
LOOK_S = 0.2
TICKS = os.sysconf("SC_CLK_TCK")
# Fewer neutral sentences than by default make a retrain much shorter, so that more pairs fit into the same time.
SENTENCES = 600


@dataclass
class Side:
    """One server, the version that its samples begin with, and the seconds of each kind of sample."""

    server: RevisionServer
    client: httpx.Client
    start_version: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def return_to_start(self) -> None:
        """Roll back to the start version. It gets a new number, so it is never collected for its age."""
        self.start_version = roll_back(self.client, self.start_version)


def compare_times(trees: tuple[Tree, Tree], room: Path, pairs: int) -> dict[str, Any]:
    """Medians of both revisions and of their ratios, for each kind of sample."""
    with ExitStack() as stack:
        before, after = (_open_side(stack, tree, room / f"data-times-{tree.side}") for tree in trees)
        _take_pair(before, after, FACTS[-1])  # warms the servers up
        for side in (before, after):
            side.seconds.clear()
        core_counts = []
        for number in range(pairs):
            first, second = (before, after) if number % 2 == 0 else (after, before)
            core_counts.append(_cores_of_others(before, after))
            _take_pair(first, second, FACTS[WINDOW + number % (len(FACTS) - WINDOW)])
            print(f"times: pair {number + 1} of {pairs}", flush=True)
    return {
        "pairs": pairs,
        "window": WINDOW,
        "neutral_sentences": SENTENCES,
        "cores_of_others": round(median(core_counts), 2),
        **{name: _figures(before.seconds[name], after.seconds[name]) for name in SAMPLES},
    }


def _open_side(stack: ExitStack, tree: Tree, data: Path) -> Side:
    """A server with a few edits in its window."""
    server = stack.enter_context(RevisionServer(tree, data, NEUTRAL__SENTENCES=str(SENTENCES)))
    client = stack.enter_context(server.client())
    for fact in FACTS[:WINDOW]:
        post_edit(client, fact)
    return Side(server, client, read_head(client))


def _take_pair(first: Side, second: Side, fact: EditFact) -> None:
    """One sample of each kind on both sides. The sides take turns within each kind."""
    for name, sample in SAMPLES.items():
        for side in (first, second):
            for other in (first, second):
                other.server.wait_until_quiet()
            side.seconds.setdefault(name, []).append(sample(side, fact))


def _cores_of_others(*sides: Side) -> float:
    """The cores that other programs use while both servers are quiet. With more than a few hundredths, times are less certain."""
    for side in sides:
        side.server.wait_until_quiet()
    ticks = _ticks_of_all()
    time.sleep(LOOK_S)
    return (_ticks_of_all() - ticks) / TICKS / LOOK_S


def _ticks_of_all() -> int:
    """The processor time of all processes of the machine: user, nice and system, from the first line of /proc/stat."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        return sum(int(field) for field in file.readline().split()[1:4])


def _time_edit(side: Side, fact: EditFact) -> float:
    """From the first byte of an edit until the answer that it is applied."""
    seconds = _measure_seconds(lambda: post_edit(side.client, fact))
    side.return_to_start()
    return seconds


def _time_answers(side: Side, _fact: EditFact) -> float:
    """An answer, as the mean of forty different ones."""
    return _measure_seconds(lambda: [generate(side.client, question) for question in PROMPTS]) / len(PROMPTS)


def _time_retrain(side: Side, _fact: EditFact) -> float:
    """From the request of a major retrain until its job has ended."""
    seconds = _measure_seconds(lambda: retrain(side.client, "major"))
    side.return_to_start()
    return seconds


SAMPLES: dict[str, Callable[[Side, EditFact], float]] = {"edit": _time_edit, "answer": _time_answers, "retrain": _time_retrain}


def _measure_seconds(work: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at


def _figures(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """The figures of one kind of sample."""
    ratio = {name: round(value, 4) for name, value in asdict(compute_ratio(before, after)).items()}
    return {"before_ms": round(1000 * median(before), 2), "after_ms": round(1000 * median(after), 2), "ratio": ratio}

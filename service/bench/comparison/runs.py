"""The comparison: one contender after another on the same edits of a ground, asked the same questions at every mark.

A result file has one contender. A mark that it has is not run again, so that an interrupted command goes on where it ended; a
server that is edited gets its edits again.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from service.bench import plots
from service.bench.comparison.contenders import COMPARED, ComparedContender
from service.bench.comparison.marks import Costs, Mark, measure_mark
from service.bench.comparison.prompting import AllEditsContender, NearestContender
from service.bench.comparison.questions import MOST
from service.bench.comparison.tables import Row, build_panels, build_rows, format_row
from service.bench.contenders import CONTENDERS, ON_REQUEST
from service.bench.ground.asking import BaseAnswers
from service.bench.ground.contenders import Contender, PromptContender, VersionContender
from service.bench.ground.records import Ground, GroundEdit, read_ground
from service.bench.ground.runs import build_edit
from service.bench.ground.server import GroundServer, run_ground_server
from service.bench.new_server import WAIT_S
from service.bench.results import write, write_csv
from service.client.waiting import is_counted_live
from service.domain.errors import Refused
from service.runtime.base_model import read_fingerprint
from service.settings import load_settings

Say = Callable[[str], None]
DEADLINE = {"ERRATA_GENERATION__DEADLINE_S": "600"}  # the prompt with all edits is long
UNEDITED = {"ERRATA_NEUTRAL__SENTENCES": "0"}  # a server that fits nothing keeps nothing


@dataclass(frozen=True)
class GroundComparison:
    """What all contenders share."""

    model: str
    ground: Ground
    edits: Sequence[GroundEdit]  # as many as the last mark has
    surface: str
    half: str
    marks: Sequence[int]
    seed: int
    dtype: str
    out: Path

    @property
    def name(self) -> str:
        """The beginning of the names of its files."""
        return f"ground_compare_{self.ground.short_name}_{self.surface}_{self.half}"

    def read_marks(self, contender: str) -> dict[int, Mark]:
        """The finished marks of a contender. Raises Refused if the file is of other edits or settings."""
        path = self.out / f"{self.name}_{contender}.json"
        if not path.exists():
            return {}
        figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
        if figures["inputs"] != self._inputs(contender):
            raise Refused("the folder has results of another ground or other settings; name another folder", field="out")
        return {mark["edits"]: mark for mark in figures["marks"]}

    def write_marks(self, contender: str, marks: Mapping[int, Mark], device: str) -> None:
        """Write the result file of a contender."""
        figures = {
            "model": self.ground.short_name,
            "surface": self.surface,
            "half": self.half,
            "contender": contender,
            "seed": self.seed,
            "most_questions": MOST,
            "dtype": self.dtype,
            "inputs": self._inputs(contender),
            "marks": [marks[number] for number in sorted(marks)],
        }
        write(self.out, f"{self.name}_{contender}", figures, device=device)

    def _inputs(self, contender: str) -> str:
        """A digest of what the figures depend on. The marks are no part of it: a mark is the same whatever follows."""
        same = [edit for edit in self.ground.edits if (edit.surface, edit.half) == (self.surface, self.half)]
        edits = [[edit.id, edit.ask.text, edit.target] for edit in same]
        settings = CONTENDERS[COMPARED[contender].server]
        parts: list[Any] = [self.ground.fingerprint, edits, dict(settings), self.seed, MOST, self.dtype]
        return sha256(json.dumps(parts).encode()).hexdigest()[:16]


def run_comparison(
    model: str,
    file: Path,
    out: Path,
    contenders: Sequence[str],
    *,
    surface: str,
    half: str,
    marks: Sequence[int],
    seed: int,
    dtype: str,
    say: Say,
) -> None:
    """Run the contenders and leave a result file of each, a table and a plot of all in `out`.

    Raises Refused if the ground is another model's or has too few edits, Unavailable if a server does not start.
    """
    ground = read_ground(file)
    ground.check_model(read_fingerprint(load_settings(model=model)))
    edits = ground.select(surface, half, max(marks))
    if len(edits) < max(marks):
        raise Refused(
            f"the ground has only {len(edits)} such edits; make it with more by errata bench ground --edits", field="marks"
        )
    comparison = GroundComparison(model, ground, edits, surface, half, sorted(set(marks)), seed, dtype, out)
    for name in contenders:
        finished = comparison.read_marks(name)
        if set(comparison.marks) <= set(finished):
            say(f"-- {name}: it is in the results already")
        else:
            say(f"-- {name}")
            _run_contender(comparison, name, finished, say)
        write_table(comparison, say)


def _run_contender(comparison: GroundComparison, name: str, finished: dict[int, Mark], say: Say) -> None:
    contender = COMPARED[name]
    environment = {
        **({} if comparison.dtype == "auto" else {"ERRATA_DTYPE": comparison.dtype}),
        **DEADLINE,
        **(UNEDITED if contender.prompting else {}),
        **(ON_REQUEST if contender.weights_alone else {}),
    }
    every = max(comparison.marks)
    with run_ground_server(comparison.model, contender.server, every=every, environment=environment) as server:
        for mark in measure_contender(comparison, contender, server, finished):
            finished[mark["edits"]] = mark
            comparison.write_marks(name, finished, str(server.base.device))
            say(format_row(build_rows(name, [mark])[0]))


def measure_contender(
    comparison: GroundComparison, contender: ComparedContender, server: GroundServer, finished: Collection[int]
) -> Iterator[Mark]:
    """The marks that are not finished, one after another. A server that is edited gets the edits of finished ones, too."""
    base = PromptContender(BaseAnswers(server.base_view), states=False)
    prompting = _open_prompting(contender, server)
    costs = Costs(server)
    costs.take(1)
    before = 0
    for number in comparison.marks:
        edits = comparison.edits[:number]
        state = {} if prompting else _post(server, contender, edits[before:], costs)
        mark = {}
        if number not in finished:
            asked = prompting or server.open(state["version"], weights_alone=contender.weights_alone)
            mark = measure_mark(server, asked, base, edits, comparison.seed)
        spent = costs.take(number - before)
        if mark:
            yield {**mark, **state, **spent}
        before = number


def _open_prompting(contender: ComparedContender, server: GroundServer) -> Contender | None:
    """What answers where edits stand in prompts; None where a server is edited."""
    if contender.prompting == "all":
        return AllEditsContender(server.base_view)
    if contender.prompting == "nearest":
        return NearestContender(server.base_view)
    return VersionContender(server.base_view, None) if contender.prompting == "nothing" else None


def _post(server: GroundServer, contender: ComparedContender, edits: Sequence[GroundEdit], costs: Costs) -> dict[str, Any]:
    """Post edits one after another, and wait until nothing waits, or for the mark's retrain. Returns what the server then is."""
    retrain = {}
    with costs.editing():
        for edit in edits:
            started_at = time.monotonic()
            posted = server.client.post_edit(build_edit(edit), wait_s=WAIT_S)
            if is_counted_live(posted):
                costs.live_after.append(time.monotonic() - started_at)
        if contender.weights_alone:
            job = server.retrain_everything()
            retrain = {"retrain": job["status"], "error": job["error"]}
        else:
            server.wait_until_nothing_waits()
    head = server.client.get_version("head")
    done = [job for job in server.client.list_jobs(kind=["retrain"]) if job["status"] == "done"]
    state = {"version": head["number"], "window": head["window"], "live": len(server.list_live()), "retrains": len(done)}
    return state | retrain


def write_table(comparison: GroundComparison, say: Say) -> None:
    """Write the table and the plot of all contenders of the folder."""
    rows: list[Row] = []
    for name in COMPARED:
        marks = comparison.read_marks(name)
        rows += build_rows(name, [marks[number] for number in sorted(marks)])
    write_csv(comparison.out / f"{comparison.name}.csv", rows)
    if not plots.draw(comparison.out / f"{comparison.name}.svg", build_panels(rows)):
        say(plots.MISSING)

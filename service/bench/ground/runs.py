"""Edits of a ground through a real server: single ones, each on the base model, and a stream of them, one on top of another.

The null contenders are asked the same probes beside the server's versions.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.bench.ground.asking import BaseAnswers
from service.bench.ground.cases import EVERY
from service.bench.ground.contenders import NULLS, Contender, PromptContender
from service.bench.ground.deferrals import count_reasons
from service.bench.ground.records import PROSE_GROUPS, Ground, GroundEdit, ProsePassage
from service.bench.ground.scores import ProbeScore, ProseScore, score_edits, score_prose, summarise
from service.bench.ground.server import PATIENCE_S, GroundServer
from service.bench.new_server import WAIT_S
from service.bench.results import percentile, write
from service.client.shapes import EditData, EditInput
from service.client.waiting import LIVE, WAITING, is_counted_live

PASSAGES_AN_EDIT = 2  # of each kind of prose
Say = Callable[[str], None]


@dataclass(frozen=True)
class GroundRun:
    """What is posted: the edits of one surface and one half of a ground."""

    ground: Ground
    edits: Sequence[GroundEdit]
    surface: str
    half: str
    contender: str = "default"
    case: str = EVERY

    def prose_for(self, number: int) -> list[ProsePassage]:
        """A few passages of each kind for a single edit. Edits take turns, so that all passages are used."""
        passages: list[ProsePassage] = []
        for group in PROSE_GROUPS:
            own = [passage for passage in self.ground.prose if passage.group == group]
            first = PASSAGES_AN_EDIT * number
            passages += [own[index % len(own)] for index in range(first, first + PASSAGES_AN_EDIT) if own]
        return passages

    def describe(self) -> dict[str, Any]:
        """The run in its result file."""
        return {
            "model": self.ground.short_name,
            "surface": self.surface,
            "half": self.half,
            "contender": self.contender,
            "case": self.case,
            "edits": len(self.edits),
        }


@dataclass
class Tally:
    """The scores so far of one contender."""

    probes: list[ProbeScore] = field(default_factory=list)
    prose: list[ProseScore] = field(default_factory=list)

    def add(self, contender: Contender, base: Contender, run: GroundRun, edit: GroundEdit, number: int, *, is_live: bool) -> None:
        """Score the edit with this number, alone on the base model."""
        live = [edit] if is_live else []
        self.probes += score_edits(contender, base, [edit], live)
        if is_live:
            self.prose += score_prose(contender, base.view, run.prose_for(number), live, id=edit.id)

    def summarise(self) -> dict[str, Any]:
        """Every figure so far."""
        return summarise(self.probes, self.prose)


def run_singles(server: GroundServer, run: GroundRun, out: Path, name: str, say: Say) -> None:
    """Each edit alone on the base model. Its result is written after every edit, since a run may be interrupted anywhere."""
    answers = BaseAnswers(server.base_view)
    base = PromptContender(answers, states=False)
    tally, nulls = Tally(), {label: Tally() for label in NULLS}
    live_count, seconds, all_posted = 0, list[float](), list[EditData]()
    for number, edit in enumerate(run.edits, 1):
        started_at = time.monotonic()
        posted = _post(server, edit)
        all_posted.append(posted)
        is_live = is_counted_live(posted) and posted["version"] is not None
        if is_live:
            live_count += 1
            seconds.append(time.monotonic() - started_at)
        contender = server.open(posted["version"]) if is_live and posted["version"] is not None else base
        tally.add(contender, base, run, edit, number, is_live=is_live)
        for label, null in nulls.items():
            null.add(PromptContender(answers, NULLS[label]), base, run, edit, number, is_live=True)
        _take_back(server, posted)
        figures = {
            **run.describe(),
            "posted": number,
            "live": live_count / number,
            "deferred for": count_reasons(all_posted),
            "seconds_p50": percentile(seconds, 0.5) if seconds else None,
            "default": tally.summarise(),
            "nulls": {label: null.summarise() for label, null in nulls.items()},
        }
        write(out, name, figures)
        say(f"   {number} of {len(run.edits)}: {posted['status']} after {time.monotonic() - started_at:.0f} s")


def run_stream(server: GroundServer, run: GroundRun, out: Path, name: str, *, every: int, say: Say) -> None:
    """The edits one after another. At every mark, when no edit waits and no retrain is under way, all are asked on the head."""
    base = PromptContender(BaseAnswers(server.base_view), states=False)
    marks: list[dict[str, Any]] = []
    ids: dict[str, GroundEdit] = {}
    seconds: list[float] = []
    all_posted: list[EditData] = []
    for start in range(0, len(run.edits), every):
        for edit in run.edits[start : start + every]:
            started_at = time.monotonic()
            posted = server.client.post_edit(build_edit(edit), wait_s=WAIT_S)
            ids[posted["id"]] = edit
            all_posted.append(posted)
            if is_counted_live(posted):
                seconds.append(time.monotonic() - started_at)
            say(f"   {len(ids)} of {len(run.edits)}: {posted['status']} after {time.monotonic() - started_at:.0f} s")
        marks.append({**_mark(server, base, run, ids, seconds), "deferred for": count_reasons(all_posted)})
        write(out, name, {**run.describe(), "every": every, "marks": marks})
        say(f"   mark at {len(ids)}: {marks[-1]['live']} live")


def _mark(
    server: GroundServer, base: PromptContender, run: GroundRun, ids: dict[str, GroundEdit], seconds: Sequence[float]
) -> dict[str, Any]:
    started_at = time.monotonic()
    server.wait_until_nothing_waits()
    waited_s = time.monotonic() - started_at
    head = server.client.get_version("head")
    live_ids = server.list_live()
    edits = list(ids.values())
    live = [edit for id, edit in ids.items() if id in live_ids]
    scores: dict[str, Any] = {}
    for label, contender, answered in _contenders(server, base.answers, head["number"], edits, live):
        probes = score_edits(contender, base, edits, answered)
        prose = score_prose(contender, base.view, run.ground.prose, answered, id="all") if answered else []
        scores[label] = summarise(probes, prose)
    return {
        "posted": len(edits),
        "live": len(live),
        "accepted_anyway": len(server.list_live(with_overruled=True)) - len(live_ids),
        "window": head["window"],
        "version": head["number"],
        "retrains": sum(job["status"] == "done" for job in server.client.list_jobs(kind=["retrain"])),
        "waited_s": waited_s,
        "seconds_p50": percentile(seconds, 0.5) if seconds else None,
        **scores,
    }


def _contenders(
    server: GroundServer,
    answers: BaseAnswers,
    version: int,
    edits: Sequence[GroundEdit],
    live: Sequence[GroundEdit],
) -> Iterator[tuple[str, Contender, Sequence[GroundEdit]]]:
    """The head with the live edits, and the nulls with all of them."""
    yield "default", server.open(version), live
    for label, states in NULLS.items():
        yield label, PromptContender(answers, states), edits


def build_edit(edit: GroundEdit) -> EditInput:
    """An edit as a user posts it. Half of them name no subject. No probe is posted: a benchmark must not teach its questions."""
    body: EditInput = {
        "prompt": edit.ask.text,
        "target": edit.target,
        "surfaces": ["chat" if edit.ask.surface == "chat" else "raw"],
        "ground_truth": edit.truth,
    }
    return {**body, "subject": edit.subject} if edit.names_subject else body


def _post(server: GroundServer, edit: GroundEdit) -> EditData:
    """Post an edit and wait until its first job has settled it."""
    posted = server.client.post_edit(build_edit(edit), wait_s=WAIT_S)
    return server.client.wait_for_edit(posted["id"], timeout_s=PATIENCE_S)


def _take_back(server: GroundServer, posted: EditData) -> None:
    """Make the base model the head again, and let no deferred edit join the next fit."""
    if posted["status"] in LIVE:
        server.client.rollback(0, "the next edit of the benchmark stands alone")
    elif posted["status"] in WAITING:
        server.client.retract(posted["id"], wait_s=WAIT_S)

"""What the weights alone do to a model: edits of a ground wait, one major retrain takes them all, and no adapter is asked."""

import time
from pathlib import Path

from service.bench.ground.asking import BaseAnswers
from service.bench.ground.contenders import PromptContender
from service.bench.ground.runs import GroundRun, Say, build_edit
from service.bench.ground.scores import list_questions, score_prose, score_questions, summarise
from service.bench.ground.server import GroundServer
from service.bench.new_server import WAIT_S
from service.bench.results import write


def run_retrain(server: GroundServer, run: GroundRun, out: Path, name: str, say: Say) -> None:
    """Post the edits to a server whose edits wait, retrain, and ask every probe: of the tensors alone, and of what is served.

    All edits count, also those that the tensors do not answer: BaFT would carry them, and is left out here.
    """
    for edit in run.edits:
        server.client.post_edit(build_edit(edit), wait_s=WAIT_S)
    say(f"   {len(run.edits)} edits wait")
    started_at = time.monotonic()
    job = server.retrain_everything()
    seconds = time.monotonic() - started_at
    say(f"   the retrain is {job['status']} after {seconds:.0f} s")
    head = server.client.get_version("head")
    base = PromptContender(BaseAnswers(server.base_view), states=False)
    questions = list_questions(run.edits, run.edits)
    figures = {**run.describe(), "retrain": job["status"], "error": job["error"], "seconds": seconds}
    figures |= {"live": len(server.list_live()), "window": head["window"]}
    for label, weights_alone in (("weights alone", True), ("as served", False)):
        contender = server.open(head["number"], weights_alone=weights_alone)
        probes = score_questions(contender, base, questions, run.edits)
        figures[label] = summarise(probes, score_prose(contender, base.view, run.ground.prose, run.edits, id="all"))
        write(out, name, figures)

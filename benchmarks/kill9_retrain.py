"""kill -9 at random moments of a retrain and of its publication, minor and major: nothing is lost, and the digest is the same.

Every trial starts with a copy of one data folder on SQLite. After the kill the next server resumes the retrain, which must
publish the same bytes as an undisturbed retrain.
"""

import tempfile
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal

from benchmarks.command import build_parser, parse_options, write
from benchmarks.inputs import build_body
from benchmarks.retrain_trials import RetrainTrials, choose_kills
from benchmarks.servers import Zygote
from service.atlas import benchmark
from service.client.shapes import EditInput
from service.evaluation.records import read_records


def main() -> None:
    """The command."""
    parser = build_parser(__doc__)
    parser.add_argument("--kills", type=int, default=10, help="of each kind of retrain")
    parser.add_argument("--edits", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parse_options(parser)
    records = read_records(arguments.records or benchmark.FILE)
    bodies = [build_body(record) for record in islice(records, arguments.edits)]
    figures: dict[str, Any] = {"seed": arguments.seed, "edits": len(bodies)}
    zygote = Zygote()
    try:
        modes: tuple[Literal["major", "minor"], ...] = ("major", "minor")
        for mode in modes:
            figures[mode] = run_trials(zygote, mode, bodies, {"model": arguments.model}, arguments.kills, arguments.seed)
            write(arguments.results, "kill9_retrain", figures)
    finally:
        zygote.close()
    if figures["major"]["faults"] or figures["minor"]["faults"]:
        raise SystemExit(1)


def run_trials(
    zygote: Zygote, mode: Literal["minor", "major"], bodies: list[EditInput], settings: dict[str, Any], count: int, seed: int
) -> dict[str, Any]:
    """All kills of one kind of retrain."""
    with tempfile.TemporaryDirectory(prefix="errata-benchmark-") as folder:
        retrain = RetrainTrials(zygote, Path(folder), mode, bodies, settings)
        moments, faults = [], []
        for kill in choose_kills(count, Random(seed)):
            new_faults = [f"{kill}: {fault}" for fault in retrain.run_trial(kill)]
            print(f"   {mode}, kill {kill}: {'; '.join(new_faults) or 'all well'}", flush=True)
            moments.append(str(kill))
            faults += new_faults
        return {
            "kills": len(moments),
            "at": moments,
            "faults": faults,
            "digest": retrain.undisturbed.digest,
            "undisturbed_s": retrain.undisturbed.seconds,
        }


if __name__ == "__main__":
    main()

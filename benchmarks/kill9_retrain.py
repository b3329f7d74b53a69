"""kill -9 at random moments of a retrain and of its publication, minor and major: nothing is lost, and the digest is the same.

Every trial starts at a copy of one data folder on SQLite; a retrain that was killed is taken up again by the next server, and
must publish the bytes that an undisturbed one publishes.
"""

import tempfile
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.atlas import build_body
from benchmarks.killed_retrain import RetrainTrials, choose_kills
from benchmarks.outcome import build_parser, parse_options, write
from benchmarks.servers import Zygote
from service.atlas import benchmark
from service.evaluation.records import read_records


def main() -> None:
    """The command."""
    parser = build_parser(__doc__)
    parser.add_argument("--kills", type=int, default=10, help="of each kind of retrain")
    parser.add_argument("--edits", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parse_options(parser)
    records = read_records(chosen.records or benchmark.FILE)
    bodies = [build_body(record) for record in islice(records, chosen.edits)]
    figures: dict[str, Any] = {"seed": chosen.seed, "edits": len(bodies)}
    zygote = Zygote()
    try:
        for mode in ("major", "minor"):
            figures[mode] = run_trials(zygote, mode, bodies, {"model": chosen.model}, chosen.kills, chosen.seed)
            write(chosen.results, "kill9_retrain", figures)
    finally:
        zygote.close()
    if figures["major"]["faults"] or figures["minor"]["faults"]:
        raise SystemExit(1)


def run_trials(
    zygote: Zygote, mode: str, bodies: list[dict[str, Any]], settings: dict[str, Any], count: int, seed: int
) -> dict[str, Any]:
    """All kills of one kind of retrain."""
    with tempfile.TemporaryDirectory(prefix="errata-benchmark-") as folder:
        retrain = RetrainTrials(zygote, Path(folder), mode, bodies, settings)
        at, faults = [], []
        for kill in choose_kills(count, Random(seed)):
            found = [f"{kill}: {fault}" for fault in retrain.trial(kill)]
            print(f"   {mode}, kill {kill}: {'; '.join(found) or 'all well'}", flush=True)
            at.append(str(kill))
            faults += found
        return {
            "kills": len(at),
            "at": at,
            "faults": faults,
            "digest": retrain.undisturbed.digest,
            "undisturbed_s": retrain.undisturbed.seconds,
        }


if __name__ == "__main__":
    main()

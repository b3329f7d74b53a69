"""kill -9 of a real server in a retrain, minor and major; `python -m benchmarks.kill9_retrain` does many more."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.retrain_trials import Kill, RetrainTrials
from benchmarks.servers import Zygote

KILLS = {
    "major": (Kill(point="retrain.middle"), Kill(point="publish.before_commit")),
    "minor": (Kill(point="retrain.before_publish"), Kill(share=0.5)),
}


@pytest.mark.parametrize("mode", KILLS)
def test_a_killed_retrain_publishes_the_same_bytes_and_loses_nothing(
    zygote: Zygote, tiny: dict[str, Any], neutral_cache: Path, tmp_path: Path, mode: str
) -> None:
    bodies = [{"prompt": f"Line {number} says", "target": "abcdefgh"[number]} for number in range(4)]
    retrain = RetrainTrials(zygote, tmp_path, mode, bodies, tiny, cache=neutral_cache)

    faults = [fault for kill in KILLS[mode] for fault in retrain.run_trial(kill)]

    assert faults == []

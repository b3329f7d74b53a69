"""With the real editors, on a tiny model that has learned a few sentences: the tensors of a major retrain are a function of what
is live, so an edit that was taken back leaves no trace in their bytes.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from service.background.monitor import Monitor
from service.domain.acceptance import AcceptanceLimits
from service.lifecycle.editors import Editors
from service.lifecycle.settings import LifecycleSettings
from service.locality.meter import LocalityMeter
from service.runtime.editors import bind_editors
from service.runtime.evaluator import Evaluator
from service.settings import Settings
from service.store import measurements
from service.store.versions import read_page
from tests.editors.taught_model import SMALL, neutral, taught_base, view_of
from tests.lifecycle.local_service import PATIENT, LocalService, new_local_service, retrained
from tests.no_limits import NO_LIMITS

EDITS = (("red is", "B"), ("sky is", "C"), ("sea is", "D"), ("cat is", "E"))
ACCEPTANCE = AcceptanceLimits(**NO_LIMITS)


class Real:
    """The real editors where a service expects the ledger."""

    def editors(self) -> Editors:
        small = {"position": "published", "epochs": 60, "preserve_rows": 4, "preserve_pool": 8, "wordings": 0}
        locft = {**small, "learning_rate": 5e-3}
        settings = Settings(baft=SMALL, locft=locft)  # type: ignore[arg-type]
        meter = LocalityMeter(taught_base(), view_of, ())
        meter.set_sentences(neutral().held_out)
        return bind_editors(taught_base(), view_of, neutral(), Evaluator(taught_base(), view_of), settings, meter=meter)


def real_service(folder: Path, **more: float) -> LocalService:
    folder.mkdir()
    cadence = replace(PATIENT, minor_drift=1.0, locality_fall=1.0, retention_floor=0.0)  # six sentences are a rough measure
    settings = LifecycleSettings(cadence=cadence, acceptance=ACCEPTANCE, **more)  # type: ignore[arg-type]
    return new_local_service(folder, ledger=Real(), settings=settings)


@pytest.mark.parametrize("minor_before", [False, True])
def test_a_major_retrain_gives_the_bytes_of_a_store_that_never_had_the_retracted_edit(tmp_path: Path, minor_before: bool) -> None:
    local, other = real_service(tmp_path / "one"), real_service(tmp_path / "other")
    gone, *_ = local.live(EDITS[0], *EDITS[1:3])
    assert retrained(local, "major").status == "done"
    with_it = local.head.digest
    local.live(EDITS[3])
    if minor_before:
        assert retrained(local, "minor").mode == "minor"
    local.retract(gone)
    local.worker.drain()  # answers with a tombstone, and the major retrain that makes due
    assert local.head.minors == 0

    other.live(*EDITS[1:])
    retrained(other, "major")

    assert local.head.digest == other.head.digest != with_it
    assert local.live_set.in_tensors == tuple(item for item in local.live_set.items if item.is_live)
    local.close()
    other.close()


def test_a_major_retrain_says_how_far_the_minor_ones_had_drifted(tmp_path: Path) -> None:
    local = real_service(tmp_path / "one")
    for fact in EDITS[:2]:
        local.live(fact)
        retrained(local)

    retrained(local, "major")

    drift = local.head.scores["drift"]
    assert drift["minors"] == 1
    assert 0 < drift["from_head"] <= drift["from_base"] + drift["head_from_base"] + 1e-6
    assert 0 < drift["from_base"] < 1
    local.close()


def test_the_monitor_asks_the_edits_and_the_sentences_of_a_real_head(tmp_path: Path) -> None:
    local = real_service(tmp_path / "one", monitor_s=1e-9)
    local.live(*EDITS[:2])
    monitor = Monitor(local.context, now=iter(range(1_000)).__next__)

    while monitor.step():
        pass

    with local.store.read() as connection:
        (head, *_) = read_page(connection, limit=1)
        found = measurements.read_latest(connection, head.number)
    assert {name: one.source for name, one in found.items()} == dict.fromkeys(("retention", "prose_inside", "prose"), "monitor")
    assert (found["retention"].score, found["retention"].n) == (1.0, 2)
    assert found["prose"].score == pytest.approx(head.scores["locality"]["prose"]["kept"])
    local.close()

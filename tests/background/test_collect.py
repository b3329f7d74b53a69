"""Collecting versions beyond the retention."""

import os
from pathlib import Path

import pytest

from service.background.collect import collect, pin
from service.domain.errors import Conflict, Gone
from service.domain.version import VersionStatus
from service.lifecycle.settings import LifecycleSettings
from tests.lifecycle.local_service import PATIENT, new_local_service


def test_versions_beyond_retention_are_collected_and_answer_gone(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=PATIENT, keep_last=2, keep_every=3, orphan_s=0.0))
    local.live(*((name, "1") for name in "abcdefg"))
    pin(local.context, 1, author="ann")
    for path in local.folder.glob("*.safetensors"):
        os.utime(path, (0, 0))

    collect(local.context)

    collected = [version.number for version in local.versions() if version.status is VersionStatus.COLLECTED]
    assert collected == [2, 4, 5]
    # Versions 1 (pinned), 3 (every third), 6 and 7 (the last two).
    assert len(list(local.folder.glob("*.safetensors"))) == 4
    with pytest.raises(Gone):
        local.roll_back(2)
    with pytest.raises(Conflict):
        pin(local.context, 2, author="ann")
    local.close()

"""The CPUs that a process may use."""

import os
from pathlib import Path

import pytest

from service.lm.usable_cpus import count_usable_cpus


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),  # half a CPU
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 8),
        ("0::/a.slice/b.service\n", {"a.slice/cpu.max": "300000 100000", "a.slice/b.service/cpu.max": "max 100000"}, 3),
        ("0::/host/path\n", {"cpu.max": "400000 100000"}, 4),  # a container that sees its own group as the root
        ("4:cpu,cpuacct:/box\n1:memory:/\n", {"cpu/box/cpu.cfs_quota_us": "200000", "cpu/box/cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu,cpuacct:/box\n", {"cpu/box/cpu.cfs_quota_us": "-1", "cpu/box/cpu.cfs_period_us": "100000"}, 8),
        ("0::/\n", {"cpu.max": "much more than numbers\n"}, 8),
        ("0::/\n", {"cpu.max": "100000 0\n"}, 8),
        ("no groups at all\n", {}, 8),
    ],
)
def test_affinity_and_the_limits_of_control_groups_are_kept(
    groups: str, files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    write(tmp_path, {"cgroup": groups})

    assert count_usable_cpus(tmp_path / "cgroup", write(tmp_path / "mount", files)) == expected


def test_a_system_without_control_groups_has_its_affinity_alone(tmp_path: Path) -> None:
    assert count_usable_cpus(tmp_path / "nothing", tmp_path / "nothing") == 8

"""How many CPUs this process may use: by its affinity, and by the limits of its control groups."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

GROUPS = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def count_usable_cpus(groups: Path = GROUPS, mount: Path = MOUNT) -> int:
    """At least 1. A limit that cannot be read counts as none. `groups`, `mount`: where Linux says them."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    cpus = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min([cpus, *(int(limit) for limit in _limits(groups, mount))]))


def _limits(groups: Path, mount: Path) -> Iterator[float]:
    """The CPUs that each control group of this process allows. A container may see its own group at the mount's root."""
    with contextlib.suppress(OSError, ValueError):
        for line in groups.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if not controllers:
                yield from _read(mount, name, _version_2)
            elif "cpu" in controllers.split(","):
                yield from _read(mount / "cpu", name, _version_1)


def _read(root: Path, name: str, read_limit: Callable[[Path], tuple[int, int]]) -> Iterator[float]:
    own = root / name.lstrip("/")
    for folder in (own, *own.parents):
        if not folder.is_relative_to(root):
            return
        with contextlib.suppress(OSError, ValueError):
            quota, period = read_limit(folder)
            if quota > 0 and period > 0:
                yield quota / period


def _version_2(folder: Path) -> tuple[int, int]:
    """ "max 100000" has no quota and raises ValueError."""
    quota, period = (folder / "cpu.max").read_text().split()
    return int(quota), int(period)


def _version_1(folder: Path) -> tuple[int, int]:
    return int((folder / "cpu.cfs_quota_us").read_text()), int((folder / "cpu.cfs_period_us").read_text())

"""What a process has cost: its processor time and the most memory that it has held."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")  # of /proc/PID/stat, in a second


@dataclass(frozen=True)
class ProcessFigures:
    """Processor seconds, user and system, of all threads; and the peak of resident memory in megabytes."""

    cpu_s: float
    peak_mb: float


def read_process(process_id: int) -> ProcessFigures | None:
    """The figures of a running process so far. None for one that has ended, and where there is no /proc."""
    folder = Path(f"/proc/{process_id}")
    try:
        fields = (folder / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        status = (folder / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    peaks = [int(line.split()[1]) for line in status if line.startswith("VmHWM:")]  # in KiB; a process that has ended has none
    return ProcessFigures((int(fields[11]) + int(fields[12])) / _TICKS, peaks[0] / 1024) if peaks else None

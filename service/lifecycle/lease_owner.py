"""Names of workers that tell, on the same machine, whether the worker's process still runs.

After a crash the next server on the machine takes over at once and does not wait for the lease to end. On another machine, and
where the system does not reveal process ids, the lease has to end.
"""

import os
import uuid
from pathlib import Path

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE_FILE = Path("/proc/self/ns/pid")


def new_owner_name() -> str:
    """A name for a worker of this process. It is unique, also among the workers of one process."""
    return f"{_machine_id()}/{os.getpid()}/{_start_ticks(os.getpid())}/{uuid.uuid4().hex}"


def is_dead(owner: str) -> bool:
    """Whether the owner's process is known to have ended: it ran on this machine, and no process has its id and start time."""
    place, _, rest = owner.rpartition("/")[0].partition("/")
    pid, _, began = rest.partition("/")
    if not place or place != _machine_id() or not pid.isdigit() or not began:
        return False
    return _start_ticks(int(pid)) != began


def _machine_id() -> str:
    """The id of this boot of this machine and of its process id namespace; empty where the system does not reveal them."""
    try:
        return f"{BOOT_ID_FILE.read_text().strip()}-{PID_NAMESPACE_FILE.readlink()}"
    except OSError:
        return ""


def _start_ticks(pid: int) -> str:
    """The start time of a process in ticks since the boot; empty if there is no such process. A process that died and was not
    waited for counts as none.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]

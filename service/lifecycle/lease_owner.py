"""Names for workers that tell, on the same machine, whether the process behind one is still there.

After a crash the next server then takes over at once instead of waiting for the lease to end. Elsewhere, and where the system
does not say, a name tells nothing and the lease is waited for.
"""

import os
import uuid
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = Path("/proc/self/ns/pid")


def new_owner_name() -> str:
    """A name for a worker of this process; unique, even among workers of one process."""
    return f"{_place()}/{os.getpid()}/{_began(os.getpid())}/{uuid.uuid4().hex}"


def is_dead(owner: str) -> bool:
    """Whether the owner's process is known to have ended: it ran here, and no process has its number and its time of start."""
    place, _, rest = owner.rpartition("/")[0].partition("/")
    pid, _, began = rest.partition("/")
    if not place or place != _place() or not pid.isdigit() or not began:
        return False
    return _began(int(pid)) != began


def _place() -> str:
    """This boot of this machine and this space of process numbers, or nothing where that cannot be told."""
    try:
        return f"{BOOT.read_text().strip()}-{NAMESPACE.readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When a process started, in ticks since the boot; nothing if there is none. A process that died and was not waited for
    counts as none.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]

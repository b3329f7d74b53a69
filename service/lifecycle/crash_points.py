"""Named points at which a test makes the process kill itself, as a power cut would. They do nothing unless one is armed."""

import os
import signal
import threading

POINTS = frozenset(
    {
        "submit.before_commit",
        "submit.after_commit",
        "claim.after_commit",
        "context.before_commit",
        "context.after_commit",
        "fit.middle",
        "publish.after_save",
        "publish.before_commit",
        "publish.after_commit",
        "rebase.before_commit",
        "rebase.after_commit",
        "rollback.before_commit",
        "rollback.after_commit",
        "request.before_commit",  # of a retrain, an export or an evaluation
        "request.after_commit",
        "revoke.before_commit",
        "revoke.after_commit",
        "retrain.middle",
        "retrain.before_publish",
        "purge.after_collecting",
        "purge.after_files",
        "purge.after_rows",
        "purge.before_answer",
    }
)
_lock = threading.Lock()
_armed: dict[str, int] = {}


def arm(setting: str | None) -> None:
    """Arm one point by its name, or with `name:n` the n-th time that it is passed. None disarms all. Raises ValueError for an
    unknown name.
    """
    _armed.clear()
    if setting:
        name, _, count = setting.partition(":")
        if name not in POINTS:
            raise ValueError(f"fault_point must be one of {', '.join(sorted(POINTS))}")
        _armed[name] = int(count or 1)


def crash_point(name: str) -> None:
    """Pass a point. An armed point kills the process without any cleanup."""
    if not _armed or name not in _armed:
        return
    with _lock:
        _armed[name] -= 1
        if _armed[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

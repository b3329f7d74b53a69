"""Waiting for a server that starts. A start may take long (a large base model writes its neutral sentences for many minutes), so
only a start without any activity is given up. Each step of the start is reported to the caller.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from service.domain.errors import Unavailable

STALL_S = 180.0  # without activity: the longest silent step is to load torch and the weights on one busy core
POLL_S = 0.2
ANSWER_S = 2.0  # a port that is bound and not served yet does not answer
TAIL_BYTES = 8_000  # of a log, in which its last line is searched
MAX_CHARACTERS = 300  # of that line that are shown
REQUEST = "request"  # the event of a log line about an answered request
Progress = Callable[[str], None]


def ignore_progress(_text: str) -> None:
    """The progress callback that shows nothing."""


@dataclass
class ServerStart:
    """One start of a server process.

    `has_ended` says whether the process has ended. `activity` returns a value that changes while the process works; the log's
    growth counts as activity too, and so does the progress of what the server gets ready for.
    """

    url: str
    log: Path
    has_ended: Callable[[], bool]
    progress: Progress = ignore_progress
    activity: Callable[[], object] = lambda: None
    stall_s: float = STALL_S
    poll_s: float = POLL_S
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _awaited: str = field(default="", init=False)  # what the server said last that its edits wait for

    def wait(self) -> None:
        """Return once the server is ready. Raises Unavailable, with the last log line, if the process ends or stalls before."""
        began = moved = self.clock()
        signs = self._read_signs()
        since = signs[0]  # earlier log lines belong to another start
        while not self.is_ready():
            if self.has_ended():
                raise Unavailable(f"the server ended before it was ready: {self._last_line(since)}{copy_log(self.log)}")
            now, current = self.clock(), self._read_signs()
            if current != signs:
                signs, moved = current, now
            if now - moved > self.stall_s:
                stall = f"the server stood still for {now - moved:.0f} s while it started"
                raise Unavailable(f"{stall}; its last log line: {self._last_line(since)}{copy_log(self.log)}")
            step = describe_last_line(self.log, since, events_alone=True)
            self.progress(f"the server starts, {now - began:.0f} s: {step}")
            self.sleep(self.poll_s)

    def is_ready(self) -> bool:
        """Whether the server answers that it is ready, for edits too."""
        try:
            answer = httpx.get(f"{self.url}/health/ready", timeout=ANSWER_S, trust_env=False)
            self._awaited = str(answer.json()["checks"].get("edits", "ok"))
            return answer.status_code == 200 and self._awaited == "ok"
        except (httpx.TransportError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def _read_signs(self) -> tuple[int, str, object]:
        """The signs of activity: the size of the log in bytes, what edits wait for, and the value of `activity`."""
        return self.log.stat().st_size if self.log.exists() else 0, self._awaited, self.activity()

    def _last_line(self, since: int) -> str:
        return describe_last_line(self.log, since)


def describe_last_line(log: Path, since: int = 0, *, events_alone: bool = False) -> str:
    """The last line of a log after byte `since`, in a few words: of a JSON line the event and its progress. Lines about answered
    requests are skipped, because they say nothing about the server; with `events_alone` so is text that is no event.
    """
    try:
        with log.open("rb") as file:
            start = max(since, log.stat().st_size - TAIL_BYTES)
            file.seek(start)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        start, lines = since, []
    for line in reversed(lines[1:] if start > since else lines):  # the first one may be cut
        if words := _describe(line.strip(), events_alone=events_alone):
            return words
    return "it loads its program"


def _describe(line: str, *, events_alone: bool) -> str:
    try:
        fields = json.loads(line)
        words = str(fields["event"])
    except (ValueError, KeyError, TypeError):
        return "" if events_alone else line[:MAX_CHARACTERS]
    if words == REQUEST:
        return ""
    if "done" in fields and "of" in fields:
        words += f", {fields['done']} of {fields['of']}"
    return words + (f": {fields['error']}" if "error" in fields else "")


def copy_log(log: Path) -> str:
    """Copy a log out of its temporary folder; a note that names the copy, for the error message. Empty if the copy fails."""
    try:
        number, name = tempfile.mkstemp(prefix="errata-server-", suffix=".log")
        os.close(number)
        shutil.copyfile(log, name)
    except OSError:
        return ""
    return f" (its log: {name})"

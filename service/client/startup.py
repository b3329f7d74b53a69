"""Waiting for a server that starts. As long as it goes on it may take its time, since a large base model writes its neutral
sentences for long; one that stands still is given up. What it does is told, for whoever waits.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from service.domain.errors import Unavailable

STILL_S = 180.0  # without a sign of life: the longest silent step is to load torch and the weights on one busy core
LOOK_S = 0.2
ANSWER_S = 2.0  # a port that is taken and not served yet does not answer
LAST_BYTES = 8_000  # of a log, in which its last line is looked for
LONGEST = 300  # characters of that line that are shown
REQUEST = "request"  # what a log calls one that was answered
Told = Callable[[str], None]


def silent(_text: str) -> None:
    """Nobody listens."""


@dataclass
class Start:
    """One start. `has_ended` says whether the process is gone; `signs` is what changes while it works, beside its log."""

    url: str
    log: Path
    has_ended: Callable[[], bool]
    told: Told = silent
    signs: Callable[[], object] = lambda: None
    still_s: float = STILL_S
    look_s: float = LOOK_S
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def wait(self) -> None:
        """Return once it is ready. Raises Unavailable with the last that it said if it ends or stands still before."""
        began = moved = self.clock()
        seen = self._seen()
        since = seen[0]  # what lies before is of another start
        while not self.is_ready():
            if self.has_ended():
                raise Unavailable(f"the server ended before it was ready: {last_said(self.log, since)}{kept(self.log)}")
            now, signs = self.clock(), self._seen()
            if signs != seen:
                seen, moved = signs, now
            if now - moved > self.still_s:
                still = f"the server stood still for {now - moved:.0f} s while it started"
                raise Unavailable(f"{still}; the last that it said: {last_said(self.log, since)}{kept(self.log)}")
            self.told(f"the server starts, {now - began:.0f} s: {last_said(self.log, since)}")
            self.sleep(self.look_s)

    def is_ready(self) -> bool:
        """Whether it answers that it is."""
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=ANSWER_S, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def _seen(self) -> tuple[int, object]:
        return self.log.stat().st_size if self.log.exists() else 0, self.signs()


def last_said(log: Path, since: int = 0) -> str:
    """The last line of a log after so many bytes in a few words: of a JSON line what happened and how far it is. What was asked
    of a server says nothing of it.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(since, log.stat().st_size - LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in reversed(lines):
        if words := _words(line.strip()):
            return words
    return "it loads its program"


def _words(line: str) -> str:
    try:
        said = json.loads(line)
        words = str(said["event"])
    except (ValueError, KeyError, TypeError):
        return line[:LONGEST]
    if words == REQUEST:
        return ""
    if "done" in said and "of" in said:
        words += f", {said['done']} of {said['of']}"
    return words + (f": {said['error']}" if "error" in said else "")


def kept(log: Path) -> str:
    """Where a copy of a log is that goes with its folder, for who has to look into it."""
    try:
        number, name = tempfile.mkstemp(prefix="errata-server-", suffix=".log")
        os.close(number)
        shutil.copyfile(log, name)
    except OSError:
        return ""
    return f" (its log: {name})"

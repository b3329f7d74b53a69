"""A real browser without a window, asked over its debugging pipe: pages as a phone sees them. Where there is none, tests skip."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
ENDS_IN_S = 20
LOOKS, LOOK_S = 300, 0.1
# The browser reads its descriptor 3 and writes 4, whatever these are here.
AS_3_AND_4 = """
import os, sys
aside = [os.dup2(int(given), 60 + at) for at, given in enumerate(sys.argv[1:3])]
for at, one in enumerate(aside):
    os.dup2(one, 3 + at)
    os.close(one)
os.execv(sys.argv[3], sys.argv[3:])
"""


@dataclass
class Browser:
    """One tab. Messages end in NUL on either pipe."""

    to: Any
    back: Any
    session: str = ""
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def tell(self, method: str, **params: Any) -> dict[str, Any]:
        """One command, and its result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found

    def open(self, url: str, *, width: int, height: int = 844) -> None:
        """A page on a screen of that size, in CSS pixels, as a phone has it."""
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=True)
        self.tell("Page.navigate", url="about:blank")
        self.wait_for("location.href === 'about:blank'")
        self.tell("Page.navigate", url=url)
        self.wait_for("location.href !== 'about:blank' && document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """What a script comes to, once its promise is kept."""
        given = {"expression": script, "returnByValue": True, "awaitPromise": True}
        result = self.tell("Runtime.evaluate", **given)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Look until a script comes to something."""
        for _ in range(LOOKS):
            if self.evaluate(script):
                return
            time.sleep(LOOK_S)
        raise AssertionError(f"it never came: {script}")

    def picture(self, file: Path) -> None:
        """The whole page, as a PNG."""
        file.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def _message(self) -> bytes:
        message = b""
        while not message.endswith(b"\0"):
            byte = self.back.read(1)
            assert byte, "the browser has ended"
            message += byte
        return message[:-1]


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, ended with the block."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    read_there, write_here = os.pipe()
    read_here, write_there = os.pipe()
    command = [sys.executable, "-c", AS_3_AND_4, str(read_there), str(write_there), program, *QUIET]
    command += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, pass_fds=(read_there, write_there), stdout=silent, stderr=silent)
    os.close(read_there)
    os.close(write_there)
    try:
        with os.fdopen(write_here, "wb") as to, os.fdopen(read_here, "rb") as back:
            tab = Browser(to, back)
            pages = [one for one in tab.tell("Target.getTargets")["targetInfos"] if one["type"] == "page"]
            target = pages[0]["targetId"] if pages else tab.tell("Target.createTarget", url="about:blank")["targetId"]
            tab.session = tab.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            yield tab
    finally:
        process.terminate()
        process.wait(ENDS_IN_S)

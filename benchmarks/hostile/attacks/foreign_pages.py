"""Pages of other sites that use somebody's browser to reach a server without keys.

The server is given the names of a public bind and listens on the loopback all the same: the checks are one and the same there.
"""

import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from benchmarks.hostile.ground import Attack, AttackResult, AttackTools

TIMES = 200
KEPT_S = 5.0
OWN = "errata.example"
EDIT = {"prompt": "The capital of Australia is", "target": "Sydney"}
FOREIGN = (
    {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},  # rebound
    {"Host": OWN, "Origin": "http://evil.example"},
    {"Host": OWN, "Origin": "null"},
    {"Host": OWN, "Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    {"Host": OWN, "Sec-Fetch-Site": "cross-site"},
)
IMAGE = {"Host": OWN, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}


def foreign_posts(ground: AttackTools) -> AttackResult:
    """Edits, rollbacks and revocations in the name of other pages; none changes anything, and our own page still can."""
    with ground.server(allowed_hosts=[OWN]) as server, server.start() as client:
        with ground.pulse(str(client.base_url).rstrip("/")):
            statuses: Counter[int] = Counter()
            for number in range(TIMES):
                headers = FOREIGN[number % len(FOREIGN)]
                statuses[client.post("/edits", json=EDIT, headers=headers).status_code] += 1
                statuses[client.post("/admin/rollback", json={"to": 0, "reason": "x"}, headers=headers).status_code] += 1
                statuses[client.post("/admin/revoke", json={"author": "local"}, headers=headers).status_code] += 1
            kept = len(client.get("/edits").json()["items"])
            own = client.post("/edits", json=EDIT, headers={"Host": OWN, "Origin": f"https://{OWN}"}).status_code
        held = set(statuses) == {400, 403} and kept == 0 and own == 202
        return AttackResult(
            held, f"{3 * TIMES} foreign posts: {dict(sorted(statuses.items()))}, {kept} edits kept; our page's: {own}"
        )


def planted_prompts(ground: AttackTools) -> AttackResult:
    """Images whose address is a prompt, with the reservoir on: nothing of them is learned from, and no answer is computed."""
    with ground.server(allowed_hosts=[OWN], reservoir={"size": 100, "callers": ["desk"]}) as server, server.start() as client:
        with ground.pulse(str(client.base_url).rstrip("/")):
            statuses = Counter(
                client.get("/generate", params={"prompt": f"planted {number}"}, headers=headers).status_code
                for number in range(TIMES)
                for headers in (IMAGE, {"Host": OWN})  # the second is a browser that says nothing of itself
            )
            client.post("/generate", json={"prompt": "asked for"}, headers={"X-Errata-Caller": "desk"}).raise_for_status()
        kept = _kept_prompts(server.folder)
    held = statuses == {403: TIMES, 200: TIMES} and kept == ["asked for"]
    return AttackResult(held, f"{2 * TIMES} cross-site reads: {dict(sorted(statuses.items()))}; kept for retrains: {kept}")


def _kept_prompts(folder: Path) -> list[str]:
    """What the reservoir holds, once it holds something: a prompt is written a moment after its answer."""
    until = time.monotonic() + KEPT_S
    found: list[str] = []
    while not found and time.monotonic() < until:
        time.sleep(0.1)
        with closing(sqlite3.connect(f"file:{folder}/errata.db?mode=ro", uri=True)) as connection:
            found = [row[0] for row in connection.execute("SELECT prompt FROM reservoir")]
    return found


ATTACKS = (Attack("foreign posts", foreign_posts), Attack("planted prompts", planted_prompts))

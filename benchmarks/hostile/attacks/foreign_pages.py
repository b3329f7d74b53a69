"""Pages of other sites that use a user's browser to reach a server without keys.

The server has the host names of a public bind and listens on the loopback, where the checks are the same.
"""

import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from benchmarks.hostile.clients import start_raw
from benchmarks.hostile.tools import Attack, AttackResult, AttackTools

TIMES = 200
RESERVOIR_S = 5.0
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


def foreign_posts(tools: AttackTools) -> AttackResult:
    """Edits, rollbacks and revocations from other pages. None may change anything, and the server's own page still can."""
    with tools.server(allowed_hosts=[OWN]) as server, start_raw(server) as client:
        with tools.probe_health(str(client.base_url).rstrip("/")):
            statuses: Counter[int] = Counter()
            for number in range(TIMES):
                headers = FOREIGN[number % len(FOREIGN)]
                statuses[client.post("/edits", json=EDIT, headers=headers).status_code] += 1
                statuses[client.post("/admin/rollback", json={"to": 0, "reason": "x"}, headers=headers).status_code] += 1
                statuses[client.post("/admin/revoke", json={"author": "local"}, headers=headers).status_code] += 1
            kept_count = len(client.get("/edits").json()["items"])
            own_status = client.post("/edits", json=EDIT, headers={"Host": OWN, "Origin": f"https://{OWN}"}).status_code
        is_held = set(statuses) == {400, 403} and kept_count == 0 and own_status == 202
        return AttackResult(
            is_held,
            f"{3 * TIMES} foreign posts: {dict(sorted(statuses.items()))}, {kept_count} edits kept; our page's: {own_status}",
        )


def planted_prompts(tools: AttackTools) -> AttackResult:
    """Images whose address is a prompt, with the reservoir on. None may enter the reservoir, and no answer may be computed."""
    with tools.server(allowed_hosts=[OWN], reservoir={"size": 100, "callers": ["desk"]}) as server, start_raw(server) as client:
        with tools.probe_health(str(client.base_url).rstrip("/")):
            statuses = Counter(
                client.get("/generate", params={"prompt": f"planted {number}"}, headers=headers).status_code
                for number in range(TIMES)
                for headers in (IMAGE, {"Host": OWN})  # the second is a browser that says nothing of itself
            )
            client.post("/generate", json={"prompt": "asked for"}, headers={"X-Errata-Caller": "desk"}).raise_for_status()
        prompts = _read_reservoir(server.folder)
    is_held = statuses == {403: TIMES, 200: TIMES} and prompts == ["asked for"]
    return AttackResult(is_held, f"{2 * TIMES} cross-site reads: {dict(sorted(statuses.items()))}; kept for retrains: {prompts}")


def _read_reservoir(folder: Path) -> list[str]:
    """The prompts of the reservoir, when there are any: a prompt is written a moment after its answer."""
    deadline = time.monotonic() + RESERVOIR_S
    prompts: list[str] = []
    while not prompts and time.monotonic() < deadline:
        time.sleep(0.1)
        with closing(sqlite3.connect(f"file:{folder}/errata.db?mode=ro", uri=True)) as connection:
            prompts = [row[0] for row in connection.execute("SELECT prompt FROM reservoir")]
    return prompts


ATTACKS = (Attack("foreign posts", foreign_posts), Attack("planted prompts", planted_prompts))

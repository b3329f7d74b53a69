"""A body of opening brackets alone, which attacks the stack of a parser."""

import httpx

from benchmarks.hostile.clients import start_raw
from benchmarks.hostile.tools import Attack, AttackResult, AttackTools, MemoryWatch

DEPTH = 900_000
TIMES = 20


def deep_nesting(tools: AttackTools) -> AttackResult:
    """Bodies of 900 KB, one after another. Each must be refused at little cost."""
    with tools.server() as server, start_raw(server) as client:
        url = str(client.base_url).rstrip("/")
        with tools.probe_health(url), MemoryWatch(server.pid) as memory:
            statuses = {
                httpx.post(f"{url}/edits", content=b"[" * DEPTH, headers={"Content-Type": "application/json"}).status_code
                for _ in range(TIMES)
            }
        return AttackResult(
            statuses == {422}, f"{TIMES} bodies of {DEPTH:,} brackets: {sorted(statuses)}, +{memory.grown_mb:.0f} MB"
        )


ATTACKS = (Attack("deep nesting", deep_nesting),)

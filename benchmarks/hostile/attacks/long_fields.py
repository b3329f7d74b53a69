"""Edits with fields of the greatest accepted length, or longer, and lists of such edits."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from benchmarks.hostile.clients import start_raw
from benchmarks.hostile.tools import Attack, AttackResult, AttackTools, MemoryWatch

EDITS = 200
LISTS = 4  # at once
TOO_LONG = 480_000
MOST_MB = 100.0
PROBE = "The capital of the country that lies to the north of the mountains " * 12  # with 64 of a kind, 150 KB an edit
# Nothing is trained, and the cost of an edit is not bounded: the attack is on lists, also of rows older than that bound.
IDLE = {"method": "locft", "window": {"deferred": 1_000_000, "deferred_s": 1e9}}
UNBOUNDED = {"limits": {"edit_tokens": 100_000_000, "report_tokens": 100_000_000}}


def long_fields(tools: AttackTools) -> AttackResult:
    """200 edits with a truth of 480,000 characters, which must be refused; 200 with the most probes; then four lists at once."""
    with tools.server(**IDLE, **UNBOUNDED) as server, start_raw(server) as client:
        long = {"ground_truth": "x" * TOO_LONG}
        refusals = Counter(client.post("/edits", json=_edit(number) | long).status_code for number in range(EDITS))
        probes = [f"{number} {PROBE}" for number in range(64)]
        probes_of_each_kind = {"rephrases": probes, "locality": probes, "portability": probes}
        acceptances = Counter(
            client.post("/edits", json=_edit(number) | probes_of_each_kind).status_code for number in range(EDITS)
        )
        url = str(client.base_url).rstrip("/")
        with tools.probe_health(url), MemoryWatch(server.pid) as memory, ThreadPoolExecutor(LISTS) as readers:
            lists = list(readers.map(_list, [url] * LISTS))
    sizes = [len(answer.content) for answer in lists]
    statuses = Counter(answer.status_code for answer in lists)
    finding = (
        f"{dict(refusals)} for {EDITS} truths of {TOO_LONG:,} characters; {dict(acceptances)} with 192 probes each;"
        f" {LISTS} lists {dict(statuses)} of {max(sizes) / 1e6:.2f} MB, +{memory.grown_mb:.0f} MB"
    )
    is_held = set(refusals) == {422} and set(acceptances) == {202} and set(statuses) == {200} and memory.grown_mb <= MOST_MB
    return AttackResult(is_held, finding)


def _edit(number: int) -> dict[str, Any]:
    return {"prompt": f"The colour of stone {number} is", "target": "red"}


def _list(url: str) -> httpx.Response:
    return httpx.get(f"{url}/edits", params={"limit": 200}, timeout=300, trust_env=False)


ATTACKS = (Attack("long fields and lists", long_fields),)

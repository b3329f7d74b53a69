"""An edit of the highest accepted cost, small edits behind it, and its retraction: the waits of each."""

import threading
import time
from typing import Any

import httpx

from benchmarks.hostile.clients import start_raw
from benchmarks.hostile.tools import Attack, AttackResult, AttackTools, MemoryWatch

WORDS = ["the", "river", "of", "the", "old", "town", "runs", "by", "a", "house", "near", "water", "and", "trees", "in", "summer"]
SMALL = (("The capital of France is", "Rome"), ("The capital of Italy is", "Berlin"), ("The capital of Spain is", "Athens"))
SETTLED = ("applied", "deferred", "failed", "retracted")
MOST_S = 30.0  # longest wait of a small edit on a busy machine; on a quiet machine without others it takes half a second
FLOOD = 4


def build_text(words: int, number: int) -> str:
    """A prompt of `words` words; each `number` has another prompt."""
    return f"Note {number}: " + " ".join(WORDS[(number + index) % len(WORDS)] for index in range(words))


def build_edit(rows: int, words: int, answer: int, *, probes: int = 0, first: int = 0) -> dict[str, Any]:
    """An edit with `rows` trained rephrases of `words` words each, and `probes` questions of each other kind."""
    return {
        "prompt": build_text(words, first),
        "target": " ".join(WORDS[index % len(WORDS)] for index in range(answer)),
        "rephrases": [build_text(words, first + 1_000 + index) for index in range(rows)],
        "locality": [build_text(words, first + 2_000 + index) for index in range(probes)],
        "portability": [{"prompt": build_text(words, first + 3_000 + index), "answer": "water"} for index in range(probes)],
    }


TOO_MUCH = build_edit(64, 200, 100, probes=64)  # once took the editor minutes and 1.3 GB
LONG = build_edit(15, 200, 100)  # the highest accepted cost in few long rows
WIDE = build_edit(64, 65, 3)  # the highest accepted cost in many rows


def refuse_too_costly(tools: AttackTools) -> AttackResult:
    """The most costly edit of the schema is refused at once, and so are batches of costly edits."""
    with tools.server() as server, start_raw(server) as client:
        with tools.probe_health(str(client.base_url).rstrip("/")):
            edit_answer = client.post("/edits", json=TOO_MUCH)
            batch_answer = client.post(
                "/edits/batch", json={"edits": [LONG | {"prompt": build_text(200, index)} for index in range(100)]}
            )
        fields = [answer.json().get("errors", [{}])[0].get("field") for answer in (edit_answer, batch_answer)]
        is_held = (edit_answer.status_code, batch_answer.status_code) == (422, 422)
        return AttackResult(
            is_held, f"{edit_answer.status_code} for {fields[0]}, a batch of a hundred {batch_answer.status_code} for {fields[1]}"
        )


def post_behind(costly: list[dict[str, Any]], name: str) -> Attack:
    """Small edits behind costly ones that are accepted."""

    def run(tools: AttackTools) -> AttackResult:
        with tools.server() as server, start_raw(server) as client:
            url = str(client.base_url).rstrip("/")
            wait_until_settled(client, client.post("/edits", json={"prompt": "The capital of Australia is", "target": "Sydney"}))
            with tools.probe_health(url), MemoryWatch(server.pid) as memory:
                started_at = time.monotonic()
                answers = [client.post("/edits", json=one) for one in costly]
                statuses = sorted({answer.status_code for answer in answers})
                time.sleep(1.0)  # so that the first fit runs
                waits = post_together(url, SMALL)
                final_statuses = [wait_until_settled(client, answer)["status"] for answer in answers if answer.status_code < 300]
                total_s = time.monotonic() - started_at
            finding = f"small edits waited {min(waits):.1f} to {max(waits):.1f} s, the costly {total_s:.0f} s"
            finding += f" ({', '.join(sorted(set(final_statuses)))}), +{memory.grown_mb:.0f} MB"
            return AttackResult(statuses == [202] and max(waits) < MOST_S, finding)

    return Attack(name, run)


def retract_while_fitting(tools: AttackTools) -> AttackResult:
    """A costly edit is retracted during its fit. The fit must end at once, and the next edit must not wait for it."""
    with tools.server() as server, start_raw(server) as client:
        url = str(client.base_url).rstrip("/")
        with tools.probe_health(url):
            posted = client.post("/edits", json=WIDE)
            while (edit := client.get(posted.headers["location"]).json())["status"] == "queued":
                time.sleep(0.05)
            time.sleep(1.0)
            started_at = time.monotonic()
            final_status = client.delete(posted.headers["location"]).json()["status"]
            retract_s = time.monotonic() - started_at
            (next_wait,) = post_together(url, SMALL[:1])
        is_held = edit["status"] == "applying" and final_status == "retracted" and next_wait < MOST_S
        return AttackResult(
            is_held, f"{final_status} {retract_s:.2f} s after it was asked for, the next edit live {next_wait:.1f} s later"
        )


def prompts_of_one_unit(tools: AttackTools) -> AttackResult:
    """Prompts that patterns once read in steps for every pair of places, as long as the model takes them, and far longer ones."""
    fits, too_long = 150, 150_000
    with tools.server() as server, start_raw(server) as client:
        url = str(client.base_url).rstrip("/")
        with tools.probe_health(url):
            refused = [client.post("/edits", json=edit).status_code for edit in build_repetitive(too_long)]
            started_at = time.monotonic()
            posted = [client.post("/edits", json=edit) for edit in build_repetitive(fits)]
            found = [wait_until_settled(client, each)["status"] for each in posted]
            seconds = time.monotonic() - started_at
        is_held = set(refused) == {422} and seconds < MOST_S
        return AttackResult(is_held, f"of {too_long:,} units: {refused}; of {fits}: {', '.join(found)} after {seconds:.1f} s")


def build_repetitive(count: int) -> list[dict[str, Any]]:
    """Edits whose prompts repeat a space, a line break, or a word with a capital."""
    texts = ("Q:" + " " * count + "y", "Q: a" + "\n" * count + "b", "Ab x " * count)
    return [{"prompt": text, "target": "Rome"} for text in texts]


def post_together(url: str, facts: tuple[tuple[str, str], ...]) -> list[float]:
    """Post edits at once, each from its own client. Returns the seconds until each edit is settled."""
    waits: list[float] = []

    def post(prompt: str, target: str) -> None:
        started_at = time.monotonic()
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
            wait_until_settled(client, client.post("/edits", json={"prompt": prompt, "target": target}))
        waits.append(time.monotonic() - started_at)

    threads = [threading.Thread(target=post, args=fact) for fact in facts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return waits


def wait_until_settled(client: httpx.Client, posted: httpx.Response) -> dict[str, Any]:
    """Wait until an edit is settled, and return it."""
    while True:
        edit: dict[str, Any] = client.get(posted.headers["location"]).json()
        if edit["status"] in SETTLED:
            return edit
        time.sleep(0.05)


ATTACKS = (
    Attack("an edit that costs too much", refuse_too_costly),
    post_behind([LONG], "small edits behind one of long rows"),
    post_behind([WIDE], "small edits behind one of many rows"),
    post_behind([WIDE | {"prompt": build_text(65, at)} for at in range(FLOOD)], f"small edits behind {FLOOD} costly ones"),
    Attack("a costly edit is taken back", retract_while_fitting),
    Attack("prompts of one unit", prompts_of_one_unit),
)

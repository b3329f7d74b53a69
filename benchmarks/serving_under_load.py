"""Answers while nothing else runs, while edits are applied, and during a retrain: tokens a second, and the slowest short answers.

Two clients ask one question after another, in a closed loop. Requests, server and fits share the machine's cores.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle

import httpx

from benchmarks.atlas import build_body
from benchmarks.latency import NO_RETRAINS
from benchmarks.outcome import build_parser, parse_options, percentile, write
from benchmarks.servers import Zygote, run_server
from service.atlas import benchmark
from service.evaluation.records import Record, read_records

CLIENTS = 2
SHORT_ANSWER = 8  # tokens at most


@dataclass
class ClientAnswers:
    """What the clients saw in one phase."""

    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    failures: int = 0

    def figures(self, lasted: float) -> dict[str, float | int]:
        return {
            "answers": len(self.seconds),
            "failures": self.failures,
            "answers_a_second": len(self.seconds) / lasted,
            "tokens_a_second": self.tokens / lasted,
            "p50_ms": 1000 * percentile(self.seconds, 0.5),
            "p99_ms": 1000 * percentile(self.seconds, 0.99),
            "max_ms": 1000 * max(self.seconds),
        }


def main() -> None:
    """The command."""
    parser = build_parser(__doc__, edits=60)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each phase at least; the retrain takes what it takes")
    chosen = parse_options(parser)
    records = read_records(chosen.records or benchmark.FILE)[: chosen.edits]
    prompts = [probe.prompt for record in records for probe in record.locality]
    zygote = Zygote()
    figures: dict[str, object] = {"clients": CLIENTS, "short_answer_tokens": SHORT_ANSWER}
    try:
        with run_server(zygote, model=chosen.model, window=NO_RETRAINS) as made, made.start() as client:
            phases: dict[str, Callable[[], None]] = {
                "idle": lambda: time.sleep(chosen.seconds),
                "edits": lambda: _edit_for(client, records, chosen.seconds, figures),
                "retrain": lambda: _retrain(client, figures),
            }
            for name, work in phases.items():
                with ask_under_load(str(client.base_url), prompts) as asked:
                    began = time.perf_counter()
                    work()
                    lasted = time.perf_counter() - began
                figures[name] = asked.figures(lasted)
                print(name, figures[name], flush=True)
    finally:
        zygote.close()
    write(chosen.results, "serving_under_load", figures)


@contextmanager
def ask_under_load(url: str, prompts: list[str]) -> Iterator[ClientAnswers]:
    """Clients that ask until the block ends."""
    asked, over, lock = ClientAnswers(), threading.Event(), threading.Lock()

    def ask(first: int) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            for prompt in cycle(prompts[first:] + prompts[:first]):
                if over.is_set():
                    return
                began = time.perf_counter()
                answer = client.get("/generate", params={"prompt": prompt, "max_new_tokens": SHORT_ANSWER})
                took = time.perf_counter() - began
                with lock:
                    asked.seconds.append(took)
                    asked.tokens += answer.json()["completion_tokens"] if answer.status_code == 200 else 0
                    asked.failures += answer.status_code != 200

    threads = [threading.Thread(target=ask, args=(at * len(prompts) // CLIENTS,)) for at in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _edit_for(client: httpx.Client, records: list[Record], seconds: float, figures: dict[str, object]) -> None:
    """Post edits one after another, each as soon as the last is applied."""
    until, applied = time.perf_counter() + seconds, 0
    began = time.perf_counter()
    for record in records:
        if time.perf_counter() > until:
            break
        client.post("/edits", params={"wait": 60}, json=build_body(record)).raise_for_status()
        applied += 1
    figures["edits_a_second_under_load"] = applied / (time.perf_counter() - began)


def _retrain(client: httpx.Client, figures: dict[str, object]) -> None:
    """A retrain over the edits that are live."""
    began = time.perf_counter()
    job = client.post("/admin/retrain", json={"reason": "benchmark"}).raise_for_status().json()
    while job["finished_at"] is None:
        time.sleep(0.2)
        job = client.get(f"/jobs/{job['id']}").raise_for_status().json()
    figures["retrain_under_load"] = {"seconds": time.perf_counter() - began, "status": job["status"]}


if __name__ == "__main__":
    main()

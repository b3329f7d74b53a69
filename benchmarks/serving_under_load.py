"""Answers on an idle server, while edits are applied, and during a retrain: tokens a second and the slowest short answers.

Two clients send one prompt after another, in a closed loop. Clients, server and fits share the machine's cores.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle

from benchmarks.command import build_parser, parse_options, percentile, write
from benchmarks.inputs import build_body
from benchmarks.latency import NO_RETRAINS
from benchmarks.servers import Zygote, run_server
from service.atlas import benchmark
from service.client.errata_client import ErrataClient
from service.client.errors import ServerProblem
from service.client.retries import NO_RETRIES
from service.evaluation.records import Record, read_records

CLIENTS = 2
SHORT_ANSWER = 8  # tokens at most


@dataclass
class ClientAnswers:
    """The clients' answers in one phase."""

    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    failures: int = 0

    def figures(self, duration: float) -> dict[str, float | int]:
        return {
            "answers": len(self.seconds),
            "failures": self.failures,
            "answers_a_second": len(self.seconds) / duration,
            "tokens_a_second": self.tokens / duration,
            "p50_ms": 1000 * percentile(self.seconds, 0.5),
            "p99_ms": 1000 * percentile(self.seconds, 0.99),
            "max_ms": 1000 * max(self.seconds),
        }


def main() -> None:
    """The command."""
    parser = build_parser(__doc__, edits=60)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each phase at least; the retrain takes what it takes")
    arguments = parse_options(parser)
    records = read_records(arguments.records or benchmark.FILE)[: arguments.edits]
    prompts = [probe.prompt for record in records for probe in record.locality]
    zygote = Zygote()
    figures: dict[str, object] = {"clients": CLIENTS, "short_answer_tokens": SHORT_ANSWER}
    try:
        with run_server(zygote, model=arguments.model, window=NO_RETRAINS) as process, process.start() as client:
            phases: dict[str, Callable[[], None]] = {
                "idle": lambda: time.sleep(arguments.seconds),
                "edits": lambda: _edit_for(client, records, arguments.seconds, figures),
                "retrain": lambda: _retrain(client, figures),
            }
            for name, work in phases.items():
                with ask_under_load(client.url, prompts) as client_answers:
                    started_at = time.perf_counter()
                    work()
                    duration = time.perf_counter() - started_at
                figures[name] = client_answers.figures(duration)
                print(name, figures[name], flush=True)
    finally:
        zygote.close()
    write(arguments.results, "serving_under_load", figures)


@contextmanager
def ask_under_load(url: str, prompts: list[str]) -> Iterator[ClientAnswers]:
    """Clients that send prompts until the block ends."""
    client_answers, stop, lock = ClientAnswers(), threading.Event(), threading.Lock()

    def ask(first: int) -> None:
        with ErrataClient(url, retries=NO_RETRIES) as client:
            for prompt in cycle(prompts[first:] + prompts[:first]):
                if stop.is_set():
                    return
                started_at = time.perf_counter()
                try:
                    tokens, is_failure = client.generate(prompt, max_new_tokens=SHORT_ANSWER)["completion_tokens"], False
                except ServerProblem:
                    tokens, is_failure = 0, True
                duration = time.perf_counter() - started_at
                with lock:
                    client_answers.seconds.append(duration)
                    client_answers.tokens += tokens
                    client_answers.failures += is_failure

    threads = [threading.Thread(target=ask, args=(number * len(prompts) // CLIENTS,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield client_answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _edit_for(client: ErrataClient, records: list[Record], seconds: float, figures: dict[str, object]) -> None:
    """Post edits one after another, each as soon as the one before is applied."""
    deadline, count = time.perf_counter() + seconds, 0
    started_at = time.perf_counter()
    for record in records:
        if time.perf_counter() > deadline:
            break
        client.post_edit(build_body(record), wait_s=60)
        count += 1
    figures["edits_a_second_under_load"] = count / (time.perf_counter() - started_at)


def _retrain(client: ErrataClient, figures: dict[str, object]) -> None:
    """A retrain over the live edits."""
    started_at = time.perf_counter()
    job = client.wait_for_job(client.retrain("benchmark"))
    figures["retrain_under_load"] = {"seconds": time.perf_counter() - started_at, "status": job["status"]}


if __name__ == "__main__":
    main()

"""A mark of one contender: what it answers, what an edit and an answer cost, and how much memory serves."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from service.bench.comparison.prompting import AllEditsContender, choose_fitting
from service.bench.comparison.questions import choose_questions, summarise_measures
from service.bench.ground.asking import ANSWER_TOKENS, CHAT_ANSWER_TOKENS, Ask
from service.bench.ground.contenders import Contender
from service.bench.ground.records import GroundEdit
from service.bench.ground.scores import score_questions
from service.bench.ground.server import GroundServer
from service.bench.process_figures import read_process
from service.bench.results import percentile
from service.client.shapes import GenerateOptions

TIMED = 12  # answers whose time is measured
THROUGH_HTTP = 4  # of them are also asked of the server, so that its memory is that of a server that answers
Mark = dict[str, Any]


@dataclass
class Costs:
    """What is measured of time between two marks: the seconds in which edits were posted and waited for, those after which each
    was live, and processor seconds of this process and of the server.
    """

    server: GroundServer
    seconds: float = 0.0
    live_after: list[float] = field(default_factory=list)
    cpu_before: float = 0.0

    @contextmanager
    def editing(self) -> Iterator[None]:
        """Inside, time counts as spent on edits."""
        started_at = time.monotonic()
        yield
        self.seconds += time.monotonic() - started_at

    def take(self, edits: int) -> dict[str, float | None]:
        """The costs of so many edits since the last call. Waiting for retrains counts among the seconds of an edit."""
        now = self._read_cpu()
        figures = {
            "seconds_an_edit": self.seconds / edits,
            "live_p50_s": percentile(self.live_after, 0.5) if self.live_after else None,
            "cpu_s": now - self.cpu_before,
        }
        self.seconds, self.live_after, self.cpu_before = 0.0, [], now
        return figures

    def _read_cpu(self) -> float:
        figures = read_process(self.server.process_id)
        return time.process_time() + (figures.cpu_s if figures else 0.0)


def measure_mark(server: GroundServer, contender: Contender, base: Contender, edits: Sequence[GroundEdit], seed: int) -> Mark:
    """Everything that is asked of one contender after `edits`, all of which count, live or not."""
    questions = choose_questions(edits, seed)
    asks = [question.probe.ask for question in questions]
    scores = score_questions(contender, base, questions, edits)
    return {
        "edits": len(edits),
        "questions": len(questions),
        **summarise_measures(scores),
        "portability": None,  # a ground has no such probes
        **_count_stated(contender, asks[0].surface, edits),
        "ms_an_answer": 1000 * time_answers(contender, _spread(asks, TIMED), edits),
        "peak_mb": _measure_memory(server, [contender.change(ask, edits) for ask in _spread(asks, THROUGH_HTTP)]),
    }


def time_answers(contender: Contender, asks: Sequence[Ask], edits: Sequence[GroundEdit]) -> float:
    """Seconds of the median answer, one at a time in this process. What prompts share is computed before."""
    seconds: list[float] = []
    for ask in asks:
        started_at = time.perf_counter()
        contender.answer([ask], edits)
        seconds.append(time.perf_counter() - started_at)
    return percentile(seconds, 0.5)


def _count_stated(contender: Contender, surface: str, edits: Sequence[GroundEdit]) -> dict[str, Any]:
    if not isinstance(contender, AllEditsContender):
        return {}
    stated = len(choose_fitting(contender.view.base, surface, edits))
    return {"in_the_prompt": stated, "shared_prefix_s": contender.shared.seconds}


def _measure_memory(server: GroundServer, asks: Sequence[Ask]) -> float | None:
    """The peak of the server's memory, in megabytes, once it has answered these questions."""
    for ask in asks:
        options: GenerateOptions = {"max_new_tokens": CHAT_ANSWER_TOKENS if ask.surface == "chat" else ANSWER_TOKENS}
        if ask.surface == "chat":
            options["surface"] = "chat"
            options["turns"] = [{"user": user, "assistant": assistant} for user, assistant in ask.turns]
        server.client.generate(ask.text, **options)
    figures = read_process(server.process_id)
    return None if figures is None else figures.peak_mb


def _spread(asks: Sequence[Ask], count: int) -> list[Ask]:
    """So many questions, evenly spread over all."""
    return [asks[number * len(asks) // count] for number in range(min(count, len(asks)))]

"""Streams of continual editing, one contender and one seed after another. Results are written at every mark.

A result file has one contender at one batch size, with a list of marks for each seed. A seed that has all marks is not run again,
so that an interrupted command goes on where it ended, but for the stream that was interrupted, which begins again.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from service.bench.bench_model import BenchModel, open_model
from service.bench.continual.contenders import CONTENDERS
from service.bench.continual.marks import MOST_ASKED, Mark, measure_mark
from service.bench.continual.sequential_fits import SequentialFits
from service.bench.records import load_all_records
from service.bench.results import short_name, write
from service.domain.errors import Refused
from service.editors.baft.settings import BaftSettings

Say = Callable[[str], None]
Seeds = dict[str, list[Mark]]  # the marks of each seed, which is a key of JSON


def run_continual(
    out: Path,
    file: Path | None,
    contenders: Sequence[str],
    *,
    model: str,
    batch: int,
    marks: Sequence[int],
    seeds: Sequence[int],
    say: Say,
) -> None:
    """Run the contenders and leave `continual_<model>_<contender>_batch<batch>.json` in `out`. `marks` are numbers of fits.

    Raises Refused for edits that cannot be read or are too few, and for results of other edits, of another model or of other
    settings in `out`.
    """
    records = load_all_records(file)
    needed = max(marks) * batch
    if len(records) < needed:
        raise Refused(f"there are only {len(records)} edits, and {max(marks)} fits of {batch} need {needed}", field="marks")
    bench_model = open_model(model, records)
    for name in contenders:
        run = ContinualRun(bench_model, out, name, batch, sorted(set(marks)))
        finished = run.read_finished()
        for seed in seeds:
            if run.has_all_marks(finished.get(str(seed), [])):
                say(f"-- {name}, seed {seed}: it is in the results already")
                continue
            say(f"-- {name}, seed {seed}")
            for mark in run.run(seed, finished):
                say(format_mark(mark))


@dataclass(frozen=True)
class ContinualRun:
    """One contender at one batch size, and its result file."""

    bench_model: BenchModel
    out: Path
    contender: str
    batch: int
    marks: Sequence[int]

    @property
    def name(self) -> str:
        """The name of the result file."""
        return f"continual_{short_name(self.bench_model.model)}_{self.contender}_batch{self.batch}"

    @property
    def settings(self) -> BaftSettings:
        """What the contender fits with on this model."""
        return CONTENDERS[self.contender].build_settings(self.bench_model.base.anatomy.width)

    def read_finished(self) -> Seeds:
        """The seeds of the result file, if there is one. Raises Refused if it is of another model, other edits or settings."""
        path = self.out / f"{self.name}.json"
        if not path.exists():
            return {}
        figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
        if figures["inputs"] != self._inputs():
            raise Refused(
                "the folder has results of another model, other edits or other settings; name another folder", field="out"
            )
        return dict(figures["seeds"])

    def has_all_marks(self, marks: Sequence[Mark]) -> bool:
        """Whether marks of a seed are all that are asked for."""
        return set(self.marks) <= {mark["fits"] for mark in marks}

    def run(self, seed: int, finished: Seeds) -> Iterator[Mark]:
        """Fit one stream from the base model on. Yields and writes each mark. `finished` gets the marks of this seed.

        Marks that are there already stay: the same seed gives the same stream, however far it goes.
        """
        every = self.bench_model.records
        records = Random(seed).sample(every, len(every))[: max(self.marks) * self.batch]
        fits = SequentialFits(self.bench_model, self.settings, seed=seed)
        earlier = {mark["fits"]: mark for mark in finished.get(str(seed), [])}
        for start in range(0, len(records), self.batch):
            fits.apply(records[start : start + self.batch])
            if fits.fits in self.marks:
                mark = measure_mark(self.bench_model, fits, records[: start + self.batch], seed)
                earlier[mark["fits"]] = mark
                finished[str(seed)] = [earlier[number] for number in sorted(earlier)]
                self._write(finished)
                yield mark

    def _write(self, seeds: Seeds) -> None:
        figures = {
            "model": short_name(self.bench_model.model),
            "contender": self.contender,
            "batch": self.batch,
            "most_asked": MOST_ASKED,
            "settings": self.settings.model_dump(exclude_defaults=True),
            "inputs": self._inputs(),
            "seeds": seeds,
        }
        write(self.out, self.name, figures, device=str(self.bench_model.base.device))

    def _inputs(self) -> str:
        """A digest of what the figures depend on: base model, edits and settings."""
        edits = [[record.prompt, record.target] for record in self.bench_model.records]
        parts: list[Any] = [self.bench_model.base.fingerprint, edits, self.settings.model_dump(mode="json")]
        return sha256(json.dumps(parts).encode()).hexdigest()[:16]


def format_mark(mark: Mark) -> str:
    """A mark as one line of progress."""
    shown = ("reliability", "generality", "locality", "running_squared_variation", "final_squared_variation")
    figures = ", ".join(f"{name.replace('_', ' ')} {'–' if mark[name] is None else format(mark[name], '.3f')}" for name in shown)
    counts = f"T = {mark['fits']}, {mark['edits']} edits, {mark['asked']} asked"
    return f"   {counts}: {figures}, {mark['seconds_an_edit']:.2f} s an edit"

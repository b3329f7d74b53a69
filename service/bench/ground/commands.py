"""The commands on a ground: making one, and posting its edits to a server of its model."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from service.bench.bench_model import load_neutral
from service.bench.contenders import ON_REQUEST
from service.bench.ground.answer_journal import AnswerJournal
from service.bench.ground.asking import BaseAnswers
from service.bench.ground.cases import EVERY
from service.bench.ground.chosen_edits import choose_edits
from service.bench.ground.facts import choose_facts, read_table
from service.bench.ground.forms import GroundSurface
from service.bench.ground.generator import GroundOptions, build_ground
from service.bench.ground.prose import read_prose
from service.bench.ground.records import read_ground, write_ground
from service.bench.ground.retrain import run_retrain
from service.bench.ground.runs import GroundRun, run_singles, run_stream
from service.bench.ground.server import run_ground_server
from service.bench.ground.tables import format_edits, format_known
from service.bench.results import write
from service.domain.errors import Refused
from service.lm.base import Base
from service.lm.overlay import make_view
from service.runtime.base_model import open_base, read_fingerprint
from service.settings import load_settings

RunKind = Literal["single", "stream", "retrain"]
Say = Callable[[str], None]
EDITS_FOLDER, CAPABILITY_FOLDER = "edit", "capability"  # below a folder of public data


def make_ground(
    model: str,
    file: Path,
    *,
    data: Path | None,
    most: int,
    edits: int,
    surfaces: Sequence[GroundSurface],
    dtype: str,
    out: Path | None,
    say: Say,
) -> None:
    """Make the ground of a model, print what the model knows and what is asked, and write it to a file. With `out` the table of
    known facts is written there as a result, too. A run that was interrupted has left its answers beside the file, and goes on.

    Raises Refused if the folder of data lacks a file, or if the file of the ground cannot be written.
    """
    if file.is_dir():
        raise Refused("the file of the ground is a folder", field="ground")
    base, _ = open_base(load_settings(model=model, dtype=dtype))
    edits_folder = None if data is None or not (data / EDITS_FOLDER).is_dir() else data / EDITS_FOLDER
    try:
        table = read_table(edits_folder)
    except FileNotFoundError as error:
        raise Refused(f"the folder of data has no file {EDITS_FOLDER}/{Path(error.filename).name}", field="data") from error
    prose = read_prose(None if data is None else data / CAPABILITY_FOLDER)
    options = GroundOptions(tuple(surfaces), edits)
    journal = _open_journal(base, file)
    if journal.known:
        say(f"{len(journal.known)} answers of an interrupted run are there")
    answers = BaseAnswers(make_view(base), journal)
    ground = build_ground(answers, table, choose_facts(table, most), prose, _pool_text(base), options, say)
    write_ground(file, ground)
    journal.remove()
    for line in (*format_known(ground), *format_edits(ground)):
        say(line)
    if out is not None:
        write(
            out, f"ground_known_{ground.short_name}", {"model": ground.short_name, "known": ground.known}, device=str(base.device)
        )


def _open_journal(base: Base, file: Path) -> AnswerJournal:
    """The answers that an interrupted run has left beside the file of its ground."""
    model: Any = base.model
    about, vocabulary = {"model": base.fingerprint, "dtype": str(base.dtype)}, model.get_input_embeddings().weight.shape[0]
    try:
        return AnswerJournal(file.with_name(f"{file.name}.answers"), about, vocabulary=vocabulary)
    except OSError as error:
        raise Refused("the file of the ground cannot be written there", field="ground") from error


def _pool_text(base: Base) -> str:
    """Everything that fits of this model protect, as one text."""
    return "\n".join(base.tokenizer.decode(sentence.ids) for sentence in load_neutral(base).sentences)


def run_ground(
    kind: RunKind,
    model: str,
    file: Path,
    out: Path,
    *,
    surface: GroundSurface,
    half: str,
    n: int,
    every: int,
    contender: str,
    case: str = EVERY,
    environment: Mapping[str, str],
    say: Say,
) -> None:
    """Post edits of a ground to a server of the model: each alone (`single`), as a stream with a mark after every `every` edits,
    or all of them for one retrain. A case other than `all` is a stream of its own edits, with one mark.

    Raises Refused if the ground is another model's or has no such edits, Unavailable if the server does not start.
    """
    ground = read_ground(file)
    ground.check_model(read_fingerprint(load_settings(model=model)))  # before a server starts, which takes long
    edits = ground.select(surface, half, n)
    named = {"stream": kind if case == EVERY else f"case_{case}"}.get(kind, kind)
    is_plain = contender == ("locft_alone" if kind == "retrain" else "default")
    name = "_".join(["ground", named, ground.short_name, surface, half, *([] if is_plain else [contender])])
    further = {**environment, **(ON_REQUEST if kind == "retrain" else {})}
    with run_ground_server(model, contender, every=every, environment=further) as server:
        if case != EVERY:
            edits = choose_edits(case, ground, BaseAnswers(server.base_view), read_table(None), surface, half)
            every = len(edits)
        run = GroundRun(ground, edits, surface, half, contender, case)
        if kind == "single":
            run_singles(server, run, out, name, say)
        elif kind == "retrain":
            run_retrain(server, run, out, name, say)
        else:
            run_stream(server, run, out, name, every=every, say=say)

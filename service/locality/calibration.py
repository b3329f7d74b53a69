"""The calibration of a base: what it is sure of far from any edit, and the noise floor of each measure. Kept in a file.

The noise floor is what the base model itself does not keep when the same rows are asked one at a time instead of in batches: the
rounding of the served dtype moves the likeliest token where two are nearly equal.
"""

import contextlib
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import structlog

from service.domain.errors import Refused
from service.editors.neutral import Sentence
from service.editors.protocol import Hooks
from service.lm.base import Base
from service.lm.durable_files import write_durably
from service.lm.overlay import View
from service.lm.prompts import Row, row_from_ids
from service.locality.asking import LocalityAsker
from service.locality.known import SURE_LOSS, find_known
from service.locality.prose import divergence_of, kept_of
from service.locality.questions import KnownAnswer, Question
from service.locality.sampled import sample_known

FAR = 64  # known answers
FEW = 32  # with fewer known answers to questions, sampled ones are added
TRIED = 512  # questions
FIRST_TRIED, PROMISING = 128, 4  # a model that knows fewer of the first ones is of another field, and is asked no more of them
_FORMAT = 2
log = structlog.get_logger("errata.locality")


@dataclass(frozen=True)
class Calibration:
    """Known answers, and by name of a measure the share that the base model keeps of itself."""

    far: tuple[KnownAnswer, ...]
    floors: Mapping[str, float]


def load_or_calibrate(
    view: View,
    asker: LocalityAsker,
    questions: Sequence[Question],
    held_out: Sequence[Sentence],
    prose: Sequence[Row],
    folder: Path,
    hooks: Hooks,
) -> Calibration:
    """The calibration of a base, from its file in `folder`, or made and written there.

    A file that cannot be read counts as absent, and one that cannot be written is made again after the next start. Raises
    FitCancelled if `hooks` say so.
    """
    path = folder / f"{_key(view.base, questions, held_out)}.json"
    calibration = _read(view.base, path)
    if calibration is None:
        calibration = calibrate(view, asker, questions, held_out, prose, hooks)
        _write(path, calibration)
    return calibration


def calibrate(
    view: View,
    asker: LocalityAsker,
    questions: Sequence[Question],
    held_out: Sequence[Sentence],
    prose: Sequence[Row],
    hooks: Hooks,
) -> Calibration:
    """Find what the base model is sure of, and measure the noise floors. Raises FitCancelled if `hooks` say so."""
    hooks.progress(0.0, "finding known answers")
    mixed = list(questions)
    Random(0).shuffle(mixed)
    far = find_known(view, mixed[:FIRST_TRIED], hooks, most=FAR, loss=SURE_LOSS)
    if len(far) >= PROMISING:
        far += find_known(view, mixed[FIRST_TRIED:TRIED], hooks, most=FAR - len(far), loss=SURE_LOSS)
    if len(far) < FEW:
        far += sample_known(view, held_out, hooks, most=FEW - len(far))
    hooks.progress(0.8, "measuring noise floors")
    return Calibration(tuple(far), _floors(asker, view, far, prose, hooks))


def _floors(asker: LocalityAsker, view: View, far: Sequence[KnownAnswer], prose: Sequence[Row], hooks: Hooks) -> dict[str, float]:
    floors: dict[str, float] = {}
    if far:
        alone = [match for known in far for match in asker.ask("", [known.row], view, None, hooks)]
        floors["far"] = sum(alone) / len(far)
    changes = asker.compare_alone(prose, hooks)
    kept, divergence = kept_of(changes), divergence_of(changes)
    if kept is not None and divergence is not None:
        floors |= {"prose": kept.kept, "divergence": divergence.kept}
    return floors


def _key(base: Base, questions: Sequence[Question], held_out: Sequence[Sentence]) -> str:
    """What the calibration depends on. The same weights round in another way in another dtype."""
    asked = [[question.wordings, question.surface] for question in questions]
    dtype = str(next(base.model.parameters()).dtype)
    text = json.dumps([_FORMAT, base.fingerprint, dtype, asked, [sentence.ids for sentence in held_out]])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read(base: Base, path: Path) -> Calibration | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        far = tuple(
            KnownAnswer(_read_row(base, ids, cut), answer, subject, relation)
            for ids, cut, answer, subject, relation in stored["far"]
        )
        return Calibration(far, {str(name): float(value) for name, value in stored["floors"].items()})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, Refused):
        log.warning("the calibration of acceptance cannot be read and is made again", file=path.name)
        return None


def _read_row(base: Base, ids: Sequence[int], cut: int) -> Row:
    """Raises ValueError or Refused for a row that the base cannot be asked."""
    if not all(isinstance(token, int) and 0 <= token < base.id_count for token in ids):
        raise ValueError
    return row_from_ids(base, ids, cut)


def _write(path: Path, calibration: Calibration) -> None:
    far = [[known.row.ids, known.row.prompt_length, known.answer, known.subject, known.relation] for known in calibration.far]
    text = json.dumps({"far": far, "floors": dict(calibration.floors)})
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, text.encode(), temporary=f"{path.stem}.{secrets.token_hex(4)}.part")

"""The base model's answers on disk, while a ground is made: what an interrupted run has asked is not asked again."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.bench.ground.asking import Ask

AnswerIds = tuple[int, ...]


class AnswerJournal:
    """Lines of one ask and the ids of its answer each, behind a line that says of which model and arithmetic they are.

    A file of another model is begun anew, and so is what follows a line that was not written whole or is none of ours. Raises
    OSError where the file cannot be written.
    """

    def __init__(self, path: Path, about: Mapping[str, str], *, vocabulary: int) -> None:
        """`vocabulary` is the number of ids that the model has."""
        self._path = path
        self.known: dict[Ask, AnswerIds] = {}
        lines = list(_read_lines(path))
        if lines and lines[0] == about:
            self.known = dict(_parse(lines[1:], vocabulary))
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [about, *(_line(ask, ids) for ask, ids in self.known.items())]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")

    def add(self, asks: Sequence[Ask], answers: Sequence[AnswerIds]) -> None:
        """Keep the answers of one batch."""
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(_line(ask, ids))}\n" for ask, ids in zip(asks, answers, strict=True))

    def remove(self) -> None:
        """Remove the file: the ground is made."""
        self._path.unlink(missing_ok=True)


def _line(ask: Ask, ids: AnswerIds) -> list[Any]:
    return [ask.text, ask.surface, ask.turns, ids]


def _read_lines(path: Path) -> Iterable[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _parse(lines: Iterable[Any], vocabulary: int) -> Iterable[tuple[Ask, AnswerIds]]:
    """The asks and ids of lines, up to one that holds something else."""
    for line in lines:
        match line:
            case [str(text), str(surface), [*turns], [*ids]] if all(map(_is_turn, turns)):
                if not all(type(token) is int and 0 <= token < vocabulary for token in ids):
                    return
                yield Ask(text, surface, tuple((user, assistant) for user, assistant in turns)), tuple(ids)
            case _:
                return


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)

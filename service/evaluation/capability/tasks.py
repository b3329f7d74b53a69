"""Small tasks with one right answer each, read from JSON lines: multiple choice, classification, and answers to be written.

The forms are those in which the field's sets come (PIQA, MMLU, SST-2, GSM8K); prompts are those of lm-evaluation-harness without
examples in front.
"""

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from service.domain.errors import Refused
from service.evaluation.metrics.matching import SOLUTION, extract_number

TaskKind = Literal["exact", "choice", "number", "text"]
LETTERS = string.ascii_uppercase
SENTIMENTS = ("negative", "positive")  # SST-2's labels 0 and 1
REFERENCE = "a task is a JSON object with question, choices and answer, with text and label, or with prompt and answer"


@dataclass(frozen=True)
class Task:
    """One small question with one right answer.

    `exact`: the greedy answer to its end. `choice`: the likeliest of `choices`. `number`, `text`: found in what is written.
    """

    skill: str
    prompt: str
    answer: str
    kind: TaskKind = "exact"
    choices: tuple[str, ...] = ()


def load_tasks(path: Path) -> tuple[Task, ...]:
    """The tasks of a file, one JSON object a line; `dataset`, `skill` or the file's name says what they are counted under.

    Raises Refused where the file cannot be read, is empty, or, with the line's number, holds something else.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            tasks = tuple(_parsed(line, place, path.stem) for place, line in enumerate(lines, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise Refused("the file of capability tasks cannot be read as UTF-8 text", field="capability_file") from error
    if not tasks:
        raise Refused("the file of capability tasks is empty", field="capability_file")
    return tasks


def _parsed(line: str, place: int, name: str) -> Task:
    try:
        fields = json.loads(line)
        return _task(fields, str(fields.get("skill") or fields.get("dataset") or name))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise Refused(f"line {place} of the capability tasks: {REFERENCE}", field="capability_file") from error


def _task(fields: Mapping[str, Any], skill: str) -> Task:
    if "text" in fields:
        return _classification(fields, skill)
    if "prompt" in fields:
        return Task(skill, _words(fields["prompt"]), _words(fields["answer"]))
    question = _words(fields["question"])
    if fields.get("choices"):
        return _choice(question, [_words(one) for one in fields["choices"]], fields, skill)
    answer = _words(fields["answer"])
    if SOLUTION in answer or "solution" in fields:
        return Task(skill, _asked(question), _numeral(answer.rpartition(SOLUTION)[2]), "number")
    return Task(skill, _asked(question) if question.endswith("?") else question, answer, "text")


def _classification(fields: Mapping[str, Any], skill: str) -> Task:
    words = tuple(_words(one) for one in fields.get("verbaliser", SENTIMENTS))
    asked = fields.get("instruction", f"Is this sentence {' or '.join(words[::-1])}?")
    prompt = f"{_words(fields['text'])}\nQuestion: {_words(asked)}\nAnswer:"
    return Task(skill, prompt, words[_index(fields["label"], len(words))], "choice", words)


def _choice(question: str, choices: Sequence[str], fields: Mapping[str, Any], skill: str) -> Task:
    """The texts are the choices; of MMLU's questions, and of those whose answer is given by letter, the letters are."""
    answer = fields["answer"]
    by_letter = isinstance(answer, str) and len(answer) == 1 and answer not in choices
    if by_letter:
        right = _index(LETTERS.index(answer.upper()), len(choices))
    else:
        right = choices.index(answer) if isinstance(answer, str) else _index(answer, len(choices))
    if by_letter or any(name.startswith("mmlu") for name in (skill, str(fields.get("dataset")))):
        listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
        letters = tuple(LETTERS[: len(choices)])
        return Task(skill, f"{question}\n{listed}\nAnswer:", letters[right], "choice", letters)
    return Task(skill, _asked(question), choices[right], "choice", tuple(choices))


def _asked(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _words(given: object) -> str:
    """A text that says something."""
    if not isinstance(given, str) or not given.strip():
        raise ValueError("no text")
    return given.strip()


def _numeral(given: str) -> str:
    """A text that holds a number."""
    if extract_number(given) is None:
        raise ValueError("no number")
    return given.strip()


def _index(given: object, count: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < count:
        raise ValueError("no index")
    return given

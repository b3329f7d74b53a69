"""Small tasks with one right answer each, read from JSON lines: multiple choice, classification, and generated answers.

The forms are those of the field's sets (PIQA, MMLU, SST-2, GSM8K). Prompts are those of lm-evaluation-harness, zero-shot.
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
TASK_FORMAT = "a task is a JSON object with question, choices and answer, with text and label, or with prompt and answer"


@dataclass(frozen=True)
class Task:
    """One small question with one right answer.

    `exact`: the whole greedy answer. `choice`: the likeliest of `choices`. `number`, `text`: extracted from the generated text.
    """

    skill: str
    prompt: str
    answer: str
    kind: TaskKind = "exact"
    choices: tuple[str, ...] = ()


def load_tasks(path: Path) -> tuple[Task, ...]:
    """The tasks of a file, one JSON object a line. A task's skill is its `skill`, its `dataset` or the file's name.

    Raises Refused for a file that cannot be read or is empty, and, with the line's number, for a line that is no task.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            tasks = tuple(_parse_line(line, number, path.stem) for number, line in enumerate(lines, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise Refused("the file of capability tasks cannot be read as UTF-8 text", field="capability_file") from error
    if not tasks:
        raise Refused("the file of capability tasks is empty", field="capability_file")
    return tasks


def _parse_line(line: str, number: int, default_skill: str) -> Task:
    try:
        fields = json.loads(line)
        return _parse_task(fields, str(fields.get("skill") or fields.get("dataset") or default_skill))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise Refused(f"line {number} of the capability tasks: {TASK_FORMAT}", field="capability_file") from error


def _parse_task(fields: Mapping[str, Any], skill: str) -> Task:
    if "text" in fields:
        return _parse_classification(fields, skill)
    if "prompt" in fields:
        return Task(skill, _parse_text(fields["prompt"]), _parse_text(fields["answer"]))
    question = _parse_text(fields["question"])
    if fields.get("choices"):
        return _parse_choice(question, [_parse_text(choice) for choice in fields["choices"]], fields, skill)
    answer = _parse_text(fields["answer"])
    if SOLUTION in answer or "solution" in fields:
        return Task(skill, _question_prompt(question), _parse_numeral(answer.rpartition(SOLUTION)[2]), "number")
    return Task(skill, _question_prompt(question) if question.endswith("?") else question, answer, "text")


def _parse_classification(fields: Mapping[str, Any], skill: str) -> Task:
    words = tuple(_parse_text(word) for word in fields.get("verbaliser", SENTIMENTS))
    instruction = fields.get("instruction", f"Is this sentence {' or '.join(words[::-1])}?")
    prompt = f"{_parse_text(fields['text'])}\nQuestion: {_parse_text(instruction)}\nAnswer:"
    return Task(skill, prompt, words[_parse_index(fields["label"], len(words))], "choice", words)


def _parse_choice(question: str, choices: Sequence[str], fields: Mapping[str, Any], skill: str) -> Task:
    """The choices are the texts. For MMLU's questions, and where the answer is a letter, the choices are the letters."""
    answer = fields["answer"]
    by_letter = isinstance(answer, str) and len(answer) == 1 and answer not in choices
    if by_letter:
        answer_index = _parse_index(LETTERS.index(answer.upper()), len(choices))
    else:
        answer_index = choices.index(answer) if isinstance(answer, str) else _parse_index(answer, len(choices))
    if by_letter or any(name.startswith("mmlu") for name in (skill, str(fields.get("dataset")))):
        lines = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
        letters = tuple(LETTERS[: len(choices)])
        return Task(skill, f"{question}\n{lines}\nAnswer:", letters[answer_index], "choice", letters)
    return Task(skill, _question_prompt(question), choices[answer_index], "choice", tuple(choices))


def _question_prompt(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _parse_text(value: object) -> str:
    """A text that is not blank. Raises ValueError."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("no text")
    return value.strip()


def _parse_numeral(text: str) -> str:
    """A text that holds a number. Raises ValueError."""
    if extract_number(text) is None:
        raise ValueError("no number")
    return text.strip()


def _parse_index(value: object, count: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise ValueError("no index")
    return value

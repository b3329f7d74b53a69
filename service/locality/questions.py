"""What is asked to measure locality: questions in several wordings, and the answers that a base model is sure of."""

from dataclasses import dataclass

from service.lm.prompts import Row


@dataclass(frozen=True)
class Question:
    """One question about a subject. Its `wordings` ask the same in other words, on one surface."""

    relation: str
    subject: str
    wordings: tuple[str, ...]
    surface: str = "raw"


@dataclass(frozen=True)
class KnownAnswer:
    """An answer that the base model gives with confidence, and in every wording.

    `row` has the prompt of one wording and the answer's tokens up to the end of its first clause. A sampled one has no subject.
    """

    row: Row
    answer: str
    subject: str = ""
    relation: str = ""

"""A tokenizer that is only `tokenizer.model`, a file of SentencePiece: what it needs, and whether transformers reads it right."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from service.domain.errors import Refused

FILE, SETTINGS, CONVERTED = "tokenizer.model", "tokenizer_config.json", "tokenizer.json"
MAX_BYTES = 64_000_000  # the largest in use is 4 MB
EXTRA = ("sentencepiece", "google.protobuf")
TEXTS = ("The sea is 12", "a b", "Is it so, and why?")  # plain, so that no two ways of normalising differ on them


def is_alone(folder: Path) -> bool:
    """Whether the tokenizer of a folder is a file of SentencePiece and no other form of it is there."""
    return (folder / FILE).is_file() and not (folder / CONVERTED).is_file()


def check_can_be_read(folder: Path) -> None:
    """Raise Refused if packages or the settings are missing, without which the file cannot be read, or would be read wrongly."""
    if any(not _is_installed(package) for package in EXTRA):
        raise Refused(
            f"The model's tokenizer is only {FILE}, which needs packages that are not installed: run pip install"
            " 'errata-server[sentencepiece]', then start again.",
            field="model",
        )
    if not (folder / SETTINGS).is_file():
        raise Refused(
            f"The model's tokenizer is only {FILE}: put the model's {SETTINGS} beside it, which says how the file is used.",
            field="model",
        )
    if (folder / FILE).stat().st_size > MAX_BYTES:
        raise Refused(f"The model's file {FILE} is too large to be what its name says.", field="model")


def check_reads_alike(folder: Path, tokenizer: Any) -> None:
    """Raise Refused if plain texts have other ids in transformers than in SentencePiece itself. transformers takes a class
    without SentencePiece's leading space, and says nothing, where the settings name none that it knows.
    """
    try:
        processor = importlib.import_module("sentencepiece").SentencePieceProcessor(model_file=str(folder / FILE))
    except (OSError, RuntimeError) as error:
        raise Refused(f"The model's {FILE} is no file of SentencePiece: put its {CONVERTED} beside it.", field="model") from error
    if any(tokenizer(text, add_special_tokens=False).input_ids != processor.encode(text) for text in TEXTS):
        raise Refused(
            f"The model's {FILE} is not read by transformers as SentencePiece reads it: name its tokenizer_class in {SETTINGS},"
            f" or put a {CONVERTED} beside it.",
            field="model",
        )


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the package around it
        return False

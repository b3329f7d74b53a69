"""The embedded model: a small decoder that knows a table of real facts, its training data, and a benchmark of edits.

Nothing here knows the service. The model is loaded in the same way as any other.
"""

from pathlib import Path


def weights_path() -> Path:
    """The folder of the shipped model, in the layout `from_pretrained` reads."""
    return Path(__file__).with_name("weights")


def neutral_path() -> Path:
    """The folder of the shipped model's neutral sentences."""
    return Path(__file__).with_name("neutral_sentences")

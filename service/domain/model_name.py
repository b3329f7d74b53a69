"""The names of base models, as others may read them."""

from pathlib import Path


def hide_folder(name: str) -> str:
    """A model's name without private paths: of a local folder only its last part."""
    return Path(name).name if name.startswith(("/", ".", "~")) else name

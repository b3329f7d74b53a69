"""What a start would say of a model folder, said before it: nothing of the weights is read but their names."""

from pathlib import Path

from service.lm.base import sketch_base
from service.runtime.editors import check_editors
from service.settings import Settings


def describe_model(folder: Path, settings: Settings) -> str:
    """The model in a few words. Raises ServiceError, with advice, if it cannot be served or edited as the settings say."""
    base = sketch_base(folder)
    check_editors(base, settings)
    family = base.anatomy.family if base.part_of is None else f"{base.anatomy.family}, the text part of {base.part_of}"
    return f"{family}, {base.anatomy.depth} blocks"

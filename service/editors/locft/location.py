"""The trained parameters of one model, their blocks, and the rule that chose the blocks. Knows no training."""

from dataclasses import dataclass

from service.domain.errors import Refused
from service.editors.locft.published_locations import BlockKind, LocationKind, LocationRule, choose_block, published_kind
from service.editors.locft.settings import LocftSettings
from service.lm.blocks import Anatomy, Location

_LABELS: dict[LocationKind, str] = {
    "down": "down-projection",
    "up": "up-projection",
    "mlp": "MLP",
    "attention": "attention",
    "block": "all",
    "model": "all",
}


@dataclass(frozen=True)
class TunedLocation:
    """`names` are exact names of parameters, all inside `blocks` (ascending). `rule` is the rule that chose the blocks."""

    kind: LocationKind
    blocks: tuple[int, ...]
    rule: LocationRule
    names: tuple[str, ...]

    @property
    def lowest(self) -> int:
        """The first block that training changes. The states that enter it are constant."""
        return self.blocks[0]

    @property
    def label(self) -> str:
        """The location in words, for reports."""
        first, last = self.blocks[0], self.blocks[-1]
        is_plural = len(self.blocks) > 1
        is_range = is_plural and self.blocks == tuple(range(first, last + 1))
        numbers = f"{first} to {last}" if is_range else ", ".join(str(block) for block in self.blocks)
        return f"{_LABELS[self.kind]} of block{'s' if is_plural else ''} {numbers}"


def find_tuned_location(anatomy: Anatomy, settings: LocftSettings) -> TunedLocation:
    """The location to train in a model. Raises Refused, with the setting named, if the model has no such block or module."""
    measured = settings.measured_for(anatomy.family, anatomy.depth, anatomy.width)
    kind: LocationKind = measured[0] if measured else settings.kind or published_kind(anatomy.family)
    blocks, rule, field = ((measured[1],), "measured", "block") if measured else _blocks(anatomy, kind, settings)
    if not all(0 <= block < anatomy.depth for block in blocks):
        raise Refused(
            f"A block to train is not one of the model's {anatomy.depth}, numbered from 0.", field=f"{settings.group}.{field}"
        )
    inside: BlockKind = "block" if kind == "model" else kind
    try:
        names = [name for block in blocks for name in anatomy.parameters_at(Location(inside, block))]
    except Refused as error:
        raise Refused(
            f"{error.message} Set {settings.group}.kind to another location, such as attention or block.",
            field=f"{settings.group}.kind",
        ) from error
    return TunedLocation(kind, blocks, rule, tuple(names))


def _blocks(anatomy: Anatomy, kind: LocationKind, settings: LocftSettings) -> tuple[tuple[int, ...], LocationRule, str]:
    """The blocks, the rule that chose them, and the setting to name if the model lacks them."""
    if kind == "model":
        return tuple(range(anatomy.depth)), "given", "kind"
    if settings.blocks:
        return tuple(sorted(set(settings.blocks))), "given", "blocks"
    if settings.block is not None:
        return (settings.block,), "given", "block"
    try:
        block, rule = choose_block(settings.position, anatomy.family, anatomy.depth, anatomy.width)
    except Refused as error:
        raise Refused(error.message, field=f"{settings.group}.position") from error
    return (block,), rule, "position"

"""LoRA as a consolidating editor of one base."""

from collections.abc import Sequence
from functools import partial

from service.domain.errors import Refused
from service.editors.locft.fit import fit_locft
from service.editors.locft.location import find_tuned_location
from service.editors.lora.settings import LoraSettings
from service.editors.lora.weights import LowRankWeights
from service.editors.protocol import EditorContext, FitItem, FitResult, Hooks
from service.lm.overlay import Overlay
from service.lm.weights import weight_shape


class LoraEditor:
    """The breadth-first loop of LocFT-BF on pairs of low rank. Raises Refused if the base has no matrix at the location."""

    def __init__(self, context: EditorContext, settings: LoraSettings) -> None:
        shapes = [weight_shape(context.base.model, name) for name in find_tuned_location(context.base.anatomy, settings).names]
        if not any(shape is not None and len(shape) >= 2 for shape in shapes):
            raise Refused("The model has no matrix at the location to train.", field="lora.kind")
        self._context, self._settings = context, settings

    def fit(self, items: Sequence[FitItem], start: Overlay, *, seed: int, hooks: Hooks) -> FitResult:
        """See ConsolidatingEditor."""
        settings = self._settings
        return fit_locft(
            self._context.base,
            items,
            settings=settings,
            neutral=self._context.neutral,
            seed=seed,
            hooks=hooks,
            start=start,
            prompts=self._context.sample_prompts(),
            names=self._context.names,
            make_weights=partial(LowRankWeights, rank=settings.rank, scale=settings.scale),
        )

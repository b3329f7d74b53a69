"""LocFT-BF as a consolidating editor of one base."""

from collections.abc import Sequence

from service.editors.locft.fit import fit_locft
from service.editors.locft.location import find_tuned_location
from service.editors.locft.settings import LocftSettings
from service.editors.protocol import EditorContext, FitItem, FitResult, Hooks
from service.lm.overlay import Overlay


class LocftEditor:
    """`fit` is `fit_locft` with the settings of the server. Raises Refused if the base has no such parameters as these name."""

    def __init__(self, context: EditorContext, settings: LocftSettings) -> None:
        find_tuned_location(context.base.anatomy, settings)
        self._context, self._settings = context, settings

    def fit(self, items: Sequence[FitItem], start: Overlay, *, seed: int, hooks: Hooks) -> FitResult:
        """See ConsolidatingEditor."""
        return fit_locft(
            self._context.base,
            items,
            settings=self._settings,
            neutral=self._context.neutral,
            seed=seed,
            hooks=hooks,
            start=start,
            prompts=self._context.sample_prompts(),
            names=self._context.names,
        )

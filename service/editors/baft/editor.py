"""BaFT as an incremental editor of one base."""

from collections.abc import Sequence

from service.editors.baft.fit import fit_baft
from service.editors.baft.settings import BaftSettings
from service.editors.baft.warm_up import warm_up
from service.editors.protocol import EditorContext, FitItem, FitResult, Hooks
from service.lm.overlay import Overlay


class BaftEditor:
    """`fit` is `fit_baft`, and `prepare` is `warm_up`, both with the settings of the server."""

    def __init__(self, context: EditorContext, settings: BaftSettings) -> None:
        self._context, self._settings = context, settings

    def fit(self, parent: Overlay, new: Sequence[FitItem], window: Sequence[FitItem], *, seed: int, hooks: Hooks) -> FitResult:
        """See IncrementalEditor."""
        base, view_of, neutral = self._context.base, self._context.view_of, self._context.neutral
        names = self._context.names
        return fit_baft(
            base, view_of, parent, new, window, settings=self._settings, neutral=neutral, seed=seed, names=names, hooks=hooks
        )

    def prepare(self, overlay: Overlay, *, hooks: Hooks, ahead: bool) -> None:
        """See IncrementalEditor."""
        base, view_of, neutral = self._context.base, self._context.view_of, self._context.neutral
        prepare_questions = self._context.prepare_questions
        warm_up(
            base,
            view_of,
            overlay,
            settings=self._settings,
            neutral=neutral,
            hooks=hooks,
            ahead=ahead,
            prepare_questions=prepare_questions,
        )

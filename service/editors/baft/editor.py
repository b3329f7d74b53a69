"""BaFT as an incremental editor of one base."""

from collections.abc import Sequence

from service.editors.baft.fit import fit_baft
from service.editors.baft.settings import BaftSettings
from service.editors.baft.warm_up import warm_up
from service.editors.edit_scope import make_scope
from service.editors.protocol import EditorContext, FitItem, FitResult, Hooks
from service.lm.overlay import Overlay
from service.lm.scope import Scope

_FIRMEST = 2  # nine times the weight of what must stay; how often a third fit helps is not measured


class BaftEditor:
    """`fit` is `fit_baft`, and `prepare` is `warm_up`, both with the settings of the server."""

    def __init__(self, context: EditorContext, settings: BaftSettings) -> None:
        self._context, self._settings = context, settings

    @property
    def firmest(self) -> int:
        """See IncrementalEditor. Nothing is held by weights of zero."""
        return _FIRMEST if self._settings.preserve_weight or self._settings.contrast_weight else 0

    def fit(
        self,
        parent: Overlay,
        new: Sequence[FitItem],
        window: Sequence[FitItem],
        *,
        seed: int,
        hooks: Hooks,
        firmness: int = 0,
    ) -> FitResult:
        """See IncrementalEditor."""
        return fit_baft(
            self._context.base,
            self._context.view_of,
            parent,
            new,
            window,
            settings=self._settings.hold_firmly(firmness),
            neutral=self._context.neutral,
            seed=seed,
            names=self._context.names,
            hooks=hooks,
        )

    def scope_of(self, items: Sequence[FitItem]) -> Scope | None:
        """See IncrementalEditor."""
        if self._settings.scope != "auto":
            return None
        return make_scope(self._context.base, items, (), names=self._context.names, neutral=self._context.neutral)

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

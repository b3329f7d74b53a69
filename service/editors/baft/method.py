"""BaFT as a registered method."""

from service.editors.baft.settings import BaftSettings
from service.editors.registry import Method

METHOD = Method(
    name="baft",
    title="BaFT",
    role="incremental",
    settings=BaftSettings,
    editor="service.editors.baft.editor:BaftEditor",
)

"""LocFT-BF as a registered method."""

from service.editors.locft.settings import LocftSettings
from service.editors.registry import Method

METHOD = Method(
    name="locft",
    title="LocFT-BF",
    role="consolidating",
    settings=LocftSettings,
    editor="service.editors.locft.editor:LocftEditor",
)

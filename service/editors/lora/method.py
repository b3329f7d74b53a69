"""LoRA as a registered method."""

from service.editors.lora.settings import LoraSettings
from service.editors.registry import Method

METHOD = Method(
    name="lora",
    title="LoRA",
    role="consolidating",
    settings=LoraSettings,
    editor="service.editors.lora.editor:LoraEditor",
    components={"low_rank": "service.editors.lora.low_rank:LowRank"},
)

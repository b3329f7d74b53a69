"""The base model of a process, as the settings name it."""

import structlog

from service.lm.base import Base, load_base
from service.models.find import find_model
from service.settings import Settings

log = structlog.get_logger("errata.server")


def open_base(settings: Settings, *, pinned_name: str | None = None) -> Base:
    """Find, fetch or convert the base model, and load it. `pinned_name`: the name of the base that the store was made with.

    Raises ServiceError, with advice, if the model is not there, cannot be had now or cannot be served.
    """
    found = find_model(
        settings.model,
        models_folder=settings.models_folder,
        may_ask_hub=settings.hub,
        pinned_name=pinned_name,
        say=lambda step: log.info("preparing the model", step=step),
    )
    if found.card is not None:
        log.info("model file", architecture=found.card.architecture, licence=found.card.licence, source=found.card.source)
    if found.name != settings.model:
        log.info("model pinned", base=found.name)
    return load_base(found.folder, name=found.name, device=settings.device, dtype=settings.dtype)
